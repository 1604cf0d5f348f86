"""Finding the Docker engine; the SDK is imported here, so that `import sandbox` stays light."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox.types import EngineUnavailable

if TYPE_CHECKING:
    import docker

HOW_TO_START = (
    "No Docker engine answers. Start one (`systemctl start docker`, or `dockerd` by hand as root), "
    "and see that this user may use its socket; DOCKER_HOST names another engine."
)


def connect() -> docker.DockerClient:
    """A client of the engine that the environment names.

    Raises:
        EngineUnavailable: none answers.
    """
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except DockerException as error:
        raise EngineUnavailable(f"{HOW_TO_START} ({error})") from error
    return client
