"""The default executor: Docker containers that take jobs over their standard input. Read `DockerExecutor` first."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import platform
import secrets
import socket
from collections.abc import Callable, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from sandbox.docker import image as images
from sandbox.docker.engine import ANSWER_S, check, connect, translated
from sandbox.host import seccomp
from sandbox.host.container import SCRATCH, SEEDS, ContainerLimits, Users, check_fits, environment, is_orphan, owner
from sandbox.host.pool import ChannelBroken, Pool
from sandbox.types import Execution, Isolation, Job, SandboxError

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

OWNER_LABEL = "azr.sandbox.owner"
NO_IPC = {"kernel.shmmni": "0", "kernel.msgmni": "0", "kernel.sem": "0 0 0 0", "fs.mqueue.queues_max": "0"}
"""System V and POSIX queues would outlive the process that made them."""
GVISOR_CAPABILITIES = ["SETUID", "SETGID", "SETPCAP", "KILL", "DAC_OVERRIDE", "FOWNER"]
"""What the supervisor needs to start, end and clean up after programs of another user, who get none of them."""
GVISOR_SEALED = {"/tmp": "ro,noexec,nosuid,nodev,size=4k"}
"""Where nothing is mounted on an empty /tmp, gVisor puts a writable one."""
STDOUT = 1


class DockerExecutor:
    """Runs jobs in `workers` containers for each of the two seed slots::

    async with DockerExecutor(image.ensure()) as executor:
        [execution] = await executor.run([Job(program="def f(x): return x + 1", inputs=("1",))])
    """

    def __init__(
        self,
        image: str = images.DEFAULT_NAME,
        *,
        workers: int = 1,
        container: ContainerLimits | None = None,
        runtime: str | None = None,
    ) -> None:
        """
        Args:
            runtime: the engine's name of another runtime (`runsc`); None is its default one.
        """
        if workers < 1:
            raise ValueError(f"an executor needs at least one worker, not {workers}")
        self._image = image
        self._workers = workers
        self._limits = container or ContainerLimits()
        self._runtime = runtime
        self._users = Users()
        self._clients = contextlib.ExitStack()
        self._is_gvisor = (runtime or "").startswith("runsc")
        self._filter = seccomp.docker_profile(for_gvisor=self._is_gvisor)

    async def run(self, jobs: Sequence[Job]) -> list[Execution]:
        for job in jobs:
            check_fits(job, self._limits)
        return await self._pool.run(jobs)

    @property
    def isolation(self) -> Isolation:
        return self._isolation

    async def __aenter__(self) -> Self:
        self._pool = Pool(self._open, self._workers, check_engine=self._check_engine)
        try:
            await asyncio.to_thread(self._connect)
            await self._pool.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.close()
        await asyncio.to_thread(self._clients.close)

    def _connect(self) -> None:
        self._client = self._clients.enter_context(contextlib.closing(connect()))
        self._brisk = self._clients.enter_context(contextlib.closing(connect(ANSWER_S)))
        with translated("The engine could not be asked"):
            self._isolation = self._found()
            remove_orphans(self._brisk)

    async def _check_engine(self) -> None:
        await asyncio.to_thread(check, self._brisk)

    def _found(self) -> Isolation:
        about: Any = self._client.info()
        return Isolation(
            backend="docker",
            runtime=self._runtime or str(about["DefaultRuntime"]),
            image=images.require(self._image),
            seccomp=seccomp.digest(self._filter),
            kernel=platform.release(),
            python=platform.python_version(),
            hash_seeds=(SEEDS[0], SEEDS[1]),
        )

    async def _open(self, slot: int) -> Attached:
        starting = asyncio.create_task(asyncio.to_thread(self._start, slot))
        try:
            container, stream = await asyncio.shield(starting)
        except asyncio.CancelledError:
            with contextlib.suppress(SandboxError):
                container, stream = await starting
                stream.close()
                await asyncio.to_thread(_remove, self._brisk, container)
            raise
        reader, writer = await asyncio.open_connection(sock=stream)
        return Attached(functools.partial(_remove, self._brisk, container), reader, writer)

    def _start(self, slot: int) -> tuple[str, socket.socket]:
        """The id of a running container, and the socket that is its standard input and output."""
        with translated("The container could not be started"), contextlib.ExitStack() as failing:
            container = self._client.containers.create(self._image, **self._settings(slot))
            failing.callback(_remove, self._brisk, str(container.id))
            stream = failing.enter_context(_attached(container))
            container.start()
            failing.pop_all()
        return str(container.id), stream

    def _identity(self, user: int, slot: int) -> dict[str, Any]:
        """Who the guest is: one user without capabilities, the supervisor undumpable. gVisor minds no such thing; there
        the supervisor is the root of gVisor's own kernel, and programs are somebody else."""
        variables = environment(slot)
        if not self._is_gvisor:
            return {"user": f"{user}:{user}", "cap_drop": ["ALL"], "environment": variables}
        variables |= {"SANDBOX_PROGRAM_USER": str(user)}
        return {"user": "0:0", "cap_drop": ["ALL"], "cap_add": GVISOR_CAPABILITIES, "environment": variables}

    def _settings(self, slot: int) -> dict[str, Any]:
        from docker.types import LogConfig, Ulimit

        user, scratch = self._users.take(), SCRATCH[slot]
        options = f"rw,noexec,nosuid,nodev,mode=1777,nr_inodes=1024,size={self._limits.scratch_mib}m"
        return {
            **self._identity(user, slot),
            "working_dir": scratch,
            "hostname": secrets.token_hex(4),
            "network_mode": "none",
            "ipc_mode": "none",
            "read_only": True,
            "security_opt": ["no-new-privileges", f"seccomp={self._filter}"],
            "mem_limit": f"{self._limits.memory_mib}m",
            "memswap_limit": f"{self._limits.memory_mib}m",
            "pids_limit": self._limits.processes,
            "nano_cpus": int(self._limits.cpus * 1e9),
            "ulimits": [Ulimit(name="core", soft=0, hard=0)],
            "tmpfs": {**(GVISOR_SEALED if self._is_gvisor else {}), scratch: options},
            "sysctls": {} if self._is_gvisor else NO_IPC,
            "runtime": self._runtime,
            "stdin_open": True,
            "init": False,
            "stop_signal": "SIGKILL",  # PID 1 hears no other, and an engine that stops would wait for it
            "auto_remove": True,
            "log_config": LogConfig(type="none"),
            "labels": {OWNER_LABEL: owner()},
        }


class Attached:
    """The byte channel to one container: Docker wraps what comes out in frames of its own, `kind, 0, 0, 0, length`."""

    def __init__(self, remove: Callable[[], None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._remove = remove
        self._reader = reader
        self._writer = writer
        self._buffer = bytearray()
        self.stderr = b""

    async def send(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise ChannelBroken(str(error)) from error

    async def receive(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._fill()
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def _fill(self) -> None:
        try:
            head = await self._reader.readexactly(8)
            data = await self._reader.readexactly(int.from_bytes(head[4:], "big"))
        except (asyncio.IncompleteReadError, OSError) as error:
            told = self.stderr.decode("utf-8", "replace")
            raise ChannelBroken(f"the container ended {told!r}") from error
        if head[0] == STDOUT:
            self._buffer += data
        else:
            self.stderr = (self.stderr + data)[-2000:]

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        await asyncio.to_thread(self._remove)


def _attached(container: Container) -> socket.socket:
    attached: Any = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    stream = socket.socket(fileno=os.dup(attached.fileno()))
    stream.setblocking(False)
    attached._sock.close()  # the SDK leaves both open
    attached.close()
    return stream


def remove_orphans(client: docker.DockerClient) -> None:
    """Remove containers of our processes that ended without cleaning up; nobody else's, no other machine's."""
    for container in client.containers.list(all=True, filters={"label": OWNER_LABEL}, ignore_removed=True):
        if is_orphan(str(cast(Any, container).labels[OWNER_LABEL])):
            _remove(client, str(container.id))


def _remove(client: docker.DockerClient, container_id: str) -> None:
    """Returns when it is gone. Somebody may be removing it already; without its owner's pipe it would end by itself."""
    from docker.errors import APIError, DockerException

    with contextlib.suppress(DockerException, OSError):
        try:
            client.api.remove_container(container_id, force=True)
        except APIError as error:
            if error.status_code == HTTPStatus.CONFLICT:
                client.api.wait(container_id, condition="removed")
