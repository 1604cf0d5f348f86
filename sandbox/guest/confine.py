"""What a process gives up before it runs hostile code, and how everything of it is removed afterwards."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import signal
import stat
from pathlib import Path

from sandbox.types import Limits

SCRATCH = "/tmp"
RESULT_FD = 3
FIRST_OTHER_FD = 4
MAX_OPEN_FDS = 256
FILE_BYTES = 8 * 1024 * 1024
STACK_BYTES = 8 * 1024 * 1024
PR_SET_DUMPABLE = 4
OWN_PROCESSES = 3
"""Supervisor, job process and one that is being reaped: they count against the container's user as well."""

_libc = ctypes.CDLL(None, use_errno=True)


def hide_memory(hidden: bool = True) -> None:
    """No process of the same user may trace this one or read its files under /proc; children inherit it."""
    if _libc.prctl(PR_SET_DUMPABLE, 0 if hidden else 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def address_space_bytes() -> int:
    with open("/proc/self/statm") as statm:  # noqa: PTH123  # no pathlib between fork and exec of a program
        return int(statm.read().split()[0]) * resource.getpagesize()


def enter(limits: Limits, *, calls: int, result_fd: int, output_fd: int) -> None:
    """Turn this fresh fork into a place for a hostile program: nothing open, nothing inherited, everything limited."""
    os.setsid()
    _forget_signals()
    _forget_files(result_fd, output_fd)
    _volunteer_for_oom()
    workplace = f"{SCRATCH}/{os.urandom(6).hex()}"
    os.mkdir(workplace, 0o700)  # noqa: PTH102  # as above
    os.chdir(workplace)
    random.seed()
    _limit(limits, calls)


def kill_everything_else() -> None:
    """Every process of this container but its PID 1 and the caller; processes that fork meanwhile are caught as well.

    Only ever called inside a container: the supervisor checks that it is PID 1 before anything else.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)


def clean_scratch() -> None:
    """Leave nothing for the next program. Flat and without recursion, because the tree may be as deep as the file
    system allows and locked by its modes."""
    root = Path(SCRATCH)
    count = 0
    while names := os.listdir(root):  # noqa: PTH208  # on the way of every run
        for name in names:
            path = root / name
            if not stat.S_ISDIR(path.lstat().st_mode):
                path.unlink()
                continue
            path.chmod(0o700)
            for inner in os.listdir(path):  # noqa: PTH208  # as above
                count += 1
                _hoist(path / inner, root / f".hoisted-{os.getpid()}-{count}")
            path.rmdir()


def _hoist(path: Path, target: Path) -> None:
    if stat.S_ISDIR(path.lstat().st_mode):
        path.chmod(0o700)
    path.rename(target)


def _forget_signals() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _forget_files(result_fd: int, output_fd: int) -> None:
    """Nothing stays open but /dev/null, the bounded output and the result pipe."""
    null = os.open("/dev/null", os.O_RDONLY)
    kept = [os.dup2(fd, place) for fd, place in ((null, 100), (output_fd, 101), (result_fd, 102))]
    for source, place in zip((kept[0], kept[1], kept[1], kept[2]), (0, 1, 2, RESULT_FD), strict=True):
        os.dup2(source, place, inheritable=place != RESULT_FD)
    os.closerange(FIRST_OTHER_FD, MAX_OPEN_FDS)


def _volunteer_for_oom() -> None:
    """When the container is out of memory the kernel takes this process, not the supervisor."""
    hide_memory(False)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123  # as above
        score.write("1000")
    hide_memory()


def _limit(limits: Limits, calls: int) -> None:
    cpu_s = max(1, -int(-limits.cpu_s * calls // 1))
    space = address_space_bytes() + limits.memory_mib * 1024 * 1024
    bounds = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_STACK: STACK_BYTES,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_NPROC: limits.processes + OWN_PROCESSES,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_AS: space,
    }
    for what, bound in bounds.items():
        hard = resource.getrlimit(what)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(what, (bound, bound))
