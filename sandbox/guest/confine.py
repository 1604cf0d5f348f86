"""What a fork gives up before it runs hostile code (`enter`), and how its files are removed afterwards."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import stat

from sandbox.shared.wire import RequestHeader

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
"""The supervisor and one process that is being reaped; both count against the container's user."""

_libc = ctypes.CDLL(None, use_errno=True)


def hide_memory() -> None:
    """Forbid processes of the same user to trace this one or to read its files under /proc. Forks inherit it."""
    if _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


class _Prepared:
    """What the supervisor prepares once for all forks."""

    null_fd = -1
    """/dev/null, the standard input of forks."""
    space_bytes = 0
    """Address space of the interpreter before a program runs."""
    user = 0
    """The user that programs run as; 0 if it is the supervisor's own."""


def settle() -> None:
    """Open what forks need, and give up what no fork needs."""
    _Prepared.null_fd = os.open("/dev/null", os.O_RDONLY)
    _Prepared.user = int(os.environ.pop(USER_VARIABLE, "0"))
    if _Prepared.user:
        os.setgroups([])
        for capability in range(MOST_CAPABILITIES):
            _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.chdir(SCRATCH)
    clean_scratch()
    _set_limit(resource.RLIMIT_CORE, 0)
    _set_limit(resource.RLIMIT_FSIZE, FILE_BYTES)
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    _set_limit(resource.RLIMIT_STACK, STACK_BYTES if most == resource.RLIM_INFINITY else min(STACK_BYTES, most))
    with open("/proc/self/statm") as statm:
        _Prepared.space_bytes = int(statm.read().split()[0]) * resource.getpagesize()


def enter(header: RequestHeader, result_fd: int, output_fd: int) -> None:
    """Confine this fresh fork: only the pipes stay open, every resource is limited, and its user has no privileges."""
    os.setsid()
    os.dup2(_Prepared.null_fd, 0)
    os.dup2(output_fd, 1)
    os.dup2(output_fd, 2)
    os.dup2(result_fd, RESULT_FD, False)
    os.closerange(FIRST_OTHER_FD, MAX_OPEN_FDS)
    _set_limit(resource.RLIMIT_NOFILE, header.open_files)
    _set_limit(resource.RLIMIT_NPROC, header.processes + OWN_PROCESSES)
    cpu_s = -(-header.cpu_ms * (header.inputs or 1) // 1000)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))  # the soft limit sends SIGXCPU, which shows the reason
    _set_limit(resource.RLIMIT_AS, _Prepared.space_bytes + header.memory_mib * 1024 * 1024)
    if _Prepared.user:
        os.setresgid(_Prepared.user, _Prepared.user, _Prepared.user)
        os.setresuid(_Prepared.user, _Prepared.user, _Prepared.user)
    gc.enable()


def _set_limit(what: int, bound: int) -> None:
    resource.setrlimit(what, (bound, bound))


def clean_scratch() -> None:
    """Empty the scratch folder. A program may nest folders as deep as the file system allows and take away permissions,
    so inner entries are moved up instead of visited by recursion."""
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
