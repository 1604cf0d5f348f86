"""The stand-in trainer around a careless harness, and the referee over both. Only ever PID 1 of a throwaway container.

Read `main`. The referee plants the stage, forks the trainer and a sibling worker, gives the attack its time, and then
says in one line of JSON what it sees. Standard library and `sandbox.attacks` only; `controls.py` sends it inside.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from sandbox.attacks.stage import Stage
from sandbox.attacks.unsafe_harness import UnsafeBareSubprocess, UnsafeForkedWorker, UnsafeHarness

HARNESSES: dict[str, type[UnsafeBareSubprocess] | type[UnsafeForkedWorker]] = {
    "bare subprocess": UnsafeBareSubprocess,
    "forked worker": UnsafeForkedWorker,
}
GRACE_S = 1.0
RUNS_IN_TIME = 5
"""How many runs at their limit the trainer may need for one case."""
TRAINER_MIB = 300
PR_SET_DUMPABLE = 4


@dataclass(frozen=True)
class Request:
    """One case for one harness, the texts already fitted to no stage yet."""

    harness: str
    program: str
    call: str
    probe: str
    is_wavering: bool
    may_be_constant: bool
    is_paid: bool
    """Whether the case is after a verdict, so that one is given."""
    limit_s: float


def main(request: Request, token: str) -> None:
    """Play the case; the report goes to standard output behind the token."""
    if os.getpid() != 1:
        raise SystemExit("These programs do what they like: they only run as PID 1 of a throwaway container.")
    out = os.dup(1)
    for fd in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), fd)
    with Stage() as stage:
        report = _played(request, stage)
    os.write(out, f"\n{token}{json.dumps(report)}\n".encode())


def _played(request: Request, stage: Stage) -> dict[str, Any]:
    ears, mouth = os.pipe()
    trainer = os.fork()
    if trainer == 0:
        os.close(ears)
        _be_trainer(request, stage, mouth)
    sibling = os.fork()
    if sibling == 0:
        os.close(ears)
        os.close(mouth)
        while True:
            time.sleep(1)
    os.close(mouth)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as for any PID 1 of a host: signals of ordinary users do nothing
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    told = _heard(ears, RUNS_IN_TIME * request.limit_s + GRACE_S)
    ours = {1, trainer, sibling, *told.get("processes", [])}
    is_overdue = _is_still_there(ours) or not told or told["slowest_s"] > request.limit_s + GRACE_S
    hurt = [f"the {name} is gone" for name, pid in (("trainer", trainer), ("sibling", sibling)) if not _is_well(pid)]
    hurt += [stage.harm(), *_starved(trainer)]
    run = told.get("run", {"status": "gone", "accepted": False, "value": ""})
    return {**run, "is_overdue": is_overdue, "harm": "; ".join(filter(None, hurt))}


def _heard(ears: int, longest_s: float) -> dict[str, Any]:
    """The trainer's report; nothing when it does not come in time, or the trainer is no more."""
    text, deadline = b"", time.monotonic() + longest_s
    while not text.endswith(b"\n"):
        if not select.select([ears], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return {}
        part = os.read(ears, 65536)
        if not part:
            return {}
        text += part
    return json.loads(text)


def _is_still_there(ours: set[int]) -> bool:
    """Whether any process that nobody planned is there after the grace time."""
    deadline = time.monotonic() + GRACE_S
    while _running() - ours:
        if time.monotonic() > deadline:
            return True
        time.sleep(0.05)
    return False


def _running() -> set[int]:
    pids = {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()}
    return {pid for pid in pids if _state(pid) not in "ZX"}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def _is_well(pid: int) -> bool:
    return _state(pid) not in "ZXTt"


def _starved(trainer: int) -> list[str]:
    """What the trainer lacks after the attack, or holds too much of."""
    found: list[str] = []
    disk = os.statvfs("/tmp")
    if disk.f_bavail < disk.f_blocks / 10 or disk.f_favail < disk.f_files / 10:
        found.append("the trainer's disk is full")
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{trainer}/status").read_text().splitlines()
        peak_kib = int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
        if peak_kib > TRAINER_MIB * 1024:
            found.append(f"the trainer holds {peak_kib // 1024} MiB")
    return found


def _be_trainer(request: Request, stage: Stage, mouth: int) -> NoReturn:
    """The whole life of the trainer; what ends it ends here, and none of the referee's code runs in it."""
    try:
        os.set_inheritable(mouth, False)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        os.chdir("/tmp")
        report = _Trainer(request, stage, mouth).report()
        os.write(mouth, (json.dumps(report) + "\n").encode())
        while True:
            signal.pause()
    finally:
        os._exit(1)


class _Trainer:
    """Runs the case as its harness does, with the gold answer at hand."""

    def __init__(self, request: Request, stage: Stage, mouth: int) -> None:
        self._request = request
        self._gold = stage.gold
        self._program, self._probe = stage.fitted(request.program), stage.fitted(request.probe)
        self._harness: UnsafeHarness = HARNESSES[request.harness](request.limit_s, mouth)
        self._slowest_s = 0.0

    def report(self) -> dict[str, Any]:
        request = self._request
        started = time.monotonic()
        if request.is_wavering:
            run = self._harness.repeated(self._program, request.call)
        else:
            run = self._harness.ran(self._program, request.call)
        self._slowest_s = (time.monotonic() - started) / (2 if request.is_wavering else 1)
        extra: dict[str, bool] = {}
        if request.is_wavering:
            extra["has_wavered"] = run.accepted and not (request.may_be_constant and self._agrees())
        if request.is_paid and run.status != "timeout":
            extra["correct"] = self._harness.has_right_answer(self._program, request.call, self._gold)
        if request.probe:
            extra["is_found"] = self._harness.ran(self._probe, "").value == "True"
        return {
            "run": {**asdict(run), **extra},
            "processes": sorted(self._harness.processes()),
            "slowest_s": self._slowest_s,
        }

    def _agrees(self) -> bool:
        runs = [self._harness.ran(self._program, self._request.call) for _ in range(2)]
        return runs[0] == runs[1]
