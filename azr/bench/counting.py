"""An executor that counts what passes through it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from sandbox.types import Execution, Executor, Isolation, Job


class Counting:
    """Passes jobs on and counts runs, statuses and who asked. The inner executor is started and stopped elsewhere."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self._askers: set[asyncio.Task[Any] | None] = set()
        self.runs = 0
        """Inputs that programs were called with."""
        self.program_cpu_s = 0.0
        self.statuses: Counter[str] = Counter()

    @property
    def isolation(self) -> Isolation:
        return self._inner.isolation

    @property
    def askers(self) -> int:
        """How many asyncio tasks asked for a run: each answer is judged in one of its own."""
        return len(self._askers)

    async def run(self, jobs: Sequence[Job]) -> list[Execution]:
        self._askers.add(asyncio.current_task())
        executions = await self._inner.run(jobs)
        self.runs += sum(len(job.inputs) for job in jobs)
        self.program_cpu_s += sum(execution.cpu_s for execution in executions)
        self.statuses.update(str(result.status) for execution in executions for result in execution.results)
        return executions

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, error, trace
