"""The running guests as the host sees them: their processor time, their memory, the cores that they may use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sandbox.docker.engine import connect
from sandbox.types import Executor, SandboxError

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
KIB = 1024
BYTES_PER_MB = 1_000_000
JAILED = b"sandbox.guest"
"""Stands in the command line of a supervisor that is a process of this host's."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one supervisor, in MB (10^6 bytes)."""

    rss_mb: float
    pss_mb: float
    """Pages that several processes share are counted by parts."""


@dataclass(frozen=True, slots=True)
class Growth:
    """Memory of the largest supervisor after many runs, and how much the one that grew most has gained in them."""

    memory: Memory
    grown_mb: float
    runs: int


def pids(executor: Executor) -> list[int]:
    """The guests' first processes, as this host numbers them.

    Raises:
        SandboxError: there are none, so nothing could be measured.
    """
    is_docker = executor.isolation.backend == "docker"
    found = [int(cast(Any, one).attrs["State"]["Pid"]) for one in _containers()] if is_docker else list(_jailed())
    if not found:
        raise SandboxError("the benchmark finds no running guest of this process")
    return found


def pin(executor: Executor, cores: Sequence[int]) -> None:
    """Let all guests run on these cores only."""
    if executor.isolation.backend == "docker":
        for container in _containers():
            cast(Any, container).update(cpuset_cpus=",".join(map(str, cores)))
        return
    for pid in _jailed():
        os.sched_setaffinity(pid, cores)


def cpu_s(first_processes: Sequence[int]) -> float:
    """Processor seconds that the guests took so far, with everything that they forked and reaped."""
    ticks = 0
    for pid in first_processes:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it was replaced meanwhile
        ticks += sum(int(field) for field in fields[11:15])  # utime, stime, and both of its children
    return ticks / TICKS_PER_S


def growth(before: Mapping[int, Memory], after: Mapping[int, Memory], runs: int) -> Growth | None:
    """What the guests gained; None where none could be read, or all were replaced meanwhile."""
    gained = [after[pid].rss_mb - before[pid].rss_mb for pid in before.keys() & after.keys()]
    if not gained:
        return None
    return Growth(max(after.values(), key=lambda one: one.rss_mb), max(gained), runs)


def memory(first_processes: Sequence[int]) -> dict[int, Memory]:
    """What the guests hold in memory, as far as this user may read it."""
    found = {pid: _memory(pid) for pid in first_processes}
    return {pid: one for pid, one in found.items() if one is not None}


def _memory(pid: int) -> Memory | None:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return None
    sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return Memory(sizes["Rss"] * KIB / BYTES_PER_MB, sizes["Pss"] * KIB / BYTES_PER_MB)


def _containers() -> list[object]:
    from sandbox.docker.backend import OWNER_LABEL, owner

    client = connect()
    label = f"{OWNER_LABEL}={owner()}"
    return list(client.containers.list(filters={"label": label}, ignore_removed=True))


def _jailed() -> Iterator[int]:
    """Descendants of this process that run a supervisor, and of which no ancestor does."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := _parent(entry)):
            children.setdefault(parent, []).append(int(entry.name))
    waiting = list(children.get(os.getpid(), ()))
    while waiting:
        pid = waiting.pop()
        if _is_supervisor(pid):
            yield pid
        else:
            waiting += children.get(pid, ())


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _is_supervisor(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"python" in words[0] and any(word.startswith(JAILED) for word in words)
