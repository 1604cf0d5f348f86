"""What a process gives up before it runs hostile code, and how everything of it is removed afterwards."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import stat

from sandbox.shared.wire import Request

SCRATCH = os.environ.get("TMPDIR", "/tmp")
USER_VARIABLE = "SANDBOX_PROGRAM_USER"
RESULT_FD = 3
FIRST_OTHER_FD = 4
MAX_OPEN_FDS = 256
FILE_BYTES = 8 * 1024 * 1024
STACK_BYTES = 8 * 1024 * 1024
PR_SET_DUMPABLE, PR_CAPBSET_DROP = 4, 24
MOST_CAPABILITIES = 64
OWN_PROCESSES = 2
"""The supervisor, and one that is being reaped: they count against the container's user as well."""

_libc = ctypes.CDLL(None, use_errno=True)


def hide_memory() -> None:
    """No process of the same user may trace this one or read its files under /proc; forks inherit it."""
    if _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


class _Place:
    """What the supervisor prepares once for all forks."""

    null_fd = -1
    """/dev/null; stands in for standard input."""
    space_bytes = 0
    """Address space of the bare interpreter."""
    user = 0
    """Whom programs run as where the supervisor is somebody else; 0 where they share a user."""


def settle() -> None:
    """Open what forks need, and give up at once what is the same for all."""
    _Place.null_fd = os.open("/dev/null", os.O_RDONLY)
    _Place.user = int(os.environ.pop(USER_VARIABLE, "0"))
    if _Place.user:
        os.setgroups([])
        for capability in range(MOST_CAPABILITIES):
            _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.chdir(SCRATCH)
    clean_scratch()
    for what, bound in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, FILE_BYTES)):
        resource.setrlimit(what, (bound, bound))
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    bound = STACK_BYTES if most == resource.RLIM_INFINITY else min(STACK_BYTES, most)
    resource.setrlimit(resource.RLIMIT_STACK, (bound, bound))
    with open("/proc/self/statm") as statm:
        _Place.space_bytes = int(statm.read().split()[0]) * resource.getpagesize()


def enter(request: Request, result_fd: int, output_fd: int) -> None:
    """Turn this fresh fork into a place for a hostile program: nothing open, nothing inherited, everything limited."""
    os.setsid()
    os.dup2(_Place.null_fd, 0)
    os.dup2(output_fd, 1)
    os.dup2(output_fd, 2)
    os.dup2(result_fd, RESULT_FD, False)
    os.closerange(FIRST_OTHER_FD, MAX_OPEN_FDS)
    _set_limit(resource.RLIMIT_NOFILE, request.open_files)
    _set_limit(resource.RLIMIT_NPROC, request.processes + OWN_PROCESSES)
    cpu_s = -(-request.cpu_ms * (request.inputs or 1) // 1000)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))  # the first ends it by SIGXCPU, which says why
    _set_limit(resource.RLIMIT_AS, _Place.space_bytes + request.memory_mib * 1024 * 1024)
    if _Place.user:
        os.setresgid(_Place.user, _Place.user, _Place.user)
        os.setresuid(_Place.user, _Place.user, _Place.user)
    gc.enable()


def _set_limit(what: int, bound: int) -> None:
    resource.setrlimit(what, (bound, bound))


def clean_scratch() -> None:
    """Leave nothing for the next program. Without recursion, because the tree may be as deep as the file system allows,
    and locked by its modes."""
    count = 0
    while names := os.listdir(SCRATCH):
        for name in names:
            path = f"{SCRATCH}/{name}"
            if not _is_folder(path):
                os.unlink(path)
                continue
            os.chmod(path, 0o700)
            for inner in os.listdir(path):
                count += 1
                _hoist(f"{path}/{inner}", f"{SCRATCH}/.hoisted-{os.getpid()}-{count}")
            os.rmdir(path)


def _hoist(path: str, target: str) -> None:
    if _is_folder(path):
        os.chmod(path, 0o700)
    os.rename(path, target)


def _is_folder(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)
