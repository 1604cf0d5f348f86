"""The system calls that programs may make: one allow-list for both backends. Read `ALLOWED`, then `TRIPWIRES`.

What is not listed fails with EPERM, so that a library which only tries goes on. What no honest function ever asks for
ends its process instead (SIGSYS): the supervisor counts those. Docker gets the list as a JSON profile, bubblewrap as a
BPF program (`sandbox.jail.bpf`); both come from `rules`.
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
"""Reason: calls. A test takes each away and sees a witness program, or the start of the guest, fail."""

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
"""Names by which another C library, kernel or processor does what an allowed call does."""

CONTAINER_START = "sigaltstack fstatfs"
"""What runc itself calls between the filter and the guest."""

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
"""Reason: calls that end the process. Nothing here is made by CPython's library unless a program asks for just that."""

MISSING = "clone3 openat2"
"""Said not to exist (ENOSYS): the C library then asks in the older way, whose arguments a filter can see."""
NOT_SUPPORTED = "listxattr"
"""Said not to be supported by the file system: `shutil` takes that from no other error."""

CLONE_NEW = {"NEWNS": 17, "NEWCGROUP": 25, "NEWUTS": 26, "NEWIPC": 27, "NEWUSER": 28, "NEWPID": 29, "NEWNET": 30}
"""Bits of the flags of `clone` that make namespaces."""
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
    """The only kind of death that gVisor knows in a profile: where there are threads, the others go on."""


class Is(NamedTuple):
    """A condition on one argument: equal to `value` under `mask`, or at least `value` where there is no mask."""

    argument: int
    value: int
    mask: int | None = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of a call whose arguments meet all conditions. Rules of one call never overlap with another action,
    because libseccomp does not try them in order."""

    call: str
    action: Action
    conditions: tuple[Is, ...] = ()
    error: int = errno.EPERM


GVISOR_ONLY = (
    Rule("pselect", Action.ALLOW),
    *(Rule(name, Action.ALLOW) for name in ("setresuid", "setresgid", "setgroups")),
    Rule("prctl", Action.ALLOW, (Is(0, PR_CAPBSET_DROP),)),
)
"""Under gVisor the supervisor gives each program another user; `pselect` is its name for pselect6."""


def rules(machine: str | None = None) -> tuple[Rule, ...]:
    """The whole filter for a machine (`x86_64`, `aarch64`; None is this one); any other call is refused with EPERM.

    Raises:
        SandboxError: no table for that machine.
    """
    numbers = NUMBERS[supported(machine)]
    listed = (*_plain(), *_on_itself(), *_clone(), *_ioctl(), *_sockets())
    return tuple(rule for rule in listed if rule.call in numbers)


def supported(machine: str | None = None) -> str:
    """The name of the machine as the tables have it."""
    name = {"arm64": "aarch64", "amd64": "x86_64"}.get(found := machine or platform.machine(), found)
    if name not in NUMBERS:
        raise SandboxError(f"There is no system-call filter for {name} machines: only for {', '.join(NUMBERS)}.")
    return name


def allowed_calls() -> tuple[str, ...]:
    """Names that are allowed whatever their arguments, without those that only stand for others."""
    return tuple(name for names in ALLOWED.values() for name in names.split())


def docker_profile(machine: str | None = None, *, for_gvisor: bool = False) -> str:
    """The filter as Docker and the OCI runtimes read it, in one canonical JSON text."""
    name = supported(machine)
    listed = [*map(_in_gvisor_words, rules(name)), *GVISOR_ONLY] if for_gvisor else rules(name)
    profile = {
        "defaultAction": Action.REFUSE,
        "defaultErrnoRet": errno.EPERM,
        "architectures": [f"SCMP_ARCH_{name.upper()}"],
        "syscalls": [_docker_rule(rule) for rule in listed],
    }
    return json.dumps(profile, separators=(",", ":"), sort_keys=True)


def digest(profile: str | None = None) -> str:
    """SHA-256 of a canonical profile (None: this machine's): the name of the filter in the audit log."""
    return hashlib.sha256((profile or docker_profile()).encode()).hexdigest()


def _plain() -> Iterator[Rule]:
    for names in (*ALLOWED.values(), *ALTERNATIVES.values(), CONTAINER_START):
        yield from (Rule(name, Action.ALLOW) for name in names.split())
    for names in TRIPWIRES.values():
        yield from (Rule(name, Action.KILL) for name in names.split())
    yield from (Rule(name, Action.REFUSE, error=errno.ENOSYS) for name in MISSING.split())
    yield Rule(NOT_SUPPORTED, Action.REFUSE, error=errno.ENOTSUP)


def _on_itself() -> Iterator[Rule]:
    """A process sets its own limits; with another's number the same call would starve the supervisor."""
    yield Rule("prlimit64", Action.ALLOW, (Is(0, 0),))
    yield Rule("prctl", Action.ALLOW, (Is(0, PR_SET_DUMPABLE),))


def _clone() -> Iterator[Rule]:
    bits = [1 << shift for shift in CLONE_NEW.values()]
    yield Rule("clone", Action.ALLOW, (Is(0, 0, sum(bits)),))
    yield from (Rule("clone", Action.KILL, (Is(0, bit, bit),)) for bit in bits)


def _ioctl() -> Iterator[Rule]:
    """The kernel looks at the low word only, so the tripwire does as well; what is allowed is compared whole."""
    yield from (Rule("ioctl", Action.ALLOW, (Is(1, number),)) for number in IOCTLS.values())
    yield from (Rule("ioctl", Action.KILL, (Is(1, number, LOW_WORD),)) for number in TERMINAL_INJECTION.values())


def _sockets() -> Iterator[Rule]:
    """Only a pair of connected local sockets (asyncio makes one), without out-of-band data, of which kernels were
    broken. Datagram and netlink sockets are refused without death: name look-ups and `uuid.uuid1` try them."""
    yield Rule("socketpair", Action.ALLOW, (Is(0, AF_UNIX),))
    yield from (Rule(name, Action.ALLOW, (Is(3, 0, MSG_OOB),)) for name in ("sendto", "recvfrom"))
    for family in (AF_INET, AF_INET6):
        for kind in (SOCK_STREAM, SOCK_RAW):
            yield Rule("socket", Action.KILL, (Is(0, family), Is(1, kind, SOCK_TYPE)))
    others = set(range(AF_INET + 1, AF_NETLINK)) - {AF_INET6}
    yield from (Rule("socket", Action.KILL, (Is(0, family),)) for family in sorted(others))
    yield Rule("socket", Action.KILL, (Is(0, AF_NETLINK + 1, None),))


def _in_gvisor_words(rule: Rule) -> Rule:
    """gVisor reads no error numbers and only one kind of death. Its kernel is its own: `clone3`, allowed, gives
    the ENOSYS that the C library waits for where it is missing, instead of an EPERM that ends every thread."""
    if rule.action is Action.REFUSE and rule.error != errno.EPERM:
        return Rule(rule.call, Action.ALLOW)
    return replace(rule, action=Action.KILL_THREAD) if rule.action is Action.KILL else rule


def _docker_rule(rule: Rule) -> dict[str, Any]:
    told: dict[str, Any] = {"names": [rule.call], "action": rule.action}
    if rule.action is Action.REFUSE:
        told["errnoRet"] = rule.error
    if rule.conditions:
        told["args"] = [_docker_condition(condition) for condition in rule.conditions]
    return told


def _docker_condition(condition: Is) -> dict[str, int | str]:
    argument, value, mask = condition
    if mask is None:
        return {"index": argument, "value": value, "valueTwo": 0, "op": "SCMP_CMP_GE"}
    if mask == (1 << 64) - 1:
        return {"index": argument, "value": value, "valueTwo": 0, "op": "SCMP_CMP_EQ"}
    return {"index": argument, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
