"""Takes more than a run may have of everything."""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import signal
import sys
import time

MIB = 1 << 20


@functools.cache
def allocate(mib: int) -> str:
    """Ordinary memory, touched."""
    return f"{len(bytearray(mib * MIB)) // MIB} MiB were given"


@functools.cache
def share(mib: int) -> str:
    """Shared memory, touched: it belongs to no heap."""
    block = mmap.mmap(-1, mib * MIB, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    for start in range(0, mib * MIB, MIB):
        block[start : start + MIB] = bytes(range(256)) * 4096
    return f"{mib} MiB were given"


@functools.cache
def allocate_together(children: int, mib: int) -> int:
    """MiB that the children hold at the same time, each within the limit of one process."""
    ready_read, ready_write = os.pipe()
    pids: list[int] = []
    with contextlib.suppress(OSError):
        while len(pids) < children:
            pids.append(os.fork() or _hold(mib, ready_write))
    os.close(ready_write)
    while os.read(ready_read, 1):
        pass
    alive = [pid for pid in pids if os.waitpid(pid, os.WNOHANG) == (0, 0)]
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(alive) * mib


def _hold(mib: int, ready: int) -> int:
    """A child's whole life."""
    with contextlib.suppress(MemoryError):
        block = bytearray(mib * MIB)
        block[::4096] = b"x" * len(range(0, mib * MIB, 4096))
        os.close(ready)
        time.sleep(60)
    os._exit(0)


def spin() -> None:
    """Use the processor for good."""
    while True:
        pass


def linger() -> None:
    """Wait for good, deaf to every signal that can be ignored."""
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(1)


def flood() -> None:
    """Print for good."""
    while True:
        sys.stdout.write("azr" * 1000)


@functools.cache
def return_long(characters: int) -> str:
    """A value longer than the limit."""
    return "x" * characters


@functools.cache
def open_many(most: int) -> int:
    """How many files are open at the same time."""
    opened: list[int] = []
    with contextlib.suppress(OSError):
        while len(opened) < most:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    for descriptor in opened:
        os.close(descriptor)
    return len(opened)
