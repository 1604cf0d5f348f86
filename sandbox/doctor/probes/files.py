"""Reads, writes, fills and executes what the file system allows."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from collections.abc import Iterator

MAX_ENTRIES = 40_000
MAX_LISTED = 12
CHUNK = bytes(1 << 20)
KERNEL_FILES = ("/proc/sysrq-trigger", "/proc/sys", "/proc/irq", "/sys/fs/cgroup", "/sys/kernel", "/sys/power")
"""Files and folders that control the kernel."""
ASKS_LATER = ("/proc/sys/kernel/ns_last_pid",)
"""Anyone may open it; the kernel checks the permission on write. The probe writes back what it read."""
MAX_DEPTH = 6


@functools.cache
def writable(scratches: tuple[str, ...]) -> list[str]:
    """Folders outside the scratch folder in which a new file can be created."""
    own = (os.getcwd(), *scratches)  # noqa: PTH109
    found: list[str] = []
    for folder in _folders("/"):
        if (
            folder not in own
            and not folder.startswith(tuple(f"{scratch}/" for scratch in own))
            and _accepts_file(folder)
        ):
            found.append(folder)
        if len(found) == MAX_LISTED:
            break
    return found


def _accepts_file(folder: str) -> bool:
    if not os.access(folder, os.W_OK | os.X_OK):
        return False
    path = f"{folder}/.azr-doctor-{os.getpid()}"
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:
        return False
    os.unlink(path)  # noqa: PTH108
    return True


def _folders(root: str) -> Iterator[str]:
    """Every folder below `root` except /proc and /sys."""
    count = 0
    for folder, inside, files in os.walk(root):
        count += 1 + len(files)
        if count > MAX_ENTRIES:
            return
        inside[:] = [name for name in inside if os.path.join(folder, name) not in ("/proc", "/sys")]  # noqa: PTH118
        yield folder


@functools.cache
def root_is_read_only() -> bool:
    """Whether / is mounted read-only, according to statvfs or the mount table."""
    return bool(os.statvfs("/").f_flag & os.ST_RDONLY) or [mode for at, _, mode in mounts() if at == "/"][-1:] == ["ro"]


@functools.cache
def mounts() -> list[tuple[str, str, str]]:
    """Mount point, file system and `rw` or `ro`."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:  # noqa: PTH123
        return [_mount(line) for line in lines]


def _mount(line: str) -> tuple[str, str, str]:
    left, _, right = line.partition(" - ")
    fields = left.split()
    return fields[4], right.split()[0], fields[5].split(",")[0]


@functools.cache
def readable(paths: tuple[str, ...]) -> list[str]:
    """The paths from which at least one byte or entry can be read."""
    return [path for path in paths if _can_be_read(path)]


def _can_be_read(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        return bool(os.listdir(descriptor) if is_folder else os.read(descriptor, 1))  # noqa: PTH208
    except OSError:
        return False
    finally:
        os.close(descriptor)


@functools.cache
def kernel_addresses() -> bool:
    """Whether /proc/kallsyms shows real kernel addresses."""
    with open("/proc/kallsyms", encoding="ascii", errors="replace") as lines:  # noqa: PTH123
        return any(int(line.split()[0], 16) for line, _ in zip(lines, range(64), strict=False))


@functools.cache
def surprising(expected: tuple[str, ...]) -> tuple[int, list[str]]:
    """Readable files that Python does not need: their number and the first few."""
    count, listed = 0, list[str]()
    for folder in _folders("/"):
        if f"{folder}/".startswith(expected):
            continue
        for name in sorted(os.listdir(folder) if os.access(folder, os.R_OK) else ()):  # noqa: PTH208
            path = os.path.join(folder, name)  # noqa: PTH118
            if path.startswith(expected) or not os.path.isfile(path) or not os.access(path, os.R_OK):  # noqa: PTH113
                continue
            count += 1
            listed += [path] if len(listed) < MAX_LISTED else []
    return count, listed


@functools.cache
def special() -> dict[str, list[str]]:
    """The first few set-user-id programs, sockets and device nodes."""
    found: dict[str, list[str]] = {"setuid": [], "socket": [], "device": []}
    for folder in _folders("/"):
        with contextlib.suppress(OSError):
            for entry in os.scandir(folder):
                kind = _special_kind(entry)
                if kind and len(found[kind]) < MAX_LISTED:
                    found[kind].append(entry.path)
    return {kind: sorted(paths) for kind, paths in found.items()}


def _special_kind(entry: os.DirEntry[str]) -> str:
    with contextlib.suppress(OSError):
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISSOCK(mode):
            return "socket"
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            return "device"
        if stat.S_ISREG(mode) and (mode & (stat.S_ISUID | stat.S_ISGID) or _has_capabilities(entry.path)):
            return "setuid"
    return ""


def _has_capabilities(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


@functools.cache
def kernel_files() -> list[str]:
    """Files that control the kernel and can be opened for writing. Nothing is changed."""
    found = [path for root in KERNEL_FILES for path in _files(root) if _opens_for_writing(path)]
    return found[:MAX_LISTED]


def _files(root: str) -> Iterator[str]:
    if not os.path.isdir(root):  # noqa: PTH112
        yield root
    for folder, inside, names in os.walk(root):
        if folder.count("/") >= MAX_DEPTH:
            inside.clear()
        yield from (f"{folder}/{name}" for name in names)


def _opens_for_writing(path: str) -> bool:
    try:
        descriptor = os.open(path, (os.O_RDWR if path in ASKS_LATER else os.O_WRONLY) | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return path not in ASKS_LATER or bool(os.write(descriptor, os.read(descriptor, 64)))
    except OSError:
        return False
    finally:
        os.close(descriptor)


@functools.cache
def fill(most_mib: int) -> tuple[int, str]:
    """Write until the scratch folder is full; returns the MiB written and the error that ended it."""
    written, ended = 0, ""
    while written < most_mib and not ended:
        ended = _write(f"fill-{written}")
        written += not ended
    for name in os.listdir():  # noqa: PTH208
        os.unlink(name)  # noqa: PTH108
    return written, ended


def _write(name: str) -> str:
    try:
        with open(name, "wb") as target:  # noqa: PTH123
            target.write(CHUNK)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return ""


@functools.cache
def execute() -> str:
    """Execute a file in the scratch folder. It is not a program, so an allowed execution ends with ENOEXEC."""
    with open("program", "wb") as target:  # noqa: PTH123
        target.write(b"azr doctor\n")
    os.chmod("program", 0o700)  # noqa: PTH101
    os.execv("program", ["program"])


@functools.cache
def make_device() -> str:
    """Create a device node for /dev/mem."""
    os.mknod("memory", stat.S_IFCHR | 0o600, os.makedev(1, 1))
    return "a device node was made"
