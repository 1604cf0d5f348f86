"""An executor that is many: sandbox workers on the nodes of a cluster. Read `ClusterExecutor`, then `Recorded`.

::

    async with ClusterExecutor(fleet, cluster) as executor:            # every worker has shown its isolation
        recorded = await executor.recorded(run_folder, log, Label("train"))
        executions = await recorded.run(jobs)                          # on record at the workers that ran them
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, Unpack

from sandbox.audit.worker_logs import FOLDER, ChainHead, head_of, joined, logs_of, lost

from azr.cluster.agreement import require_agreement
from azr.cluster.base import Fleet, Node, NoWorkerLeft, Worker, WorkerLost
from azr.cluster.routing import CHUNK, Router, Seat
from azr.cluster.sandbox_worker import TOKEN
from azr.config import ClusterConfig
from sandbox.audit.log import AuditLog
from sandbox.audit.records import Label, LabelChanges
from sandbox.types import Execution, Isolation, Job, SandboxError

logger = logging.getLogger(__name__)

MOST_STARTS = 5
"""How often a worker is started on one node in a run: a node where they keep dying is left out."""
NOBODY = (
    "no sandbox worker is left, and none could be started on any node. The last one: {}. Nothing was concluded from "
    "the jobs that were on their way: repair the nodes, then go on with --resume"
)


class Ledger(NamedTuple):
    """Where the workers' logs lie, and the log that holds them together."""

    run: Path
    token: str
    log: AuditLog
    ended: dict[str, ChainHead]
    """Where the logs ended that were there when the run was opened."""


class ClusterExecutor:
    """Runs jobs on all nodes; a node that joins or returns gets its workers in the background."""

    def __init__(self, fleet: Fleet, config: ClusterConfig, *, chunk: int = CHUNK) -> None:
        self._fleet = fleet
        self._config = config
        self._router = Router(self._lost, jobs_in_flight=config.jobs_in_flight, chunk=chunk)
        self._heads: dict[Seat, ChainHead] = {}
        """Where the seats' logs stood when they joined or were last anchored."""
        self._names: Counter[str] = Counter()
        self._starts: Counter[str] = Counter()
        self._ledger: Ledger | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_short = self._is_filling = False
        self._last: SandboxError | None = None
        """What went wrong last."""

    @property
    def isolation(self) -> Isolation:
        return self._isolation

    @property
    def workers(self) -> list[Worker]:
        """Those that take part now."""
        return [seat.worker for seat in self._router.seats]

    async def settled(self) -> None:
        """Returns when nobody is being started or ended."""
        await asyncio.gather(*self._tasks)

    async def run(self, jobs: Sequence[Job]) -> list[Execution]:
        """Without a record; `recorded` gives an executor that keeps one."""
        return await self._router.run(jobs, None)

    async def run_labelled(self, jobs: Sequence[Job], label: Label) -> list[Execution]:
        """On record at the workers, under a label."""
        return await self._router.run(jobs, label)

    async def recorded(self, run: Path, log: AuditLog, label: Label) -> Recorded:
        """From now on every worker keeps a log in the run directory.

        Raises:
            AuditError: a worker does not see the directory or cannot write there.
        """
        run, token = run.resolve(), secrets.token_hex(16)
        ended = {name: head_of(run, name) for name in logs_of(run)}
        (run / FOLDER).mkdir(exist_ok=True)
        (run / FOLDER / TOKEN).write_text(token, encoding="ascii")
        await self.settled()
        self._ledger = Ledger(run, token, log, ended)
        seats = list(self._router.seats)
        heads = await asyncio.gather(*[self._open_log(seat.worker) for seat in seats])
        self._heads = {seat: head for seat, head in zip(seats, heads, strict=True) if head is not None}
        return Recorded(self, label)

    async def anchored(self, step: int) -> list[ChainHead]:
        """See `sandbox.worker_logs.WorkerLogs`. Between steps is also when new nodes are looked for."""
        seats = list(self._heads)
        for seat, head in zip(seats, await asyncio.gather(*[self._anchor(seat, step) for seat in seats]), strict=True):
            if head is not None and seat in self._heads:
                self._heads[seat] = head
                seat.used.clear()
        self._fill_soon()
        return list(self._heads.values())

    async def resumed(self, step: int) -> list[ChainHead]:
        """See `sandbox.worker_logs.WorkerLogs`."""
        await asyncio.gather(*[seat.worker.resumed(step) for seat in self._heads])
        return [] if self._ledger is None else list(self._ledger.ended.values())

    async def __aenter__(self) -> Self:
        try:
            nodes = await self._fleet.nodes()
            places = [node for node in nodes for _ in range(self._config.sandboxes_per_node)]
            starting = await asyncio.gather(*[self._start(node) for node in places], return_exceptions=True)
            workers = [one for one in starting if not isinstance(one, BaseException)]
            for worker in workers:
                self._router.add(worker)
            for error in starting:
                if isinstance(error, BaseException) and not (isinstance(error, WorkerLost) and workers):
                    raise error
            if not workers:
                raise NoWorkerLeft("the cluster has no node that is alive, so no sandbox worker could be started")
            for worker in workers[1:]:
                require_agreement(worker, workers[0].isolation)
            self._isolation = workers[0].isolation
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, error, trace
        workers = self.workers
        for task in self._tasks:
            task.cancel()
        await self._router.close()
        await asyncio.gather(*self._tasks, *[worker.close() for worker in workers], return_exceptions=True)

    async def _start(self, node: Node) -> Worker:
        name = f"{node.host}-{self._names[node.host]}"
        self._names[node.host] += 1
        self._starts[node.node_id] += 1
        return await self._fleet.start(node, name)

    async def _open_log(self, worker: Worker) -> ChainHead | None:
        """Where its log ended; None while the run is not recorded."""
        if self._ledger is None:
            return None
        head = await worker.open_log(str(self._ledger.run), self._ledger.token)
        self._ledger.log.write_patiently([joined(head)])
        return head

    def _add(self, worker: Worker, head: ChainHead | None) -> None:
        seat = self._router.add(worker)
        if head is not None:
            self._heads[seat] = head

    async def _anchor(self, seat: Seat, step: int) -> ChainHead | None:
        """None when it is gone; it will be missed when it is given work."""
        try:
            return await seat.worker.anchor(step)
        except WorkerLost as error:
            logger.warning("%s", error)
            return None

    def _lost(self, seat: Seat, error: SandboxError) -> None:
        """A seat is given up: what it recorded and nobody used is told apart, another worker is looked for."""
        logger.warning("the sandbox worker %s is given up: %s", seat.worker.name, error)
        head = self._heads.pop(seat, None)
        if self._ledger is not None and head is not None:
            self._ledger.log.write_patiently([lost(head, _merged(seat.used))])
        self._in_background(seat.worker.close())
        self._last = error
        self._fill_soon()

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _fill_soon(self) -> None:
        self._is_short = True
        if not self._is_filling:
            self._is_filling = True
            self._in_background(self._fill())

    async def _fill(self) -> None:
        """Start workers where they are missing; when there are none at all, whoever waits is told why."""
        try:
            while self._is_short:
                self._is_short = False
                for node in await self._missing():
                    await self._restart(node)
        except SandboxError as error:
            self._last = error
        except Exception as error:
            self._last = SandboxError(f"a fault in the cluster's executor itself: {error!r}")
            raise
        finally:
            self._is_filling = False
            if not self._router.seats:
                self._router.fail(NoWorkerLeft(NOBODY.format(self._last)))

    async def _missing(self) -> list[Node]:
        there = Counter(seat.worker.node.node_id for seat in self._router.seats)
        wanted = self._config.sandboxes_per_node
        return [
            node
            for node in await self._fleet.nodes()
            for _ in range(wanted - there[node.node_id])
            if self._starts[node.node_id] < MOST_STARTS * wanted
        ]

    async def _restart(self, node: Node) -> None:
        try:
            worker = await self._start(node)
            try:
                require_agreement(worker, self._isolation)
                head = await self._open_log(worker)
            except BaseException:
                await worker.close()
                raise
            self._add(worker, head)
            logger.info("the sandbox worker %s takes part", worker.name)
        except SandboxError as error:
            logger.warning("no sandbox worker on node %s: %s", node.host, error)
            self._last = error


class Recorded:
    """A cluster's executor under a label: what runs is on record where it ran before anyone sees what came of it."""

    def __init__(self, executor: ClusterExecutor, label: Label) -> None:
        self._executor = executor
        self._label = label

    @property
    def isolation(self) -> Isolation:
        return self._executor.isolation

    def labelled(self, **changes: Unpack[LabelChanges]) -> Recorded:
        """The same workers under a changed label."""
        return Recorded(self._executor, self._label.changed(changes))

    async def run(self, jobs: Sequence[Job]) -> list[Execution]:
        """
        Raises:
            SandboxError: no worker is left, or none can record what it runs.
        """
        return await self._executor.run_labelled(jobs, self._label)

    async def __aenter__(self) -> Self:
        await self._executor.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._executor.__aexit__(kind, error, trace)


def _merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same numbers in as few ranges as it takes."""
    merged: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if merged and merged[-1][1] >= first:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((first, end))
    return merged
