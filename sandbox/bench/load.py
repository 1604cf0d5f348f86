"""Drives an executor and looks at the clock: throughput, latency, cold start. Each value is decoded before it stops."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence

from sandbox.bench.programs import Sample
from sandbox.shared.values import decode
from sandbox.types import Execution, Executor, Job, Limits

HELLO = Job("def f(x):\n    return x", ("1",))


def jobs_of(samples: Sequence[Sample], *, slots: Sequence[int] = (0, 1), limits: Limits | None = None) -> list[Job]:
    """A job a sample, over the seed slots in turn."""
    turns = itertools.cycle(slots)
    return [Job(one.program, (one.input,), limits=limits or Limits(), seed_slot=next(turns)) for one in samples]


async def verdicts_per_s(executor: Executor, jobs: Sequence[Job]) -> float:
    """All jobs at once, as training sends them."""
    started = time.perf_counter()
    for execution in await executor.run(jobs):
        _decoded(execution)
    return len(jobs) / (time.perf_counter() - started)


async def latencies_s(executor: Executor, jobs: Sequence[Job], *, in_flight: int) -> list[float]:
    """Seconds of each job while `in_flight` are under way; a job that ends makes room for the next."""
    waiting = iter(jobs)
    seconds: list[float] = []

    async def one_after_the_other() -> None:
        for job in waiting:
            started = time.perf_counter()
            [execution] = await executor.run([job])
            _decoded(execution)
            seconds.append(time.perf_counter() - started)

    await asyncio.gather(*(one_after_the_other() for _ in range(in_flight)))
    return seconds


async def cold_start_s(make_executor: Callable[[], Executor]) -> float:
    """From nothing to the first verdict: containers are made, the interpreter starts, one program runs."""
    started = time.perf_counter()
    async with make_executor() as executor:
        [execution] = await executor.run([HELLO])
        _decoded(execution)
        return time.perf_counter() - started


def _decoded(execution: Execution) -> None:
    for result in execution.results:
        if result.ok:
            decode(result.value)
