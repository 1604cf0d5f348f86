"""Looks for other processes, tries to stop or read them, and counts how many processes it may create."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import signal
import threading
import time
from collections.abc import Sequence

NAMESPACES = ("pid", "net", "mnt", "ipc", "uts", "user", "cgroup")
DESCRIPTIVE = ("environ", "maps", "fd", "root", "cwd")
MOST_DESCRIPTORS = 16


@functools.cache
def namespaces() -> dict[str, str]:
    """The identity of each namespace of this process; empty where the kernel reports none."""
    named: dict[str, str] = {}
    for name in NAMESPACES:
        with contextlib.suppress(OSError):
            named[name] = os.readlink(f"/proc/self/ns/{name}")  # noqa: PTH115
    return named


@functools.cache
def strangers() -> list[str]:
    """Processes other than this one and its ancestors."""
    return sorted(_command(pid) for pid in _pids() - _ancestors())


def _pids() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208


def _ancestors() -> set[int]:
    line, pid = {os.getpid()}, os.getpid()
    while pid > 1:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as fields:  # noqa: PTH123
            pid = int(fields.read().rpartition(")")[2].split()[1])
        line.add(pid)
    return line


def _command(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as name:  # noqa: PTH123
        return f"{pid} {name.read().strip()}"
    return str(pid)


@functools.cache
def open_ancestors() -> list[str]:
    """Memory and open files of PID 1 and the parent that can be opened; with them a program could impersonate the
    supervisor."""
    names = ["mem", *(f"fd/{number}" for number in range(MOST_DESCRIPTORS))]
    return [name for name in _of_ancestors(names) if _is_open(name)]


@functools.cache
def described_ancestors() -> list[str]:
    """Files that reveal the environment, memory map or folders of PID 1 and the parent."""
    return [name for name in _of_ancestors(DESCRIPTIVE) if _is_open(name)]


def _of_ancestors(names: Sequence[str]) -> list[str]:
    return [f"/proc/{pid}/{name}" for pid in sorted({1, os.getppid()}) for name in names]


def _is_more_than_null(name: str) -> bool:
    descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return not os.path.samestat(os.fstat(descriptor), os.stat("/dev/null"))  # noqa: PTH116
    finally:
        os.close(descriptor)


def _is_open(name: str) -> bool:
    try:
        if name.endswith(("/root", "/cwd")):
            os.readlink(name)  # noqa: PTH115
        elif name.endswith("/fd"):
            os.listdir(name)  # noqa: PTH208
        else:
            return _is_more_than_null(name)
    except OSError:
        return False
    return True


@functools.cache
def kill_first() -> str:
    """Send SIGKILL to PID 1 of this namespace; the kernel must ignore it."""
    os.kill(1, signal.SIGKILL)
    time.sleep(0.02)
    return "no effect"


@functools.cache
def fork_many(most: int) -> int:
    """The number of children that can exist at the same time."""
    children: list[int] = []
    with contextlib.suppress(OSError):
        while len(children) < most:
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            children.append(child)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return len(children)


@functools.cache
def thread_many(most: int) -> int:
    """The number of threads that can exist at the same time."""
    threading.stack_size(64 * 1024)
    stop = threading.Event()
    threads: list[threading.Thread] = []
    with contextlib.suppress(RuntimeError, MemoryError):
        while len(threads) < most:
            threads.append(threading.Thread(target=stop.wait, daemon=True))
            threads[-1].start()
    count = sum(thread.is_alive() for thread in threads)
    stop.set()
    return count


@functools.cache
def raised() -> list[str]:
    """The limits of its own process that a program can raise."""
    found: list[str] = []
    bounds = {"memory": resource.RLIMIT_AS, "CPU": resource.RLIMIT_CPU, "open files": resource.RLIMIT_NOFILE}
    for name, bound in bounds.items():
        with contextlib.suppress(OSError, ValueError):
            hard = resource.getrlimit(bound)[1]
            resource.setrlimit(bound, (hard, hard + 1 if hard != resource.RLIM_INFINITY else hard))
            found.append(name)
    with contextlib.suppress(OSError):
        os.nice(-1)
        found.append("priority")
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        found.append("real-time scheduling")
    return found


@functools.cache
def terminal() -> str:
    """Open the controlling terminal."""
    os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    return "a controlling terminal"
