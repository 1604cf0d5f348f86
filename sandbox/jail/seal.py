"""Bounds the number of files in a jail's scratch folders and forbids to execute them; bubblewrap has no words for it.

Run as a program of its own (`python seal.py CHILD ROOT BYTES FOLDER...`) while the jail waits: only a process with a
single thread can enter another one's namespaces.
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


def seal(child: str, root: str, size_bytes: str, folders: list[str]) -> None:
    """Wait until the child has moved into its root, follow it there, and mount its scratch folders anew.

    Raises:
        OSError: the kernel refuses.
        TimeoutError: the child did not move.
    """
    _wait_until_moved(child, root)
    spaces = [os.open(f"/proc/{child}/ns/{kind}", os.O_RDONLY) for kind in ("user", "mnt")]
    for space in spaces:
        _check(_libc.setns(space, 0), "setns")
    flags = MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_NOEXEC
    options = f"size={size_bytes},nr_inodes={MAX_FILES}".encode()
    for folder in folders:
        _check(_libc.mount(b"tmpfs", folder.encode(), None, flags, options), f"mount {folder}")


def _wait_until_moved(child: str, root: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not _has_moved(child, root):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {child} did not move into {root}")
        time.sleep(0.001)


def _has_moved(child: str, root: str) -> bool:
    """Its root folder is a mount of ours, and no longer one of this machine's."""
    mounts = (line.split()[3:5] for line in Path(f"/proc/{child}/mountinfo").read_text().splitlines())
    return any(place == "/" and (f"/{shown}").endswith(root) for shown, place in mounts)


def _check(returned: int, what: str) -> None:
    if returned != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    seal(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
