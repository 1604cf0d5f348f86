"""The system calls that programs may make: one allow-list for both backends. Read `ALLOWED`, then `TRIPWIRES`.

A call that is not listed fails with EPERM, so that a library that only tries it can continue. A call that an honest
program never makes ends its process with SIGSYS, and the supervisor counts it. Docker gets the list as a JSON profile,
bubblewrap as a BPF program (`sandbox.jail.bpf`); both come from `rules`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from sandbox.host.syscalls import NUMBERS
from sandbox.types import SandboxError

ALLOWED = {
    "start": "execve brk arch_prctl set_tid_address set_robust_list rseq access getrandom",
    "memory": "mmap munmap mprotect mremap madvise msync",
    "files": "openat close read write lseek newfstatat getdents64 readlink faccessat2 statfs",
    "more files": "pread64 pwrite64 readv writev ftruncate truncate fsync fdatasync flock sendfile copy_file_range",
    "folders": "getcwd chdir fchdir mkdir rmdir rename unlink unlinkat chmod fchmod utimensat umask",
    "descriptors": "dup2 dup3 pipe2 fcntl close_range",
    "waiting": "poll pselect6 epoll_create1 epoll_ctl epoll_wait futex clock_nanosleep sched_yield",
    "processes": "vfork wait4 waitid exit exit_group setsid kill tgkill",
    "signals": "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait rt_sigpending alarm setitimer getitimer",
    "identity": "getpid getppid gettid getuid geteuid getgid getegid getgroups getresuid getresgid",
    "kinship": "getpgid getpgrp getsid",
    "measures": "clock_gettime times getrusage getpriority sched_getaffinity sysinfo uname",
}
"""Reason: calls. A test removes each call and checks that a program that uses it, or the guest's start, fails."""

ALTERNATIVES = {
    "newfstatat": "stat lstat fstat statx",
    "pselect6": "select",
    "poll": "ppoll",
    "epoll_wait": "epoll_pwait",
    "clock_nanosleep": "nanosleep",
    "clock_gettime": "clock_getres gettimeofday time",
    "access": "faccessat",
    "chmod": "fchmodat",
    "mkdir": "mkdirat",
    "rename": "renameat renameat2",
    "readlink": "readlinkat",
    "vfork": "fork",
    "dup2": "dup",
}
"""Call: other calls that do the same on another C library, kernel or processor."""

CONTAINER_START = "sigaltstack fstatfs"
"""Calls that runc makes between installing the filter and starting the guest."""

TRIPWIRES = {
    "file systems": "mount umount2 pivot_root chroot fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr",
    "namespaces": "setns unshare",
    "other processes": "ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp",
    "files by number": "open_by_handle_at fanotify_init",
    "kernel code": "bpf init_module finit_module delete_module kexec_load kexec_file_load",
    "kernel surface": "io_uring_setup io_uring_enter io_uring_register perf_event_open userfaultfd personality",
    "keys": "add_key keyctl request_key",
    "the machine": "reboot swapon swapoff sethostname setdomainname settimeofday clock_settime adjtimex clock_adjtime "
    "syslog acct quotactl iopl ioperm vhangup",
}
"""Reason: calls that end the process. CPython's library makes them only if a program asks for exactly that."""

MISSING = "clone3 openat2"
"""Fail with ENOSYS: the C library then uses the older call, whose arguments a filter can check."""
NOT_SUPPORTED = "listxattr"
"""Fails with ENOTSUP, the only error that `shutil` accepts as `not supported by this file system`."""

CLONE_NEW = {"NEWNS": 17, "NEWCGROUP": 25, "NEWUTS": 26, "NEWIPC": 27, "NEWUSER": 28, "NEWPID": 29, "NEWNET": 30}
"""Bits in the flags of `clone` that make namespaces."""
IOCTLS = {"TCGETS": 0x5401, "TIOCGWINSZ": 0x5413, "FIONBIO": 0x5421, "FIONCLEX": 0x5450, "FIOCLEX": 0x5451}
TERMINAL_INJECTION = {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C}
PR_SET_DUMPABLE, PR_CAPBSET_DROP = 4, 24
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_STREAM, SOCK_RAW, SOCK_TYPE = 1, 3, 0xF
MSG_OOB = 1
LOW_WORD = 0xFFFFFFFF


class Action(StrEnum):
    """What the kernel does with a call."""

    ALLOW = "SCMP_ACT_ALLOW"
    REFUSE = "SCMP_ACT_ERRNO"
    KILL = "SCMP_ACT_KILL_PROCESS"
    KILL_THREAD = "SCMP_ACT_KILL"
    """The only kill action that gVisor accepts in a profile; other threads of the process continue."""


class Is(NamedTuple):
    """A condition on one argument: equal to `value` under `mask`, or at least `value` if `mask` is None."""

    argument: int
    value: int
    mask: int | None = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to a call whose arguments meet all conditions. Two rules of one call with different actions never
    match the same arguments, because libseccomp does not apply rules in order."""

    call: str
    action: Action
    conditions: tuple[Is, ...] = ()
    error: int = errno.EPERM


GVISOR_ONLY = (
    Rule("pselect", Action.ALLOW),
    *(Rule(name, Action.ALLOW) for name in ("setresuid", "setresgid", "setgroups")),
    Rule("prctl", Action.ALLOW, (Is(0, PR_CAPBSET_DROP),)),
)
"""Under gVisor the supervisor runs programs as another user; `pselect` is gVisor's name for pselect6."""


def rules(machine: str | None = None) -> tuple[Rule, ...]:
    """The filter for a machine (`x86_64`, `aarch64`; None is this one). All other calls fail with EPERM.

    Raises:
        SandboxError: there is no table for that machine.
    """
    numbers = NUMBERS[supported(machine)]
    listed = (*_plain(), *_on_itself(), *_clone(), *_ioctl(), *_sockets())
    return tuple(rule for rule in listed if rule.call in numbers)


def supported(machine: str | None = None) -> str:
    """The machine's name in the tables."""
    found = (machine or platform.machine()).lower()
    name = {"arm64": "aarch64", "amd64": "x86_64"}.get(found, found)
    if name not in NUMBERS:
        raise SandboxError(f"There is no system-call filter for {name} machines, only for {', '.join(NUMBERS)}.")
    return name


def allowed_calls() -> tuple[str, ...]:
    """Calls that are allowed with any arguments, without the alternatives."""
    return tuple(name for names in ALLOWED.values() for name in names.split())


def docker_profile(machine: str | None = None, *, for_gvisor: bool = False) -> str:
    """The filter as canonical JSON for Docker and OCI runtimes."""
    name = supported(machine)
    listed = [*map(_for_gvisor, rules(name)), *GVISOR_ONLY] if for_gvisor else rules(name)
    profile = {
        "defaultAction": Action.REFUSE,
        "defaultErrnoRet": errno.EPERM,
        "architectures": [f"SCMP_ARCH_{name.upper()}"],
        "syscalls": [_docker_rule(rule) for rule in listed],
    }
    return json.dumps(profile, separators=(",", ":"), sort_keys=True)


def digest(profile: str | None = None) -> str:
    """SHA-256 of a profile (None: this machine's), which identifies the filter in the audit log."""
    return hashlib.sha256((profile or docker_profile()).encode()).hexdigest()


def _plain() -> Iterator[Rule]:
    for names in (*ALLOWED.values(), *ALTERNATIVES.values(), CONTAINER_START):
        yield from (Rule(name, Action.ALLOW) for name in names.split())
    for names in TRIPWIRES.values():
        yield from (Rule(name, Action.KILL) for name in names.split())
    yield from (Rule(name, Action.REFUSE, error=errno.ENOSYS) for name in MISSING.split())
    yield Rule(NOT_SUPPORTED, Action.REFUSE, error=errno.ENOTSUP)


def _on_itself() -> Iterator[Rule]:
    """A process may set its own limits only: on the supervisor the same call would starve it."""
    yield Rule("prlimit64", Action.ALLOW, (Is(0, 0),))
    yield Rule("prctl", Action.ALLOW, (Is(0, PR_SET_DUMPABLE),))


def _clone() -> Iterator[Rule]:
    bits = [1 << shift for shift in CLONE_NEW.values()]
    yield Rule("clone", Action.ALLOW, (Is(0, 0, sum(bits)),))
    yield from (Rule("clone", Action.KILL, (Is(0, bit, bit),)) for bit in bits)


def _ioctl() -> Iterator[Rule]:
    """The kernel reads the low word only, and so do the tripwires; allowed numbers are compared in full."""
    yield from (Rule("ioctl", Action.ALLOW, (Is(1, number),)) for number in IOCTLS.values())
    yield from (Rule("ioctl", Action.KILL, (Is(1, number, LOW_WORD),)) for number in TERMINAL_INJECTION.values())


def _sockets() -> Iterator[Rule]:
    """Only a pair of connected local sockets (asyncio makes one), without out-of-band data, which has broken kernels.
    Datagram and netlink sockets only fail, because name look-ups and `uuid.uuid1` try them."""
    yield Rule("socketpair", Action.ALLOW, (Is(0, AF_UNIX),))
    yield from (Rule(name, Action.ALLOW, (Is(3, 0, MSG_OOB),)) for name in ("sendto", "recvfrom"))
    for family in (AF_INET, AF_INET6):
        for kind in (SOCK_STREAM, SOCK_RAW):
            yield Rule("socket", Action.KILL, (Is(0, family), Is(1, kind, SOCK_TYPE)))
    others = set(range(AF_INET + 1, AF_NETLINK)) - {AF_INET6}
    yield from (Rule("socket", Action.KILL, (Is(0, family),)) for family in sorted(others))
    yield Rule("socket", Action.KILL, (Is(0, AF_NETLINK + 1, None),))


def _for_gvisor(rule: Rule) -> Rule:
    """gVisor accepts only EPERM and one kill action. `clone3` is allowed there, because gVisor's own kernel fails it
    with the ENOSYS that the C library expects; with EPERM no thread could start."""
    if rule.action is Action.REFUSE and rule.error != errno.EPERM:
        return Rule(rule.call, Action.ALLOW)
    return replace(rule, action=Action.KILL_THREAD) if rule.action is Action.KILL else rule


def _docker_rule(rule: Rule) -> dict[str, Any]:
    entry: dict[str, Any] = {"names": [rule.call], "action": rule.action}
    if rule.action is Action.REFUSE:
        entry["errnoRet"] = rule.error
    if rule.conditions:
        entry["args"] = [_docker_condition(condition) for condition in rule.conditions]
    return entry


def _docker_condition(condition: Is) -> dict[str, int | str]:
    argument, value, mask = condition
    if mask is None:
        return {"index": argument, "value": value, "valueTwo": 0, "op": "SCMP_CMP_GE"}
    if mask == (1 << 64) - 1:
        return {"index": argument, "value": value, "valueTwo": 0, "op": "SCMP_CMP_EQ"}
    return {"index": argument, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
