"""Limits the number of files in a jail's scratch folder and forbids executing them; bubblewrap has no option for it.

A separate program (`python seal.py CHILD ROOT BYTES FOLDER`) that runs while the jail waits, because only a process
with a single thread can enter another process's namespaces.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path

WAIT_S = 10.0
MAX_FILES = 1024
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 2, 4, 8, 32

_libc = ctypes.CDLL(None, use_errno=True)


def seal(child: str, root: str, size_bytes: str, folder: str) -> None:
    """Wait until the child has changed its root, enter its namespaces, and remount its scratch folder.

    Raises:
        OSError: the kernel refuses.
        TimeoutError: the child did not change its root.
    """
    _wait_until_moved(child, root)
    spaces = [os.open(f"/proc/{child}/ns/{kind}", os.O_RDONLY) for kind in ("user", "mnt")]
    for space in spaces:
        _check(_libc.setns(space, 0), "setns")
    flags = MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_NOEXEC
    options = f"size={size_bytes},nr_inodes={MAX_FILES}".encode()
    _check(_libc.mount(b"tmpfs", folder.encode(), None, flags, options), f"mount {folder}")


def _wait_until_moved(child: str, root: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not _has_moved(child, root):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {child} did not change its root to {root} within {WAIT_S:.0f} s")
        time.sleep(0.001)


def _has_moved(child: str, root: str) -> bool:
    """True if the jail's root is mounted at `/` of the child."""
    mounts = (line.split()[3:5] for line in Path(f"/proc/{child}/mountinfo").read_text().splitlines())
    return any(place == "/" and (f"/{shown}").endswith(root) for shown, place in mounts)


def _check(returned: int, what: str) -> None:
    if returned != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    seal(*sys.argv[1:])
