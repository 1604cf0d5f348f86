"""What the audit log costs: the same load with and without it, in turns."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from sandbox.audit.log import Audited, AuditLog
from sandbox.audit.records import Label
from sandbox.bench import load
from sandbox.bench.programs import Sample
from sandbox.bench.statistics import Spread
from sandbox.types import Executor, Job


async def audit_cost(executor: Executor, samples: Sequence[Sample], *, rounds: int, block_runs: int) -> Spread:
    """The share that logging adds to the time of the same runs, a round each; 0.05 is five percent more.

    Every program is one that the log has not seen, so that its text is written too.
    """
    marks = itertools.count()
    shares: list[float] = []
    with tempfile.TemporaryDirectory(prefix="azr-bench-") as folder:
        log = AuditLog.open(Path(folder) / "run.db")
        try:
            audited = Audited(executor, log, Label("bench"))
            await _block_s(executor, _unseen(samples, block_runs, marks))
            for number in range(rounds):
                order: list[Executor] = [executor, audited] if number % 2 == 0 else [audited, executor]
                took = {one is audited: await _block_s(one, _unseen(samples, block_runs, marks)) for one in order}
                shares.append(took[True] / took[False] - 1)
        finally:
            log.close()
    return Spread.of(shares)


async def _block_s(executor: Executor, jobs: Sequence[Job]) -> float:
    """Each job asked for on its own, as task types do."""
    started = time.perf_counter()
    await asyncio.gather(*(executor.run([job]) for job in jobs))
    return time.perf_counter() - started


def _unseen(samples: Sequence[Sample], count: int, marks: itertools.count[int]) -> list[Job]:
    cycled = itertools.islice(itertools.cycle(samples), count)
    return load.jobs_of([Sample(f"{one.program}\n# {next(marks)}", one.input) for one in cycled])
