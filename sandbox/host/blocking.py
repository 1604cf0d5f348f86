"""The sandbox for programs that do not use asyncio: any executor, run by a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from sandbox.types import Execution, Executor, Isolation, Job

T = TypeVar("T")


class Blocking:
    """An executor whose `run` blocks; several threads may call it at once::

    with Blocking(DockerExecutor(image.ensure())) as sandbox:
        [execution] = sandbox.run([Job(program="def f(x): return x + 1", inputs=("1",))])
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sandbox", daemon=True)

    @property
    def isolation(self) -> Isolation:
        return self._executor.isolation

    def run(self, jobs: Sequence[Job]) -> list[Execution]:
        """All executions, in the order of the jobs.

        Raises:
            SandboxError: the sandbox failed.
        """
        return self._wait(self._executor.run(jobs))

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._wait(self._executor.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._wait(self._executor.__aexit__(kind, error, trace))
        finally:
            self._end()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
