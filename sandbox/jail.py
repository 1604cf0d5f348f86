"""The executor for hosts without a Docker engine: bubblewrap jails around the same guest. Read `JailExecutor` first.

A jail has namespaces of its own for users, processes, network, IPC, names and control groups, a read-only root, no
capabilities, our system-call filter and, unless given up by name, a control group. It dies with its owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import re
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

from sandbox import bpf, cgroup, image, rootfs, seccomp
from sandbox.container import SCRATCH, SEEDS, ContainerLimits, Users, check_fits, environment
from sandbox.pool import ChannelBroken, Pool
from sandbox.types import EngineUnavailable, Execution, Isolation, Job, SandboxError

OLDEST_BWRAP = (0, 7)
PROBE_S = 30
DEVICES = ("null", "zero", "urandom")
HIDDEN_FILES = ("kcore", "keys", "timer_list", "sched_debug", "kallsyms", "latency_stats")
HIDDEN_FOLDERS = ("acpi", "scsi", "asound")
"""Below /proc: what tells of the host, as Docker hides it."""
WAIT_THEN_BECOME = 'read -r go && ulimit -c 0 && exec "$@"'
"""Nothing is started before the owner has put this process into its control group and says so."""
TO_INSTALL = "Install it (Debian, Ubuntu: apt-get install bubblewrap), or use sandbox.backend = docker."
TO_PERMIT = (
    "bubblewrap needs user namespaces: set kernel.unprivileged_userns_clone=1 or user.max_user_namespaces > 0, on "
    "Ubuntu kernel.apparmor_restrict_unprivileged_userns=0, and /proc not masked where this is a container itself."
)
TO_GROUP = (
    "A jail's memory, processes and CPU time are bounded by a control group. Run as root, or in one that is yours "
    "(systemd-run --user --scope -p Delegate=yes), or give the bound up by name: sandbox.jail_cgroup = none."
)


class JailExecutor:
    """Runs jobs in `workers` jails for each of the two seed slots::

    async with JailExecutor() as executor:
        [execution] = await executor.run([Job(program="def f(x): return x + 1", inputs=("1",))])
    """

    def __init__(
        self,
        *,
        workers: int = 1,
        container: ContainerLimits | None = None,
        control_group: Literal["required", "none"] = "required",
        cache: Path | None = None,
    ) -> None:
        """
        Args:
            control_group: `none` leaves only each process's own limits: memory is then bounded per process.
            cache: where the root file system is kept; None is a folder of this user.
        """
        if workers < 1:
            raise ValueError(f"an executor needs at least one worker, not {workers}")
        self._workers = workers
        self._limits = container or ContainerLimits()
        self._control_group = control_group
        self._cache = cache
        self._users = Users()

    async def run(self, jobs: Sequence[Job]) -> list[Execution]:
        for job in jobs:
            check_fits(job, self._limits)
        return await self._pool.run(jobs)

    @property
    def isolation(self) -> Isolation:
        return self._isolation

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._prepare)
        self._pool = Pool(self._open, self._workers)
        try:
            await self._pool.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.close()

    def _prepare(self) -> None:
        self._bwrap, version = find_bwrap()
        self._filter = bpf.program()
        self._groups = self._found_groups()
        if self._groups is not None:
            self._groups.remove_orphans()
        root = rootfs.ensure(self._cache)
        self._root = root.path
        self._check_permitted()
        self._isolation = Isolation(
            backend="jail",
            runtime=f"bwrap {version}" + ("" if self._groups else ", no control group"),
            image=f"sha256:{root.digest}",
            seccomp=seccomp.digest(),
            kernel=platform.release(),
            python=platform.python_version(),
            hash_seeds=(SEEDS[0], SEEDS[1]),
        )

    def _found_groups(self) -> cgroup.Parents | None:
        if self._control_group == "none":
            return None
        found = cgroup.find()
        if isinstance(found, str):
            raise EngineUnavailable(f"{found}. {TO_GROUP}")
        return found

    def _check_permitted(self) -> None:
        """Start one jail that does nothing, so that what is in the way is told in one sentence.

        Raises:
            EngineUnavailable: no jail can be made.
        """
        user = self._users.take()
        who = _identity(user)
        command = [*self._command(0, user, None), "python3", "-c", ""]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                check=False,
                timeout=PROBE_S,
                cwd="/",
                env={},
                user=who.user,
                group=who.user,
                extra_groups=who.groups,
            )
        except subprocess.TimeoutExpired as error:
            raise EngineUnavailable(f"A jail did not start within {PROBE_S} s. {TO_PERMIT}") from error
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()[-300:]
            raise EngineUnavailable(f"No jail can be made here ({said!r}). {TO_PERMIT}")

    async def _open(self, slot: int) -> Jailed:
        group = None if self._groups is None else await asyncio.to_thread(self._make_group, self._groups)
        try:
            return await self._start(slot, group)
        except BaseException as error:
            if group is not None:
                group.remove()
            if isinstance(error, OSError):
                raise SandboxError(f"The jail could not be started: {error}") from error
            raise

    def _make_group(self, groups: cgroup.Parents) -> cgroup.Group:
        try:
            return groups.make(self._limits)
        except OSError as error:
            raise SandboxError(f"The jail's control group could not be made: {error}") from error

    async def _start(self, slot: int, group: cgroup.Group | None) -> Jailed:
        user = self._users.take()
        who = _identity(user)
        rules = _in_memory(self._filter)
        command = [*self._command(slot, user, group, rules), *image.ENTRYPOINT]
        try:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh", "-c", WAIT_THEN_BECOME, "sh", *command,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                pass_fds=(rules,), cwd="/", env={},
                user=who.user, group=who.user, extra_groups=who.groups,
            )  # fmt: skip
        finally:
            os.close(rules)
        jailed = Jailed(process, group)
        try:
            if group is not None:
                group.add(process.pid)
            await jailed.send(b"go\n")
        except BaseException:
            await jailed.close()
            raise
        return jailed

    def _command(self, slot: int, user: int, group: cgroup.Group | None, rules: int | None = None) -> list[str]:
        """bubblewrap and all that it is told, up to the program to start."""
        scratch = SCRATCH[slot]
        words = [self._bwrap, "--unshare-all", "--as-pid-1", "--die-with-parent", "--new-session", "--clearenv"]
        words += ["--uid", str(user), "--gid", str(user), "--hostname", secrets.token_hex(4), "--cap-drop", "ALL"]
        words += ["--ro-bind", str(self._root), "/", "--proc", "/proc", *_hidden(), "--tmpfs", "/dev"]
        words += [word for name in DEVICES for word in ("--dev-bind", f"/dev/{name}", f"/dev/{name}")]
        words += ["--tmpfs", "/sys"]
        shown = {} if group is None else group.seen_inside()
        words += [word for path, place in shown.items() for word in ("--ro-bind", str(path), place)]
        words += ["--remount-ro", "/dev", "--remount-ro", "/sys"]
        for folder in dict.fromkeys((scratch, "/tmp")):
            words += ["--perms", "1777", "--size", str(self._limits.scratch_mib << 20), "--tmpfs", folder]
        for name, value in {**image.ENVIRONMENT, **environment(slot)}.items():
            words += ["--setenv", name, value]
        words += [] if rules is None else ["--seccomp", str(rules)]
        return [*words, "--chdir", scratch, "--"]


class Jailed:
    """The byte channel to one jail: its standard input and output."""

    def __init__(self, process: asyncio.subprocess.Process, group: cgroup.Group | None) -> None:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self._process = process
        self._group = group
        self._writer, self._reader = process.stdin, process.stdout
        self.stderr = b""
        self._listening = asyncio.create_task(self._listen(process.stderr))

    async def send(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise ChannelBroken(str(error)) from error

    async def receive(self, count: int) -> bytes:
        try:
            return await self._reader.readexactly(count)
        except (asyncio.IncompleteReadError, OSError) as error:
            with contextlib.suppress(TimeoutError):  # what it said may still be on its way
                await asyncio.wait_for(asyncio.shield(self._listening), 0.5)
            told = self.stderr.decode("utf-8", "replace")
            raise ChannelBroken(f"the jail ended {told!r}") from error

    async def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        if self._group is not None:
            await asyncio.to_thread(self._group.remove)

    async def _listen(self, stderr: asyncio.StreamReader) -> None:
        while data := await stderr.read(2000):
            self.stderr = (self.stderr + data)[-2000:]


def find_bwrap() -> tuple[str, str]:
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


class _Identity(NamedTuple):
    """Whom the jail is started as; None is as we are."""

    user: int | None
    groups: list[int] | None


def _identity(user: int) -> _Identity:
    """Root becomes a user of the jail's own first, because the kernel does not count root's processes."""
    return _Identity(user, []) if os.geteuid() == 0 else _Identity(None, None)


def _hidden() -> list[str]:
    files = [name for name in HIDDEN_FILES if Path("/proc", name).exists()]
    folders = [name for name in HIDDEN_FOLDERS if Path("/proc", name).exists()]
    words = [word for name in files for word in ("--ro-bind", "/dev/null", f"/proc/{name}")]
    return words + [word for name in folders for word in ("--tmpfs", f"/proc/{name}", "--remount-ro", f"/proc/{name}")]


def _in_memory(data: bytes) -> int:
    """A descriptor from which the bytes can be read once."""
    descriptor = os.memfd_create("filter", os.MFD_CLOEXEC)
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
