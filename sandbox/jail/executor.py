"""The executor for hosts without a Docker engine: bubblewrap jails around the same guest. Read `JailExecutor` first.

A jail has namespaces of its own for users, processes, network, IPC, names and control groups, a read-only root, no
capabilities, our system-call filter and, unless given up by name, a control group. It dies with its owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from sandbox.docker import image
from sandbox.host import seccomp
from sandbox.host.container import SCRATCH, SEEDS, ContainerLimits, Users, check_fits
from sandbox.host.pool import ChannelBroken, Pool
from sandbox.jail import bpf, bubblewrap, cgroup, rootfs, seal
from sandbox.jail.bubblewrap import Tethers
from sandbox.types import EngineUnavailable, Execution, Isolation, Job, SandboxError

PROBE_S = 30
WAIT_THEN_BECOME = 'read -r go && ulimit -c 0 && exec "$@"'
"""Nothing is started before the owner has put this process into its control group and says so."""
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
        self._size = self._limits.scratch_mib << 20
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
        self._bwrap, version = bubblewrap.find()
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
        who = bubblewrap.identity(user)
        command = [*self._command(0, user, None), "--", "python3", "-c", ""]
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
            raise EngineUnavailable(f"A jail did not start within {PROBE_S} s. {bubblewrap.TO_PERMIT}") from error
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()[-300:]
            raise EngineUnavailable(f"No jail can be made here ({said!r}). {bubblewrap.TO_PERMIT}")

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
        who = bubblewrap.identity(user)
        with Tethers(self._filter) as tethers:
            command = [*self._command(slot, user, group), *tethers.options, "--", *image.ENTRYPOINT]
            process = await asyncio.create_subprocess_exec(
                "/bin/sh", "-c", WAIT_THEN_BECOME, "sh", *command,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                pass_fds=tethers.passed, cwd="/", env={},
                user=who.user, group=who.user, extra_groups=who.groups,
            )  # fmt: skip
            jailed = Jailed(process, group)
            try:
                if group is not None:
                    group.add(process.pid)
                await jailed.send(b"go\n")
                await asyncio.to_thread(self._seal, slot, tethers)
            except BaseException as error:
                await jailed.close()
                if isinstance(error, SandboxError):
                    raise SandboxError(f"{error} {jailed.stderr.decode('utf-8', 'replace')}") from error
                raise
        return jailed

    def _seal(self, slot: int, tethers: Tethers) -> None:
        """Have the scratch folders bounded and let the jail go on."""
        about = tethers.about_child()
        if not about:
            raise SandboxError("bubblewrap made no jail:")
        place = f"/{self._root.parent.name}/{self._root.name}"
        command = [
            sys.executable,
            "-I",
            "-S",
            seal.__file__,
            str(json.loads(about)["child-pid"]),
            place,
            str(self._size),
        ]
        done = subprocess.run([*command, SCRATCH[slot]], capture_output=True, check=False, text=True)
        if done.returncode != 0:
            raise SandboxError(f"The jail's scratch folder could not be bounded: {done.stderr.strip()[-300:]}")
        tethers.let_go()

    def _command(self, slot: int, user: int, group: cgroup.Group | None) -> list[str]:
        shown = {} if group is None else group.seen_inside()
        return bubblewrap.command(self._bwrap, self._root, slot, user=user, size=self._size, shown=shown)


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
