"""One running executor a backend for the whole session; no engine is a failure, not a skip."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox import DockerExecutor, EngineUnavailable, Execution, Executor, Isolation, JailExecutor, Job, Limits, image
from sandbox.engine import connect


def has_runtime(name: str) -> bool:
    """True when the engine has a runtime of that name; False also when there is no engine."""
    try:
        client = connect()
    except EngineUnavailable:
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
    """An executor in a loop of its own, so that plain tests can call it."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._executor.__aenter__(), self._loop).result()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._executor.__aexit__(None, None, None), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def isolation(self) -> Isolation:
        return self._executor.isolation

    def run(self, *jobs: Job) -> list[Execution]:
        return asyncio.run_coroutine_threadsafe(self._executor.run(jobs), self._loop).result()

    def call(
        self, program: str, *inputs: str, limits: Limits | None = None, forbidden: tuple[str, ...] = ()
    ) -> Execution:
        """One job, with short limits, on one call without arguments unless told otherwise."""
        job = Job(program, inputs or ("",), limits=limits or Limits(wall_s=1.5, cpu_s=1.5), forbidden=forbidden)
        return self.run(job)[0]


@pytest.fixture(scope="session", params=sorted(BACKENDS))
def sandboxed(request: pytest.FixtureRequest) -> Iterator[Running]:
    running = Running(BACKENDS[request.param]())
    running.start()
    yield running
    running.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On gVisor the attack matrix is measured, not promised: it lets a program open the pipes of PID 1, and its
    temporary file systems count neither files nor blocks. README says so; the contract holds there as elsewhere."""
    for item in items:
        if item.path.name == "test_attacks.py" and "[runsc" in item.name:
            item.add_marker(pytest.mark.xfail(reason="gVisor: measured, not promised", strict=False))
