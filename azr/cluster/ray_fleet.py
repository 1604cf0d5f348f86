"""Sandbox workers as Ray actors, pinned to their nodes. The only module of this room that knows Ray.

Ray's own errors end here: an actor that died, hangs on a node that is gone, or cannot be reached is `WorkerLost`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Any, cast

import ray  # pyright: ignore[reportMissingImports]  # not installed where this is type-checked
from sandbox.audit.worker_logs import ChainHead

from azr.cluster.base import Node, Reply, WorkerLost
from azr.cluster.sandbox_worker import SandboxWorker
from azr.config import ClusterConfig
from sandbox.audit.records import Label
from sandbox.types import Executor, Isolation, Job, SandboxError

_ray: Any = ray
_affinity: Any = _ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy

START_S = 180.0
"""How long a node has to give a worker its CPUs and the worker to show its isolation."""
CLOSE_S = 20.0
CALLS_AT_ONCE = 1000


class RayFleet:
    """Starts workers on the nodes of the cluster that this process is connected to."""

    def __init__(self, make_executor: Callable[[], Executor], config: ClusterConfig) -> None:
        """
        Args:
            make_executor: what a worker runs; is sent to the nodes, so it has to be picklable.
        """
        self._make_executor = make_executor
        self._cpus = config.cpus_per_sandbox

    async def nodes(self) -> list[Node]:
        """Those with enough CPUs for a worker, whether they are free or not."""
        with _translated("the cluster"):
            rows: list[dict[str, Any]] = await asyncio.to_thread(_ray.nodes)
        alive = [row for row in rows if row["Alive"] and row["Resources"].get("CPU", 0.0) >= self._cpus]
        return sorted(Node(str(row["NodeID"]), str(row["NodeManagerHostname"])) for row in alive)

    async def start(self, node: Node, name: str) -> RayWorker:
        """
        Raises:
            SandboxError: the node has no room, or its sandbox does not give what is required.
        """
        actor = (
            _ray.remote(SandboxWorker)
            .options(
                num_cpus=self._cpus,
                max_restarts=0,
                max_concurrency=CALLS_AT_ONCE,
                scheduling_strategy=_affinity(node.node_id, soft=False),
            )
            .remote(name, self._make_executor)
        )
        try:
            async with asyncio.timeout(START_S):
                with _translated(f"the sandbox worker {name} on node {node.host}"):
                    isolation = cast(Isolation, await actor.start.remote())
        except TimeoutError:
            _ray.kill(actor)
            raise SandboxError(
                f"node {node.host} did not start a sandbox worker within {START_S:.0f} s: it needs "
                f"{self._cpus:g} free CPUs; set fewer with cluster.cpus_per_sandbox, or 0 cluster.sandboxes_per_node"
            ) from None
        except SandboxError:
            _ray.kill(actor)
            raise
        here = str(_ray.get_runtime_context().get_node_id())
        return RayWorker(actor, name, node, isolation, is_elsewhere=node.node_id != here)


@contextlib.contextmanager
def connected(num_cpus: int) -> Generator[None]:
    """A Ray of this process's own, with so many CPUs, or as it is where there is one already."""
    if _ray.is_initialized():
        yield
        return
    _ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        _ray.shutdown()


class RayWorker:
    """See `azr.cluster.base.Worker`."""

    def __init__(self, actor: Any, name: str, node: Node, isolation: Isolation, *, is_elsewhere: bool) -> None:
        self.name = name
        self.node = node
        self.isolation = isolation
        self._actor = actor
        self._is_elsewhere = is_elsewhere

    async def run(self, jobs: Sequence[Job], label: Label | None) -> Reply:
        return cast(Reply, await self._told(self._actor.run, list(jobs), label))

    async def ping(self) -> None:
        await self._told(self._actor.ping)

    async def open_log(self, run: str, token: str) -> ChainHead:
        return cast(ChainHead, await self._told(self._actor.open_log, run, token, alone=self._is_elsewhere))

    async def anchor(self, step: int) -> ChainHead:
        return cast(ChainHead, await self._told(self._actor.anchor, step))

    async def resumed(self, step: int) -> None:
        await self._told(self._actor.resumed, step)

    async def close(self) -> None:
        with contextlib.suppress(SandboxError, TimeoutError):
            await asyncio.wait_for(self._told(self._actor.close), CLOSE_S)
        _ray.kill(self._actor)

    async def _told(self, method: Any, *arguments: object, **named: object) -> object:
        with _translated(f"the sandbox worker {self.name} on node {self.node.host}"):
            return await method.remote(*arguments, **named)


@contextlib.contextmanager
def _translated(who: str) -> Generator[None]:
    """
    Raises:
        SandboxError: as the worker raised it, with its name.
        WorkerLost: Ray cannot reach it any more.
    """
    try:
        yield
    except _ray.exceptions.RayTaskError as error:
        cause: object = error.cause
        if isinstance(cause, SandboxError):
            raise type(cause)(f"{who}: {cause}") from None
        raise SandboxError(f"{who} failed: {cause!r}") from error
    except _ray.exceptions.RayError as error:
        raise WorkerLost(f"{who} is gone: {' '.join(str(error).split())[:300]}") from error
