"""PID 1 of a sandbox container: takes one job after the other, and outlives them all. Read `main` first.

It looks at nothing that a program or a model wrote: it reads a fixed header, forks a job process that does the rest,
and answers `killed` for it when it died. Being PID 1, no signal from inside its container ends it; being undumpable,
no process inside can trace it or open its pipes. After each job it kills every other process in the container.
"""

from __future__ import annotations

import builtins
import gc
import importlib
import importlib.util
import os
import signal
import sys
import time
from typing import NoReturn

PREIMPORTED = """
    abc array ast base64 bisect calendar collections collections.abc contextlib copy copyreg csv dataclasses datetime
    decimal difflib enum fractions functools hashlib heapq inspect io itertools json keyword linecache math numbers
    operator os pprint queue random re statistics string struct sys textwrap threading time traceback types typing
    unicodedata uuid warnings weakref zlib _strptime
""".split()  # noqa: SIM905  # one word a line would hide that it is one list
"""What real programs import: loaded once here, so that no fork pays for it."""

GUARDED = (
    "sandbox.types",
    "sandbox.constructors",
    "sandbox.tokens",
    "sandbox.arithmetic",
    "sandbox.literals",
    "sandbox.values",
    "sandbox.wire",
    "sandbox.guest.confine",
    "sandbox.guest.policy",
    "sandbox.guest.candidate",
    "sandbox.guest.watch",
    "sandbox.guest.job",
)
KILLED = b'{"status": "killed", "results": [], "wall_s": %f, "cpu_s": 0.0, "peak_memory_mib": 0.0}'
TIMEOUT = KILLED.replace(b"killed", b"timeout")


def main() -> NoReturn:
    if os.getpid() != 1:
        raise SystemExit("The supervisor kills every process it can see: it only runs as PID 1 of a container.")
    _prepare()
    from sandbox import wire
    from sandbox.guest import job

    while header := job.read_exactly(0, wire.HEADER.size):
        _serve(wire.read_header(header))
    raise SystemExit(0)


def _prepare() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for name in PREIMPORTED:
        importlib.import_module(name)
    private = dict(vars(builtins))
    for name in GUARDED:
        _load(name, private)
    importlib.import_module("sandbox.guest.confine").hide_memory()
    gc.collect()
    gc.freeze()


def _load(name: str, private: dict[str, object]) -> None:
    """Import one of our modules on builtins of its own, so that a program replaces `builtins.len` for itself only."""
    spec = importlib.util.find_spec(name)
    assert spec, name
    assert spec.loader, name
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__builtins__"] = private
    sys.modules[name] = module
    package, _, attribute = name.rpartition(".")
    setattr(sys.modules[package], attribute, module)
    spec.loader.exec_module(module)


def _serve(header: object) -> None:
    from sandbox import wire
    from sandbox.guest import job

    assert isinstance(header, wire.Header)
    started = time.monotonic()
    stages_read, stages_write = os.pipe()
    child = os.fork()
    if child == 0:
        _be_job_process(header, stages_write)
    os.close(stages_write)
    ended_well = _wait(child, header.deadline_ms / 1000)
    _sweep()
    stages = os.read(stages_read, 16)
    os.close(stages_read)
    if ended_well and stages == job.REQUEST_READ + job.REPLYING:
        return
    if stages != job.REQUEST_READ:
        raise SystemExit("The pipe to the host is out of step; the host replaces this container.")
    wall_s = time.monotonic() - started
    body = (TIMEOUT if wall_s >= header.deadline_ms / 1000 else KILLED) % wall_s
    os.write(1, wire.frame(header.job_id, body))


def _be_job_process(header: object, stages: int) -> NoReturn:
    from sandbox import wire
    from sandbox.guest import job

    assert isinstance(header, wire.Header)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        job.serve(header, stages)
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode()[:2000])
    os._exit(1)


def _wait(child: int, deadline_s: float) -> bool:
    """Whether the job process ended by itself and well; a stopped one did not. Reaps whatever else ends meanwhile."""
    deadline = time.monotonic() + deadline_s
    while True:
        pid, wait_status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if pid == child:
            return wait_status == 0
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return False
        if pid == 0:
            signal.sigtimedwait({signal.SIGCHLD}, remaining)


def _sweep() -> None:
    """Nothing that a job started survives it."""
    try:
        os.kill(-1, signal.SIGKILL)
        while True:
            os.waitpid(-1, 0)
    except (ProcessLookupError, ChildProcessError):
        return


if __name__ == "__main__":
    main()
