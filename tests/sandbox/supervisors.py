"""The supervisors of this process's sandboxes, as the host sees them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from sandbox.docker.engine import connect
from sandbox.docker.executor import OWNER_LABEL, owner
from sandbox.types import Executor, SandboxError

JAILED = b"sandbox.guest"
"""Part of the command line of a supervisor that runs in a jail."""


def pids(executor: Executor) -> list[int]:
    """Process ids on this host; there is at least one."""
    is_docker = executor.isolation.backend == "docker"
    found = [int(cast(Any, one).attrs["State"]["Pid"]) for one in _containers()] if is_docker else list(_jailed())
    if not found:
        raise SandboxError("no supervisor of this process is running")
    return found


def _containers() -> list[object]:
    client = connect()
    label = f"{OWNER_LABEL}={owner()}"
    return list(client.containers.list(filters={"label": label}, ignore_removed=True))


def _jailed() -> Iterator[int]:
    """The topmost descendants of this process that run a supervisor."""
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
