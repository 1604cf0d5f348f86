"""What a worker does on its node, with an executor and a log of its own. It lives in an actor and does not know it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sandbox.audit.worker_logs import FOLDER, ChainHead, log_of

from azr.cluster.base import Reply
from sandbox.audit.log import Audited, AuditLog, Label
from sandbox.doctor.examine import require_isolation
from sandbox.types import AuditError, Executor, Isolation, Job

TOKEN = "token"
"""File in a run's folder of logs that shows whether a worker sees the same directory."""


class SandboxWorker:
    """Every verb but `run` and `ping` is called by one caller, in order."""

    def __init__(self, name: str, make_executor: Callable[[], Executor]) -> None:
        self._name = name
        self._executor = make_executor()
        self._log: AuditLog | None = None

    async def start(self) -> Isolation:
        """Returns when the sandbox has shown that it gives what is required.

        Raises:
            SandboxError: it does not, or does not start.
        """
        await self._executor.__aenter__()
        try:
            await require_isolation(self._executor)
        except BaseException:
            await self._executor.__aexit__(None, None, None)
            raise
        return self._executor.isolation

    async def open_log(self, run: str, token: str, *, alone: bool) -> ChainHead:
        """See `azr.cluster.base.Worker`; `alone` where the others see the file over a network."""
        folder = Path(run)
        seen = folder / FOLDER / TOKEN
        if not seen.is_file() or seen.read_text(encoding="ascii") != token:
            raise AuditError(
                f"the sandbox worker {self._name} does not see the run directory {run}: it has to lie on a file system "
                "that all nodes share, under the same path, or take `cluster.sandboxes_per_node = 0`"
            )
        file = log_of(folder, self._name)
        file.parent.mkdir(exist_ok=True)
        self._log = AuditLog.open(file, alone=alone)
        return self._head(self._log)

    async def run(self, jobs: Sequence[Job], label: Label | None) -> Reply:
        """See `azr.cluster.base.Worker`."""
        if label is None:
            return Reply(await self._executor.run(jobs), -1)
        return Reply(*await Audited(self._executor, self._opened(), label).recorded(jobs))

    async def ping(self) -> None:
        """Returns at once."""

    async def anchor(self, step: int) -> ChainHead:
        """See `azr.cluster.base.Worker`."""
        log = self._opened()
        log.anchor(step)
        return self._head(log)

    async def resumed(self, step: int) -> None:
        """See `azr.cluster.base.Worker`; a log that begins with this run has nothing to go on from."""
        log = self._opened()
        if log.is_begun:
            log.resumed(step)

    async def close(self) -> None:
        """End the sandbox and close the log."""
        await self._executor.__aexit__(None, None, None)
        if self._log is not None:
            self._log.close()

    def _opened(self) -> AuditLog:
        if self._log is None:
            raise AuditError(f"the sandbox worker {self._name} was asked to record something before it had a log")
        return self._log

    def _head(self, log: AuditLog) -> ChainHead:
        return ChainHead(self._name, log.run_id, *log.head)
