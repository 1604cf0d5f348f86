"""What the executor is compared with, in the same image and under the same container limits. Read `FloorContainer`."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import socket
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from sandbox.bench import floor_guest
from sandbox.bench.programs import Sample
from sandbox.docker.engine import connect
from sandbox.types import SandboxError

if TYPE_CHECKING:
    from docker.models.containers import Container

LABEL = "azr.sandbox.bench"
STDOUT = 1
FRAME_BYTES = 8
MAX_WAIT_S = 300.0
CONTAINER: dict[str, Any] = {
    "network_mode": "none",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "mem_limit": "512m",
    "memswap_limit": "512m",
    "pids_limit": 64,
    "nano_cpus": 1_000_000_000,
    "tmpfs": {"/tmp": "rw,noexec,nosuid,nodev,size=16m"},
}
"""The limits of one container of the executor."""


def preimported() -> list[str]:
    """The modules that the supervisor loads before it forks, so that the floor is as warm."""
    supervisor = importlib.import_module("sandbox.guest.supervisor")
    return [str(name) for name in getattr(supervisor, "PREIMPORTED", ())]


class FloorContainer:
    """One process on one core that answers `floor_guest` requests; a blocking context manager."""

    def __init__(self, image: str, core: int) -> None:
        self._image = image
        self._core = core
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        from docker.errors import DockerException
        from docker.types import LogConfig

        self._client = connect()
        try:
            self._container: Container = self._client.containers.create(
                self._image,
                entrypoint=["python3", "-B", "-P", "-c", inspect.getsource(floor_guest)],
                cpuset_cpus=str(self._core),
                stdin_open=True,
                log_config=LogConfig(type="none"),
                labels={LABEL: str(os.getpid())},
                **CONTAINER,
            )
            attached: Any = self._container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
            self._stream = socket.socket(fileno=os.dup(attached.fileno()))
            self._stream.settimeout(MAX_WAIT_S)
            attached._sock.close()  # the SDK leaves both open
            attached.close()
            self._container.start()
        except DockerException as error:
            raise SandboxError(f"the floor's container could not be started: {error}") from error
        self.ask({"do": "prepare", "modules": preimported()})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        self._container.remove(force=True)
        self._client.close()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.send(request)
        return self.receive()

    def send(self, request: dict[str, Any]) -> None:
        body = json.dumps(request).encode()
        self._stream.sendall(len(body).to_bytes(floor_guest.LENGTH_BYTES, "big") + body)

    def receive(self) -> dict[str, Any]:
        length = int.from_bytes(self._take(floor_guest.LENGTH_BYTES), "big")
        return json.loads(self._take(length))

    def _take(self, count: int) -> bytes:
        """Bytes of its standard output, out of the engine's frames (`kind, 0, 0, 0, length`)."""
        while len(self._buffer) < count:
            head = self._exactly(FRAME_BYTES)
            data = self._exactly(int.from_bytes(head[4:], "big"))
            if head[0] != STDOUT:
                raise SandboxError(f"the floor's container complains: {data[:500].decode('utf-8', 'replace')!r}")
            self._buffer += data
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                chunk = self._stream.recv(count - len(data))
            except OSError as error:
                raise SandboxError(f"the floor's container does not answer: {error}") from error
            if not chunk:
                raise SandboxError("the floor's container ended")
            data += chunk
        return data


class Pace(NamedTuple):
    """How fast programs were run, and what of the processors one of them took."""

    per_s: float
    cpu_ms: float
    """Of the processes inside."""
    host_cpu_ms: float = 0.0
    """Of this process, where it has a part in it."""


def pace(containers: Sequence[FloorContainer], way: str, samples: Sequence[Sample]) -> Pace:
    """All containers at once, each running all samples (`way`: fork or fresh)."""
    request = {"do": way, "programs": [(one.program, one.input) for one in samples]}
    count = len(containers) * len(samples)
    started = time.perf_counter()
    replies = _at_once(containers, request)
    wall_s = time.perf_counter() - started
    return Pace(count / wall_s, 1000 * sum(reply["cpu_s"] for reply in replies) / count)


def seconds_each(container: FloorContainer, way: str, samples: Sequence[Sample]) -> list[float]:
    """How long each program took, inside."""
    return list(container.ask({"do": way, "programs": [(one.program, one.input) for one in samples]})["seconds"])


def busy_pace(containers: Sequence[FloorContainer], rounds: int) -> Pace:
    """Rounds of a computing loop over all containers: what the machine's cores themselves scale to."""
    started = time.perf_counter()
    _at_once(containers, {"do": "busy", "rounds": rounds})
    return Pace(len(containers) * rounds / (time.perf_counter() - started), cpu_ms=0.0)


def docker_run_seconds(image: str, sample: Sample, runtime: str | None = None) -> float:
    """One program in a container of its own: created, started, waited for, its output read, removed."""
    from docker.errors import DockerException
    from docker.types import LogConfig

    client = connect()
    code = floor_guest.whole_program(sample.program, sample.input)
    started = time.perf_counter()
    try:
        client.containers.run(
            image,
            entrypoint=["python3", "-B", "-P", "-c", code],
            remove=True,
            runtime=runtime,
            log_config=LogConfig(type="json-file"),
            labels={LABEL: str(os.getpid())},
            **CONTAINER,
        )
        return time.perf_counter() - started
    except DockerException as error:
        raise SandboxError(f"`docker run` of one program failed: {error}") from error
    finally:
        client.close()


def _at_once(containers: Sequence[FloorContainer], request: dict[str, Any]) -> list[dict[str, Any]]:
    for container in containers:
        container.send(request)
    return [container.receive() for container in containers]
