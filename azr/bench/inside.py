"""Sent into the sandbox as program text: measures a bare fork there, and reads the supervisor's memory."""

from __future__ import annotations

import functools
import os
import time
from typing import Any


@functools.cache
def bare_forks(programs: tuple[tuple[str, str], ...], count: int) -> list[float]:
    """Seconds of `count` bare forks, over (program, input) in turn.

    Each is a fork, compile, exec, call, `repr` over a pipe and reap: the least that running a program in a fresh Python
    process takes. Cached, because a run calls twice.
    """
    return [_bare_fork(*programs[turn % len(programs)]) for turn in range(count)]


def _bare_fork(program: str, text: str) -> float:
    started = time.perf_counter()
    source, target = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            namespace: dict[str, Any] = {"__name__": "program"}
            exec(compile(program, "<program>", "exec", dont_inherit=True), namespace)
            os.write(target, repr(eval(f"f({text}\n)", namespace)).encode("utf-8", "backslashreplace"))
        finally:
            os._exit(0)
    os.close(target)
    while os.read(source, 65536):
        pass
    os.close(source)
    os.waitpid(child, 0)
    return time.perf_counter() - started


def supervisor_rss_kib() -> int:
    """Resident memory of the parent process, which is the supervisor."""
    with open(f"/proc/{os.getppid()}/status", encoding="ascii", errors="replace") as lines:  # noqa: PTH123
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])
