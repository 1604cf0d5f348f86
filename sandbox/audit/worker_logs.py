"""One run, many logs: what the workers of a cluster executed, held together by the run's own log. Read `RunAudit`.

Every worker keeps a chain of its own, written beside the programs that it ran::

    runs/7b/run.db                      the run's log: `joined`, `heads`, `lost`, `resumed`, `anchored`
    runs/7b/anchors.jsonl               of that log; copy it elsewhere
    runs/7b/audit/node-a-0/audit.db     what worker node-a-0 executed

Wherever the run's log speaks of workers' logs it holds their ends, `[worker, log, count, hash]` in `chains`. So one
anchor of the run's log fixes all of them: `verify_run` compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from sandbox.audit.anchors import Anchor, anchors_of
from sandbox.audit.chain import Finding, Verification, verify
from sandbox.audit.log import AuditLog
from sandbox.audit.reader import AuditReader
from sandbox.audit.records import Body, Event
from sandbox.types import AuditError

FOLDER = "audit"
FILE = "audit.db"
TELLING = ("joined", "heads", "lost", "resumed")
"""Kinds of records that hold ends of workers' logs."""

Ranges = Sequence[tuple[int, int]]
"""Records by number: from the first to before the last."""


class ChainHead(NamedTuple):
    """Where a worker's log ended."""

    worker: str
    log: str
    """Which log: the id in its first record."""
    num_records: int
    hash: str


class WorkerLogs(Protocol):
    """The workers of a run, as their logs are concerned."""

    async def anchored(self, step: int) -> list[ChainHead]:
        """Where their logs end, made durable."""
        ...

    async def resumed(self, step: int) -> list[ChainHead]:
        """Have all say that the run goes on after `step`; where every log of the run had ended by then."""
        ...


def log_of(run: Path, worker: str) -> Path:
    return run / FOLDER / worker / FILE


def logs_of(run: Path) -> dict[str, Path]:
    """The logs of a run's workers that are there, by worker."""
    return {file.parent.name: file for file in sorted((run / FOLDER).glob(f"*/{FILE}"))}


def head_of(run: Path, worker: str) -> ChainHead:
    """The end of a log that nobody writes to.

    Raises:
        AuditError: it cannot be read.
    """
    with closing(AuditReader.open(log_of(run, worker))) as reader:
        for body in reader.records(newest=1):
            sequence = int(body["sequence"])
            return ChainHead(worker, str(body["run"]), sequence + 1, reader.hash(sequence))
    raise AuditError(f"the log of worker {worker} has lost its first record: `azr audit verify` tells what was changed")


def joined(head: ChainHead) -> Event:
    """A worker takes part from now on."""
    return Event("joined", {"worker": head.worker, "chains": [list(head)]})


def lost(head: ChainHead, used: Ranges) -> Event:
    """A worker is gone: of its records from `head` on only those in `used` were answers; its other jobs ran again."""
    return Event("lost", {"worker": head.worker, "used": [list(some) for some in used], "chains": [list(head)]})


class RunAudit:
    """The log of a run as the training loop sees it: its own, and those of its workers if it has some."""

    def __init__(self, log: AuditLog, workers: WorkerLogs | None = None) -> None:
        self._log = log
        self._workers = workers
        self.is_begun = log.is_begun
        """Whether anything was on record already."""

    async def anchor(self, step: int) -> None:
        """Make everything so far durable and note where it ends."""
        if self._workers is not None:
            heads = await self._workers.anchored(step)
            self._log.write_patiently([Event("heads", {"after_step": step, "chains": [list(head) for head in heads]})])
        self._log.anchor(step)

    async def resumed(self, step: int) -> None:
        """Record that the run goes on after `step`: what ran in later steps so far was of no consequence."""
        heads = [] if self._workers is None else await self._workers.resumed(step)
        self._log.resumed(step, [list(head) for head in heads])


class Told(NamedTuple):
    """What a record of the run's log says of a worker's log."""

    sequence: int
    head: ChainHead

    def anchor(self) -> Anchor:
        _, log, num_records, last = self.head
        return Anchor(0, log, 0, num_records, last, f"record {self.sequence} of the run's log")


def told_by(bodies: Sequence[Body]) -> list[Told]:
    """The ends of workers' logs that are told of in records of the run's log.

    Raises:
        AuditError: a record holds something else where they belong.
    """
    return [Told(int(body["sequence"]), head) for body in bodies for head in _heads(body)]


def _heads(body: Body) -> list[ChainHead]:
    try:
        return [_head(*row) for row in cast(list[list[Any]], body.get("chains", []))]
    except (TypeError, ValueError) as error:
        raise AuditError(f"record {body.get('sequence')} tells of no worker's log: {error!r:.200}") from error


def _head(worker: object, log: object, num_records: Any, last: object) -> ChainHead:
    return ChainHead(str(worker), str(log), int(num_records), str(last))


@dataclass(frozen=True, slots=True)
class RunVerification:
    """What the verifier saw of all logs of a run. They are whole as far as one can tell without findings."""

    own: Verification
    workers: dict[str, Verification]
    missing: tuple[Finding, ...]
    """Logs that the run's log tells of and that are gone."""

    @property
    def findings(self) -> list[tuple[str, Finding]]:
        """Each with the worker whose log it is of; empty for the run's own."""
        of_workers = [(name, finding) for name, found in self.workers.items() for finding in found.findings]
        return [*(("", finding) for finding in (*self.own.findings, *self.missing)), *of_workers]


def verify_run(run: Path, anchors: Path | None) -> RunVerification:
    """Check the run's own log, then every worker's log, also against what the run's log tells of it.

    Raises:
        AuditError: a file is not there or is no SQLite database; everything else is a finding.
    """
    own = verify(run / "run.db", anchors)
    told = _told(run / "run.db")
    logs = logs_of(run)
    missing = [
        Finding("missing", one.sequence, f"the log of worker {one.head.worker!r:.80} that this record tells of is gone")
        for one in {one.head.worker: one for one in told}.values()
        if one.head.worker not in logs
    ]
    workers = {name: _verified(file, [one for one in told if one.head.worker == name]) for name, file in logs.items()}
    return RunVerification(own, workers, tuple(missing))


def _told(file: Path) -> list[Told]:
    with closing(AuditReader.open(file)) as reader:
        kinds = ", ".join(f"'{kind}'" for kind in TELLING)
        return told_by(list(reader.records(f"kind IN ({kinds})")))


def _verified(file: Path, told: Sequence[Told]) -> Verification:
    beside = anchors_of(file)
    found = verify(file, beside if beside.exists() else None, [one.anchor() for one in told])
    if told:
        return found
    stray = Finding("foreign", -1, "no record of the run's log tells of this log")
    return Verification(found.run_id, found.head, found.num_anchors, found.num_after_anchor, (*found.findings, stray))
