"""Sandbox workers as real Ray actors on two nodes of one host, with real containers; some get lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from azr.build import make_executor
from azr.cluster import ClusterExecutor, NoWorkerLeft, RayWorker, ray_workers
from azr.config import ClusterConfig, SandboxConfig
from sandbox.audit.chain import verify
from sandbox.audit.log import Audited, AuditLog, Label
from sandbox.audit.reader import AuditReader
from sandbox.types import Execution, ImageMissing, Job

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]
CLUSTER = ClusterConfig(sandboxes_per_node=1, cpus_per_sandbox=1.0, jobs_in_flight=16)


@pytest.fixture(name="nodes", scope="module")
def two_nodes() -> Generator[Any]:
    """A cluster of two raylets, each with one CPU; the first one holds the head."""
    import ray  # pyright: ignore[reportMissingImports]  # not where this is type-checked
    import ray.cluster_utils  # pyright: ignore[reportMissingImports,reportUnusedImport]  # as above

    some_ray: Any = ray
    cluster: Any = some_ray.cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    cluster.add_node(num_cpus=1)
    some_ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    some_ray.shutdown()
    cluster.shutdown()


class Workers:
    """Makes the workers of a cluster and keeps them, so that a test can kill one."""

    def __init__(self, **sandbox: Any) -> None:
        self.made: list[RayWorker] = []
        self._make = partial(ray_workers, partial(make_executor, SandboxConfig(workers=1, **sandbox)), CLUSTER)

    def __call__(self) -> list[RayWorker]:
        self.made = self._make()
        return self.made

    async def kill(self, place: int) -> None:
        """End an actor's process as the kernel's memory killer does."""
        actor: Any = self.made[place].actor
        os.kill(await actor.__ray_call__.remote(_pid), signal.SIGKILL)

    async def stop(self, place: int) -> int:
        """Freeze an actor's process; returns its number."""
        actor: Any = self.made[place].actor
        pid = int(await actor.__ray_call__.remote(_pid))
        os.kill(pid, signal.SIGSTOP)
        return pid


def executor(workers: Workers, *, silence_s: float = 30.0) -> ClusterExecutor:
    return ClusterExecutor(workers, jobs_in_flight=CLUSTER.jobs_in_flight, silence_s=silence_s)


def jobs(count: int, *, busy_s: float = 0.0) -> list[Job]:
    work = f"    import time\n    time.sleep({busy_s})\n" if busy_s else ""
    return [Job(f"def f(x):\n{work}    return x + {n}", ("1",), seed_slot=n % 2) for n in range(count)]


def assert_right(executions: list[Execution]) -> None:
    assert [execution.results[0].value for execution in executions] == [str(n + 1) for n in range(len(executions))]


def _pid(worker: object) -> int:
    del worker
    return os.getpid()


_pid.__module__ = "__main__"  # so that it is sent by value: the workers do not have the tests


async def test_lost_workers_and_nodes_cost_no_verdict_and_the_log_has_each_once(nodes: Any, tmp_path: Path) -> None:
    workers = Workers()
    async with executor(workers) as cluster:
        with closing(AuditLog.open(tmp_path / "run.db")) as log:
            recorded = Audited(cluster, log, Label("solve"))
            assert_right(await recorded.run(jobs(12)))

            running = asyncio.create_task(recorded.run(jobs(60, busy_s=0.05)))
            await asyncio.sleep(0.7)
            await workers.kill(0)
            assert_right(await running)
            await restarted(cluster)

            running = asyncio.create_task(recorded.run(jobs(60, busy_s=0.05)))
            await asyncio.sleep(0.7)
            await asyncio.to_thread(nodes.remove_node, nodes.list_all_nodes()[1], allow_graceful=False)
            assert_right(await running)
            assert len(cluster.workers) == 1

            nodes.add_node(num_cpus=1)
            await restarted(cluster)
            assert_right(await recorded.run(jobs(12)))
            log.anchor(1)
    assert verify(tmp_path / "run.db", tmp_path / "anchors.jsonl").damage == ()
    with closing(AuditReader.open(tmp_path / "run.db")) as reader:
        assert len(list(reader.records("kind = 'execution'"))) == 12 + 60 + 60 + 12


async def test_a_frozen_worker_is_restarted(nodes: Any) -> None:
    del nodes
    workers = Workers()
    async with executor(workers, silence_s=3.0) as cluster:
        await workers.stop(0)
        assert_right(await cluster.run(jobs(20)))
        await restarted(cluster)
        assert_right(await cluster.run(jobs(20)))


async def restarted(cluster: ClusterExecutor) -> None:
    """Return when both workers take jobs again."""
    while len(cluster.workers) < 2:
        await asyncio.sleep(0.1)


async def test_a_worker_whose_sandbox_does_not_start_stops_the_run_with_its_nodes_name(nodes: Any) -> None:
    del nodes
    with pytest.raises(ImageMissing, match=r"sandbox worker 0 on node \S+: .*azr image build"):
        async with executor(Workers(image="no-such-image")):
            pass


async def test_workers_that_die_too_often_end_the_run_with_the_last_error(nodes: Any) -> None:
    del nodes
    workers = Workers()
    async with executor(workers) as cluster:
        with pytest.raises(NoWorkerLeft, match=r"sandbox worker 0 on node .* is gone.*--resume"):
            await run_and_kill(cluster, workers)


async def run_and_kill(cluster: ClusterExecutor, workers: Workers) -> None:
    """Kill all workers again and again while they run jobs."""
    while True:
        running = asyncio.create_task(cluster.run(jobs(40, busy_s=0.1)))
        await asyncio.sleep(0.3)
        for place, worker in enumerate(workers.made):
            if worker in cluster.workers:
                await workers.kill(place)
        await running
