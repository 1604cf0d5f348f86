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

from sandbox.audit.worker_logs import RunAudit, verify_run

from azr.audit.reader import RunReader
from azr.audit.timeline import Timeline
from azr.build import make_executor
from azr.cluster.executor import ClusterExecutor
from azr.cluster.ray_fleet import RayFleet
from azr.config import ClusterConfig, SandboxConfig
from sandbox.audit.log import AuditLog, Label
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


def jobs(count: int, *, busy_s: float = 0.0) -> list[Job]:
    work = f"    import time\n    time.sleep({busy_s})\n" if busy_s else ""
    return [Job(f"def f(x):\n{work}    return x + {n}", ("1",), seed_slot=n % 2) for n in range(count)]


def assert_right(executions: list[Execution]) -> None:
    assert [execution.results[0].value for execution in executions] == [str(n + 1) for n in range(len(executions))]


def executor(**sandbox: Any) -> ClusterExecutor:
    return ClusterExecutor(RayFleet(partial(make_executor, SandboxConfig(workers=1, **sandbox)), CLUSTER), CLUSTER)


def _pid(worker: object) -> int:
    del worker
    return os.getpid()


_pid.__module__ = "__main__"  # so that it travels by value: the workers do not have the tests


async def killed_worker(cluster: ClusterExecutor, place: int) -> str:
    """End an actor's process as the kernel's memory killer does; returns its name."""
    worker: Any = cluster.workers[place]
    pid = await worker._actor.__ray_call__.remote(_pid)
    os.kill(pid, signal.SIGKILL)
    return str(worker.name)


async def test_a_run_outlives_a_killed_worker_and_a_lost_node_and_its_logs_tell(nodes: Any, tmp_path: Path) -> None:
    async with executor() as cluster:
        with closing(AuditLog.open(tmp_path / "run.db")) as log:
            audit = RunAudit(log, cluster)
            recorded = (await cluster.recorded(tmp_path, log, Label("train"))).labelled(purpose="solve", step=1)
            assert_right(await recorded.run(jobs(12)))
            await audit.anchor(0)

            running = asyncio.create_task(recorded.run(jobs(60, busy_s=0.05)))
            await asyncio.sleep(0.7)
            killed = await killed_worker(cluster, 0)
            assert_right(await running)
            await cluster.settled()
            assert len(cluster.workers) == 2

            running = asyncio.create_task(recorded.labelled(step=2).run(jobs(60, busy_s=0.05)))
            await asyncio.sleep(0.7)
            await asyncio.to_thread(nodes.remove_node, nodes.list_all_nodes()[1], allow_graceful=False)
            assert_right(await running)
            assert len(cluster.workers) == 1

            nodes.add_node(num_cpus=1)
            await audit.anchor(2)
            await cluster.settled()
            assert len(cluster.workers) == 2
            assert_right(await recorded.labelled(step=3).run(jobs(12)))
            await audit.anchor(3)
    found = verify_run(tmp_path, tmp_path / "anchors.jsonl")
    assert found.findings == []
    assert killed in found.workers
    assert len(found.workers) == 4
    with closing(RunReader.open(tmp_path)) as reader:
        timeline = Timeline(reader)
        assert [len(timeline.executions(step)) for step in (1, 2, 3)] == [72, 60, 12]


async def test_a_worker_whose_sandbox_does_not_start_stops_the_run_with_its_nodes_name(nodes: Any) -> None:
    del nodes
    with pytest.raises(ImageMissing, match=r"sandbox worker \S+ on node \S+: .*azr image build"):
        async with executor(image="no-such-image"):
            pass
