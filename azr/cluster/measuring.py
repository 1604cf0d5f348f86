"""What sandbox workers take on this host: jobs a second by number of workers, and whose thread is busy for how long.

A rate is the median of several batches, after one that is not counted: containers and caches are warm in training too.
Thread times count only while the thread runs: a host that is busy with other things makes them somewhat longer.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from azr.cluster.simulation import Costs
from sandbox.audit.log import AuditLog
from sandbox.audit.records import Executed, Label, Moment, Span
from sandbox.types import Executor, Job

REPEATS = 5


@dataclass(frozen=True, slots=True)
class Rate:
    """What batches of the same jobs gave."""

    num_jobs: int
    jobs_per_s: float
    """The median of the batches."""
    thread_s_per_job: float
    """How long the calling thread itself was busy, a job."""


async def rate(executor: Executor, jobs: Sequence[Job], repeats: int = REPEATS) -> Rate:
    """All jobs at once, as training sends them."""
    await executor.run(jobs)
    walls_s: list[float] = []
    busy_s: list[float] = []
    for _ in range(repeats):
        wall_s, thread_s = await _timed(lambda: executor.run(jobs))
        walls_s.append(wall_s)
        busy_s.append(thread_s)
    return Rate(len(jobs), len(jobs) / median(walls_s), median(busy_s) / len(jobs))


async def services_s(executor: Executor, jobs: Sequence[Job]) -> list[float]:
    """How long each job takes alone, from the call to its values: a container at work, and the wire."""
    return [(await _timed(lambda job=job: executor.run([job])))[0] for job in jobs]


async def record_s(executor: Executor, log: AuditLog, jobs: Sequence[Job]) -> float:
    """How long the thread that writes the log is busy, a record."""
    executions = await executor.run(jobs)
    span = Span(Moment.now(), Moment.now())
    entries = [
        Executed(Label("solve", step=1), job, ran, executor.isolation, span)
        for job, ran in zip(jobs, executions, strict=True)
    ]
    started = time.thread_time()
    for first in range(0, len(entries), 20):
        log.write_patiently(entries[first : first + 20])
    return (time.thread_time() - started) / len(entries)


def costs(by_chunk: Sequence[tuple[int, float]], host_s: float) -> Costs:
    """The trainer's share of a call and of a verdict, by least squares from what a verdict cost at several chunk sizes.

    `thread_s = call_s / chunk + verdict_s` is a line over 1 / chunk.
    """
    xs = [1 / chunk for chunk, _ in by_chunk]
    ys = [thread_s for _, thread_s in by_chunk]
    x, y = fmean(xs), fmean(ys)
    call_s = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)
    return Costs(call_s, y - call_s * x, host_s)


async def _timed(work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    wall, thread = time.perf_counter(), time.thread_time()
    await work()
    return time.perf_counter() - wall, time.thread_time() - thread
