"""The sandbox workers of a cluster as the rest of this room sees them; `ray_fleet` has the real ones, tests have fakes.

::

    SandboxError
    ├── WorkerLost        a worker is gone or does not answer; its jobs may have run, no verdict was drawn from them
    ├── NoWorkerLeft      all are gone, and nothing could be started in their place
    └── WorkersDiffer     a worker's isolation is another one than the others'
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from sandbox.audit.worker_logs import ChainHead

from sandbox.audit.records import Label
from sandbox.types import Execution, Isolation, Job, SandboxError


class WorkerLost(SandboxError):
    """A worker is gone or does not answer; what it was doing has to be done again elsewhere."""


class NoWorkerLeft(SandboxError):
    """Every worker is gone and none could be started; the message says what the last one said."""


class WorkersDiffer(SandboxError):
    """The workers do not stand between program and host alike; the message names the node and the difference."""


class Node(NamedTuple):
    """A machine of the cluster: Node("6b1f...", "node-a")."""

    node_id: str
    host: str
    """What a person calls it; part of the names of its workers."""


class Reply(NamedTuple):
    """What a worker says of the jobs it was given, in their order."""

    executions: list[Execution]
    first: int
    """The number of the first one's record in the worker's log, the others follow it; -1 where nothing is recorded."""


class Worker(Protocol):
    """A sandbox on some node, started. Every verb raises WorkerLost when it is gone."""

    @property
    def name(self) -> str: ...

    @property
    def node(self) -> Node: ...

    @property
    def isolation(self) -> Isolation: ...

    async def run(self, jobs: Sequence[Job], label: Label | None) -> Reply:
        """Run jobs; without a label nothing is recorded.

        Raises:
            SandboxError: this worker's sandbox failed.
        """
        ...

    async def ping(self) -> None:
        """Returns soon, however busy the sandbox is."""
        ...

    async def open_log(self, run: str, token: str) -> ChainHead:
        """Open the worker's log in a run directory; returns where it ended before.

        Raises:
            AuditError: the worker does not see the directory, or cannot write there.
        """
        ...

    async def anchor(self, step: int) -> ChainHead:
        """Make its log durable."""
        ...

    async def resumed(self, step: int) -> None:
        """Have its log say that the run goes on after `step`."""
        ...

    async def close(self) -> None:
        """End it; never raises because it is gone already."""
        ...


class Fleet(Protocol):
    """Where workers come from."""

    async def nodes(self) -> list[Node]:
        """Those that are alive now."""
        ...

    async def start(self, node: Node, name: str) -> Worker:
        """Start a worker whose sandbox has shown that it gives what is required.

        Raises:
            SandboxError: it does not, or the node has no room.
        """
        ...
