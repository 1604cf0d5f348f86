"""One running executor per backend for the whole session. Without an engine the tests fail; they are not skipped."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox import (
    Blocking,
    DockerExecutor,
    EngineUnavailable,
    Execution,
    Executor,
    Isolation,
    JailExecutor,
    Job,
    Limits,
)
from sandbox.docker import image
from sandbox.docker.engine import connect


def has_runtime(name: str) -> bool:
    """True when the engine has a runtime of that name; False also when there is no engine."""
    client = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # without an engine, the Docker SDK leaves a socket open
        with contextlib.suppress(EngineUnavailable):
            client = connect()
        gc.collect()
    if client is None:
        return False
    try:
        about: dict[str, Any] = client.info()
        return name in about["Runtimes"]
    finally:
        client.close()


BACKENDS: dict[str, Callable[[], Executor]] = {
    "docker": lambda: DockerExecutor(image.ensure()),
    "jail": JailExecutor,
}
if has_runtime("runsc"):
    BACKENDS["runsc"] = lambda: DockerExecutor(image.ensure(), runtime="runsc")


class Running:
    """An executor that plain tests can call, with a shorthand for one program."""

    def __init__(self, sandbox: Blocking) -> None:
        self._sandbox = sandbox

    @property
    def isolation(self) -> Isolation:
        return self._sandbox.isolation

    def run(self, *jobs: Job) -> list[Execution]:
        return self._sandbox.run(jobs)

    def call(
        self, program: str, *inputs: str, limits: Limits | None = None, forbidden: tuple[str, ...] = ()
    ) -> Execution:
        """Run one job; by default one call without arguments, under short limits."""
        job = Job(program, inputs or ("",), limits=limits or Limits(wall_s=1.5, cpu_s=1.5), forbidden=forbidden)
        return self.run(job)[0]


@pytest.fixture(scope="session", params=sorted(BACKENDS))
def sandboxed(request: pytest.FixtureRequest) -> Iterator[Running]:
    with Blocking(BACKENDS[request.param]()) as sandbox:
        yield Running(sandbox)
