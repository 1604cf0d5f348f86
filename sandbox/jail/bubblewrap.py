"""What bubblewrap is told: the walls of a jail, in words. Read `command`."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

from sandbox.docker import image
from sandbox.host.container import SCRATCH, environment
from sandbox.types import EngineUnavailable

OLDEST_BWRAP = (0, 7)
DEVICES = ("null", "zero", "urandom")
HIDDEN_FILES = ("kcore", "keys", "timer_list", "sched_debug", "kallsyms", "latency_stats")
HIDDEN_FOLDERS = ("acpi", "scsi", "asound")
"""Below /proc: what tells of the host, as Docker hides it."""
TO_INSTALL = "Install it (Debian, Ubuntu: apt-get install bubblewrap), or use sandbox.backend = docker."
TO_PERMIT = (
    "bubblewrap needs user namespaces: set kernel.unprivileged_userns_clone=1 or user.max_user_namespaces > 0, on "
    "Ubuntu kernel.apparmor_restrict_unprivileged_userns=0, and /proc not masked where this is a container itself."
)


def command(bwrap: str, root: Path, slot: int, *, user: int, size: int, shown: Mapping[Path, str]) -> list[str]:
    """bubblewrap and what it is told of the jail; the program to start comes behind it, after `--`.

    Args:
        size: bytes that each scratch folder may hold.
        shown: files of the host to show, read-only, and where.
    """
    words = [bwrap, "--unshare-all", "--as-pid-1", "--die-with-parent", "--new-session", "--clearenv"]
    words += ["--uid", str(user), "--gid", str(user), "--hostname", secrets.token_hex(4), "--cap-drop", "ALL"]
    words += ["--ro-bind", str(root), "/", "--proc", "/proc", *_hidden(), "--tmpfs", "/dev"]
    words += [word for name in DEVICES for word in ("--dev-bind", f"/dev/{name}", f"/dev/{name}")]
    words += ["--tmpfs", "/sys"]
    words += [word for path, place in shown.items() for word in ("--ro-bind", str(path), place)]
    words += ["--remount-ro", "/dev", "--remount-ro", "/sys"]
    words += ["--perms", "1777", "--size", str(size), "--tmpfs", SCRATCH[slot]]
    for name, value in {**image.ENVIRONMENT, **environment(slot)}.items():
        words += ["--setenv", name, value]
    return [*words, "--chdir", SCRATCH[slot]]


class Tethers:
    """The descriptors by which a jail in the making is told its filter, tells of its child, and is held back."""

    def __init__(self, program: bytes) -> None:
        self._filter = os.memfd_create("filter", os.MFD_CLOEXEC)
        os.write(self._filter, program)
        os.lseek(self._filter, 0, os.SEEK_SET)
        self._told, self._tell = os.pipe()
        self._held, self._hold = os.pipe()
        self.passed = (self._filter, self._tell, self._held)
        names = ("--seccomp", "--info-fd", "--block-fd")
        self.options = [word for name, end in zip(names, self.passed, strict=True) for word in (name, str(end))]

    def about_child(self) -> str:
        """What bubblewrap says of the process in the jail, as JSON; empty when it ended before."""
        self._close(self._tell)
        with os.fdopen(os.dup(self._told)) as told:
            return told.read()

    def let_go(self) -> None:
        os.write(self._hold, b"!")

    def __enter__(self) -> Self:
        self._open = {*self.passed, self._told, self._hold}
        return self

    def __exit__(self, *_: object) -> None:
        for end in list(self._open):
            self._close(end)

    def _close(self, end: int) -> None:
        self._open.discard(end)
        os.close(end)


def find() -> tuple[str, str]:
    """Path and version of bubblewrap.

    Raises:
        EngineUnavailable: it is not installed, or too old.
    """
    path = shutil.which("bwrap")
    if path is None:
        raise EngineUnavailable(f"The jail backend needs bubblewrap (bwrap), which is not here. {TO_INSTALL}")
    told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"(\d+)\.(\d+)\S*", told)
    if version is None or (int(version[1]), int(version[2])) < OLDEST_BWRAP:
        oldest = ".".join(map(str, OLDEST_BWRAP))
        raise EngineUnavailable(f"The jail backend needs bubblewrap {oldest}, this is {told.strip()!r}. {TO_INSTALL}")
    return path, version[0]


class Identity(NamedTuple):
    """Whom the jail is started as; None is as we are."""

    user: int | None
    groups: list[int] | None


def identity(user: int) -> Identity:
    """Root becomes a user of the jail's own first, because the kernel does not count root's processes."""
    return Identity(user, []) if os.geteuid() == 0 else Identity(None, None)


def _hidden() -> list[str]:
    files = [name for name in HIDDEN_FILES if Path("/proc", name).exists()]
    folders = [name for name in HIDDEN_FOLDERS if Path("/proc", name).exists()]
    words = [word for name in files for word in ("--ro-bind", "/dev/null", f"/proc/{name}")]
    return words + [word for name in folders for word in ("--tmpfs", f"/proc/{name}", "--remount-ro", f"/proc/{name}")]
