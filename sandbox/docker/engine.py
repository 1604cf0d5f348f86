"""Connects to the Docker engine and checks that it answers. The SDK is imported inside the functions, so that
`import sandbox` stays light."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING

from sandbox.types import EngineUnavailable, ImageMissing, SandboxError

if TYPE_CHECKING:
    import docker

ANSWER_S = 20
"""Longest time that an engine on a busy machine takes to answer a ping."""
WORK_S = 120
"""Longest time that it takes for anything else."""
HOW_TO_START = (
    "No Docker engine answers. Start one (`systemctl start docker`, or run `dockerd` as root) and make sure that this "
    "user may use its socket, or set DOCKER_HOST to another engine."
)
HOW_TO_WAKE = (
    "The Docker engine accepts connections but does not answer. Restart it (`systemctl restart docker`), or set "
    "DOCKER_HOST to another engine."
)


def connect(timeout_s: int = WORK_S) -> docker.DockerClient:
    """A client of the engine that DOCKER_HOST names, or of this machine's engine.

    Args:
        timeout_s: how long each later call may take.

    Raises:
        EngineUnavailable: no engine answers.
    """
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=ANSWER_S)
    except (DockerException, OSError) as error:
        raise _unavailable(error) from error
    try:
        check(client)
    except EngineUnavailable:
        client.close()
        raise
    client.api.timeout = timeout_s
    return client


def check(client: docker.DockerClient) -> None:
    """Check that the engine answers.

    Raises:
        EngineUnavailable: it does not answer.
    """
    from docker.errors import DockerException

    try:
        client.ping()
    except (DockerException, OSError) as error:
        raise _unavailable(error) from error


@contextlib.contextmanager
def translated(what_failed: str) -> Generator[None]:
    """Turn errors of the SDK into ours: EngineUnavailable if the engine did not answer, else SandboxError."""
    from docker.errors import DockerException, ImageNotFound

    try:
        yield
    except ImageNotFound as error:
        raise ImageMissing(f"{what_failed}. Build its image with `azr image build`: {error}") from error
    except DockerException as error:
        is_runtime = "unknown runtime" in str(error).lower()
        advice = ". Install this runtime, or choose another with sandbox.runtime; `docker info` lists them"
        raise SandboxError(f"{what_failed}: {error}{advice if is_runtime else ''}") from error
    except OSError as error:
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> EngineUnavailable:
    return EngineUnavailable(f"{HOW_TO_WAKE if 'timed out' in str(error) else HOW_TO_START} ({error})")
