"""`azr bench cluster`: sandbox workers measured on this host with Ray, and played out for as many nodes as wanted."""

from __future__ import annotations

import asyncio
import json
import os
import random
import tempfile
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.console import Console
from rich.table import Table

from azr.bench.programs import read_rows, small_jobs
from azr.build import make_executor
from azr.cluster.executor import ClusterExecutor
from azr.cluster.measuring import Rate, costs, rate, record_s, services_s
from azr.cluster.routing import CHUNK
from azr.cluster.simulation import Costs, Shape, jobs_per_s
from azr.config import ClusterConfig, SandboxConfig
from azr.errors import RunError
from sandbox.audit.log import Audited, AuditLog, Label
from sandbox.types import Job

WORKERS = (1, 2)
CHUNKS = (1, 2, 4, 8, 16)
NODES = (1, 2, 4, 8, 16, 32, 64)
NODE_CONTAINERS = 16
"""Jobs that a simulated node runs at once: one a core of a 16-core machine."""
JOBS_A_NODE = 400
console = Console()


@dataclass(frozen=True, slots=True)
class Scaling:
    """All that was measured and played out."""

    load_average: float
    """Of the host before it began: the rates are of use only where it was idle."""
    weak: dict[int, Rate]
    """By number of workers, on this host's cores; twice the workers get twice the jobs."""
    by_chunk: dict[int, Rate]
    """One worker, by jobs a call."""
    in_process: Rate
    """The same jobs without Ray, on record: what a worker's own process is busy for."""
    record_s: float
    service_s: list[float]
    costs: Costs
    recording_here: Costs
    """The same, were the records written by the trainer."""
    simulated: dict[str, dict[int, float]]
    """Jobs a second by number of nodes; of the cluster as it is, and of variants."""


def run_scaling(output: Path | None, *, num_jobs: int, as_json: bool) -> None:
    """Measure, play out, print; with a folder also cluster-scaling.json and cluster-scaling.png.

    Raises:
        RunError: Ray is not installed.
    """
    try:
        from azr.cluster.ray_fleet import connected
    except ImportError as error:
        raise RunError("`azr bench cluster` needs Ray: pip install 'azr[openrlhf]'") from error
    with connected(num_cpus=max(WORKERS)):
        found = asyncio.run(_measured(num_jobs))
    told = json.dumps(asdict(found), indent=1)
    if output is not None:
        from azr.cluster.plot import draw

        (output / "cluster-scaling.json").write_text(told + "\n", encoding="ascii")
        measured = {workers: one.jobs_per_s for workers, one in found.weak.items()}
        draw(output / "cluster-scaling.png", found.simulated, measured, found.load_average)
    if as_json:
        console.print_json(told)
    else:
        _show(found)


async def _measured(num_jobs: int) -> Scaling:
    load = os.getloadavg()[0]
    async with make_executor(SandboxConfig(workers=1)) as executor:
        small = await small_jobs(executor, read_rows([]))
    jobs = small * (max(WORKERS) * num_jobs // len(small) + 1)
    weak = {workers: await _with_ray(workers, jobs[: num_jobs * workers]) for workers in WORKERS}
    by_chunk = {chunk: await _with_ray(1, jobs[:num_jobs], chunk=chunk) for chunk in CHUNKS}
    async with make_executor(SandboxConfig(workers=1)) as executor:
        with tempfile.TemporaryDirectory() as folder, closing(AuditLog.open(Path(folder) / "audit.db")) as log:
            service = await services_s(executor, jobs[:200])
            in_process = await rate(Audited(executor, log, Label("solve")), jobs[:num_jobs])
            record = await record_s(executor, log, jobs[:num_jobs])
    ours = costs([(chunk, one.thread_s_per_job) for chunk, one in by_chunk.items()], in_process.thread_s_per_job)
    theirs = ours._replace(verdict_s=ours.verdict_s + record, host_s=ours.host_s - record)
    return Scaling(load, weak, by_chunk, in_process, record, service, ours, theirs, _simulated(service, ours, theirs))


async def _with_ray(workers: int, jobs: list[Job], chunk: int = CHUNK) -> Rate:
    """Recorded by the workers, as in training."""
    from azr.cluster.ray_fleet import RayFleet

    config = ClusterConfig(sandboxes_per_node=workers, cpus_per_sandbox=1.0)
    with tempfile.TemporaryDirectory() as folder:
        fleet = RayFleet(partial(make_executor, SandboxConfig(workers=1)), config)
        async with ClusterExecutor(fleet, config, chunk=chunk) as executor:
            with closing(AuditLog.open(Path(folder) / "run.db")) as log:
                return await rate(await executor.recorded(Path(folder), log, Label("solve")), jobs)


def _simulated(service: list[float], ours: Costs, theirs: Costs) -> dict[str, dict[int, float]]:
    variants: dict[str, tuple[Costs, dict[str, Any]]] = {
        f"{CHUNK} jobs a call": (ours, {"chunk": CHUNK}),
        "1 job a call": (ours, {"chunk": 1}),
        "16 jobs a call": (ours, {"chunk": 16}),
        f"{CHUNK} jobs a call, records written by the trainer": (theirs, {"chunk": CHUNK}),
    }
    return {
        name: {
            nodes: jobs_per_s(
                Shape(nodes, NODE_CONTAINERS, **shape), price, service, nodes * JOBS_A_NODE, random.Random(0)
            )
            for nodes in NODES
        }
        for name, (price, shape) in variants.items()
    }


def _show(found: Scaling) -> None:
    console.print(f"load average before: {found.load_average:.1f}, of {os.cpu_count()} cores")
    base = found.weak[WORKERS[0]].jobs_per_s
    for workers, one in found.weak.items():
        share = one.jobs_per_s / base / workers
        console.print(f"{workers} workers on this host: {one.jobs_per_s:.0f} jobs/s, efficiency {share:.0%}")
    price = found.costs
    typical, mean = 1000 * median(found.service_s), 1000 * fmean(found.service_s)
    console.print(f"alone, a job takes {typical:.1f} ms (mean {mean:.1f})")
    console.print(f"trainer: {1000 * price.call_s:.2f} ms a call, {1000 * price.verdict_s:.2f} ms a verdict")
    console.print(f"worker: {1000 * price.host_s:.2f} ms a verdict, {1000 * found.record_s:.2f} of it for its record")
    table = Table("nodes", *found.simulated)
    for nodes in NODES:
        table.add_row(str(nodes), *(f"{rates[nodes]:.0f}/s" for rates in found.simulated.values()))
    console.print(table)
