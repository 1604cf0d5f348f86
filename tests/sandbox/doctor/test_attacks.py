"""Every attack of `sandbox.doctor.attacks` on every backend, with the screen off and on: none may succeed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import pytest

from azr.build import make_rules
from azr.commands.attack_texts import run_texts
from azr.config import PAPER_FORBIDDEN, SandboxConfig, TasksConfig
from sandbox import Execution, Isolation, Job, decode
from sandbox.doctor.attacks import CASES, AttackOutcome, AttackResult
from sandbox.doctor.attacks.matrix import run_matrix
from sandbox.doctor.attacks.texts import TEXTS
from tests.sandbox.conftest import BACKENDS, Running

EXECUTORS = 3
SCREENS = {"screen off": (), "screen on": PAPER_FORBIDDEN}
NUM_REFUSED = 58
"""Cases that the screen refuses with the paper's list; the sandbox has to hold the other 299 by itself."""
MARKS = {"jail": pytest.mark.jail}
GVISOR_GAPS = {
    "C53 CPU time": "its clock of CPU time ticks in 10 ms, so two calls can agree",
    "C58 load": "it always reports 0, so the value does not vary",
    "D76 fork bomb": "it does not limit the number of processes: the container dies and is replaced",
    "D76 fork chain that outruns the killer": "it does not limit the number of processes",
    "D81 deep folders": "removing them takes longer than a second",
}
"""Attacks that gVisor of 2022 under ptrace may fail to hold, or to hold in time. It must hold all others."""


async def matrix(backend: str, forbidden: tuple[str, ...]) -> list[AttackResult]:
    async with AsyncExitStack() as stack:
        executors = [await stack.enter_async_context(BACKENDS[backend]()) for _ in range(EXECUTORS)]
        return await run_matrix(executors, CASES, forbidden=forbidden)


def failures(results: Sequence[AttackResult], *, allowed: Sequence[str] = ()) -> str:
    """One line per attack that succeeded or ended with a status that its case does not allow."""
    return "\n".join(
        f"{each.case.title:50} {each.outcome:13} {each.status:12} {each.detail}"
        for each in results
        if each.case.title not in allowed and not (each.outcome is AttackOutcome.HELD and each.is_expected)
    )


@pytest.mark.parametrize("screen", sorted(SCREENS))
@pytest.mark.parametrize(
    "backend",
    [pytest.param(name, marks=pytest.mark.jail if name == "jail" else pytest.mark.docker) for name in sorted(BACKENDS)],
)
def test_no_attack_succeeds(backend: str, screen: str) -> None:
    results = asyncio.run(matrix(backend, SCREENS[screen]))
    assert len(results) == len(CASES)
    found = failures(results, allowed=list(GVISOR_GAPS) if backend == "runsc" else ())
    assert found == "", f"\n{found}"
    num_refused = sum(each.status == "forbidden" for each in results)
    assert num_refused == (NUM_REFUSED if SCREENS[screen] else 0)


def test_a_success_and_an_unexpected_status_are_both_failures() -> None:
    case = CASES[0]
    held = AttackResult(case, AttackOutcome.HELD, "error", "")
    escaped = AttackResult(case, AttackOutcome.ESCAPE, "error", "a program wrote a file on the host")
    odd = AttackResult(case, AttackOutcome.HELD, "memory", "")
    assert failures([held]) == ""
    assert [line.split()[-1] for line in failures([held, escaped, odd]).splitlines()] == ["host", "memory"]
    assert failures([escaped], allowed=[case.title]) == ""


def test_every_gvisor_gap_is_a_case() -> None:
    assert GVISOR_GAPS.keys() <= {case.title for case in CASES}


class Borrowed:
    """The running executor of the session, as an `Executor` for another event loop."""

    def __init__(self, running: Running) -> None:
        self._running = running

    @property
    def isolation(self) -> Isolation:
        return self._running.isolation

    async def run(self, jobs: Sequence[Job]) -> list[Execution]:
        return await asyncio.to_thread(self._running.run, *jobs)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave it running for the next test."""


def test_no_hostile_text_succeeds(sandboxed: Running) -> None:
    rules = make_rules(TasksConfig(), SandboxConfig())
    results = asyncio.run(run_texts(Borrowed(sandboxed), TEXTS, rules=rules))
    assert len(results) == len(TEXTS)
    found = failures(results)
    assert found == "", f"\n{found}"


def test_nothing_of_the_host_is_in_the_environment(sandboxed: Running) -> None:
    result = sandboxed.call("import os, sys\ndef f(): return sorted(os.environ), len(sys.argv)").results[0]
    allowed = {
        "HOME",
        "HOSTNAME",
        "LANG",
        "LD_BIND_NOW",
        "LD_LIBRARY_PATH",
        "PATH",
        "PWD",
        "PYTHONHASHSEED",
        "PYTHONNOUSERSITE",
        "PYTHONPATH",
        "TMPDIR",
        "TZ",
    }
    names, num_arguments = decode(result.value)
    assert set(names) <= allowed
    assert num_arguments == 1


def test_nothing_survives_from_one_input_to_the_next(sandboxed: Running) -> None:
    program = "import os\ndef f(x):\n seen = os.listdir('/tmp')\n open(f'/tmp/{x}', 'w')\n return len(seen)"
    assert len({result.value for result in sandboxed.call(program, "1", "2", "3").results}) == 1
