"""A cluster in this process: workers that run the tests' own programs, keep real logs, and die when they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sandbox.audit.worker_logs import ChainHead

from azr.cluster.base import Node, Reply, WorkerLost
from azr.cluster.sandbox_worker import SandboxWorker
from sandbox.audit.records import Label
from sandbox.types import Isolation, Job, SandboxError
from tests.fakes import ISOLATION, InProcessExecutor

POISON = "def f(x):\n    return 'poison'"
"""Takes its worker down, wherever it runs."""


def job(number: int) -> Job:
    return Job(f"def f(x):\n    return x + {number}", ("1",), seed_slot=number % 2)


class FakeWorker:
    """Replies when the loop turns. `dies_after` replies it is lost, before it answers or after it has recorded."""

    def __init__(self, name: str, node: Node, isolation: Isolation = ISOLATION, *, dies_after: int = -1) -> None:
        self.name = name
        self.node = node
        self.isolation = isolation
        self.chunks: list[list[Job]] = []
        self.most_at_once = 0
        self.is_closed = False
        self.hangs = False
        self.records_before_it_dies = False
        self.failure: SandboxError | None = None
        self._num_running = 0
        self._left = dies_after
        self._inner = SandboxWorker(name, InProcessExecutor)

    async def run(self, jobs: Sequence[Job], label: Label | None) -> Reply:
        self.chunks.append(list(jobs))
        self._num_running += len(jobs)
        self.most_at_once = max(self.most_at_once, self._num_running)
        await asyncio.sleep(0.001)
        self._num_running -= len(jobs)
        if self.failure is not None:
            raise self.failure
        if self.hangs:
            await asyncio.Event().wait()
        reply = await self._inner.run(jobs, label) if self.records_before_it_dies else None
        self._live(jobs)
        return reply or await self._inner.run(jobs, label)

    def _live(self, jobs: Sequence[Job]) -> None:
        is_over = self._left == 0
        self._left -= 1
        if is_over or self.is_closed or any(job.program == POISON for job in jobs):
            self._left = 0
            raise WorkerLost(f"{self.name} is gone")

    async def ping(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()

    async def open_log(self, run: str, token: str) -> ChainHead:
        return await self._inner.open_log(run, token, alone=False)

    async def anchor(self, step: int) -> ChainHead:
        return await self._inner.anchor(step)

    async def resumed(self, step: int) -> None:
        await self._inner.resumed(step)

    async def close(self) -> None:
        self.is_closed = True
        await self._inner.close()


Make = Callable[[str, Node], FakeWorker]


class FakeFleet:
    """Nodes that the test adds and removes; `make` gives the next worker of a node."""

    def __init__(self, *hosts: str, make: Make = FakeWorker) -> None:
        self.hosts = list(hosts)
        self.workers: list[FakeWorker] = []
        self.make = make

    async def nodes(self) -> list[Node]:
        return [Node(f"id-{host}", host) for host in self.hosts]

    async def start(self, node: Node, name: str) -> FakeWorker:
        worker = self.make(name, node)
        self.workers.append(worker)
        return worker


def another_image(name: str, node: Node) -> FakeWorker:
    """A worker whose image differs on node `odd`."""
    return FakeWorker(name, node, replace(ISOLATION, image="sha256:1") if node.host == "odd" else ISOLATION)


def run_folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir(parents=True, exist_ok=True)
    return tmp_path / "run"
