"""Finding the Docker engine, and telling whether it is still there; the SDK is imported here, so that `import sandbox`
stays light."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING

from sandbox.types import EngineUnavailable, ImageMissing, SandboxError

if TYPE_CHECKING:
    import docker

ANSWER_S = 20
"""Longest that an engine takes to say that it is there, on a machine with much else to do."""
WORK_S = 120
"""Longest that it takes for anything."""
HOW_TO_START = (
    "No Docker engine answers. Start one (`systemctl start docker`, or `dockerd` by hand as root), "
    "and see that this user may use its socket; DOCKER_HOST names another engine."
)
HOW_TO_WAKE = (
    "The Docker engine takes connections, but does not answer. Restart it (`systemctl restart docker`), or name "
    "another engine in DOCKER_HOST."
)


def connect(timeout_s: int = WORK_S) -> docker.DockerClient:
    """A client of the engine that the environment names.

    Args:
        timeout_s: how long any later call may take.

    Raises:
        EngineUnavailable: none answers.
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
    """See that the engine is there.

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
    """Errors of the SDK become ours: EngineUnavailable where nobody answered, else SandboxError."""
    from docker.errors import DockerException, ImageNotFound

    try:
        yield
    except ImageNotFound as error:
        raise ImageMissing(f"{what_failed}. Build its image with `azr image build`: {error}") from error
    except DockerException as error:
        raise SandboxError(f"{what_failed}: {error}") from error
    except OSError as error:
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> EngineUnavailable:
    return EngineUnavailable(f"{HOW_TO_WAKE if 'timed out' in str(error) else HOW_TO_START} ({error})")
