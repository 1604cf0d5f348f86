"""The tamper-evident log of everything that the sandbox executed. Read `Audited`, then `AuditLog`.

::

    log = AuditLog.open(Path("run.db"))             # and anchors.jsonl beside it
    async with DockerExecutor(image.ensure()) as executor:
        audited = Audited(executor, log, Label("cli"))
        executions = await audited.run(jobs)        # on record before anyone sees them
    log.close()

Each record holds the SHA-256 of the one before it; an anchor holds the count and the last hash, in a file that can be
copied elsewhere. `sandbox.audit.chain.verify` finds what was changed afterwards, and says what it cannot find.

Durability: a record is committed (it survives the death of this process) before its execution is returned. It is on
the disk itself (it survives a power cut) at the next anchor, or at the next commit of anyone who writes to the same
file with `synchronous = FULL`, as a run's store does with each step.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self, Unpack, runtime_checkable

from sandbox.audit.anchors import anchors_of, append_line
from sandbox.audit.faults import busy_is_waiting, faults
from sandbox.audit.gathering import Gathering, WouldWait
from sandbox.audit.records import (
    NO_HASH,
    Blobs,
    Broken,
    Entry,
    Event,
    Executed,
    Head,
    Label,
    LabelChanges,
    Moment,
    Place,
    Span,
    canonical,
    digest,
)
from sandbox.audit.schema import SCHEMA, SCHEMA_VERSION, require_schema
from sandbox.types import AuditError, Execution, Executor, Isolation, Job, SandboxError

PATIENCE_S = 30.0
"""How long another process that writes to the file is waited for."""
CHECKPOINT_RECORDS = 4000
"""After so many, what SQLite has written ahead (some 20 MB) is copied into the file; that waits for the disk."""
MOST_AT_ONCE = 200
"""More records than these would hold up the event loop for longer than a thread costs."""
MAX_REMEMBERED = 100_000
"""Blob hashes kept in memory, so that a program that runs again and again is not written again and again."""


Row = tuple[int, str, str, str, int | None, str | None, str | None]
"""A row of `executions`."""


class AuditLog:
    """The log in one SQLite file; it shares the file with the run's other tables. Any number of processes may append.

    Raises:
        AuditError: by every method, when the disk is full or refuses; nothing is half-written, and the log can be
            opened and gone on with once there is room.
    """

    def __init__(self, connection: sqlite3.Connection, anchors: Path) -> None:
        self._connection = connection
        self._anchors = anchors
        self._turn = threading.RLock()
        self._known: set[str] = set()
        self._num_unchecked = 0
        self._gathering = Gathering(self)
        with faults("open"), self._patience():
            connection.isolation_level = None
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            self.run_id = self._install()

    @classmethod
    def open(cls, path: Path, *, alone: bool = False) -> Self:
        """The log in this file, begun when there is none; its anchors lie beside it.

        Args:
            alone: Nobody else may open the file meanwhile, not even to read: what several processes share to write
                ahead is memory of one host, so this is the only way on a network file system.
        """
        with faults("open"):
            connection = sqlite3.connect(path, check_same_thread=False)
            if alone:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        return cls(connection, anchors_of(path))

    async def append(self, entries: Sequence[Entry]) -> int:
        """Put entries on record; returns when they are: the number of the first, -1 where there is none."""
        return await self._gathering.append(entries)

    def company(self) -> contextlib.AbstractContextManager[None]:
        """While something runs that will be put on record: others may wait for it, to share a transaction."""
        return self._gathering.company()

    def write_now(self, entries: Sequence[Entry]) -> Head:
        """As `write_patiently`, but at once or not at all.

        Raises:
            WouldWait: another process writes, another thread does, there are many, or a checkpoint is due.
        """
        is_short = len(entries) <= MOST_AT_ONCE and self._num_unchecked < CHECKPOINT_RECORDS
        if not is_short or not self._turn.acquire(blocking=False):
            raise WouldWait
        try:
            with faults("write"), busy_is_waiting():
                return self._commit(entries)
        finally:
            self._turn.release()

    def write_patiently(self, entries: Sequence[Entry]) -> Head:
        """Put entries on record in one transaction, in this thread; returns the new end of the chain."""
        with faults("write"), self._turn, self._patience():
            if self._num_unchecked >= CHECKPOINT_RECORDS:
                self._checkpoint()
            return self._commit(entries)

    def anchor(self, step: int) -> None:
        """Make everything so far durable, then note count and head in the anchors file."""
        with faults("anchor"):
            with self._turn:
                self._connection.execute("PRAGMA synchronous = FULL")  # the commit syncs all commits before it as well
                try:
                    head = self.write_patiently([Event("anchored", {"after_step": step, "boot": _boot_id()})])
                finally:
                    self._connection.execute("PRAGMA synchronous = NORMAL")
            line = {
                "step": step,
                "count": head.num_records,
                "head": head.hash,
                "run": self.run_id,
                "time_s": time.time(),
            }
            append_line(self._anchors, canonical(line) + "\n")

    def resumed(self, step: int, chains: Sequence[object] = ()) -> None:
        """Record that a run goes on after `step`: executions of later steps on record so far were of no consequence.

        Args:
            chains: where the logs of the run's workers had ended, see `sandbox.worker_logs`.
        """
        ended = {"chains": list(chains)} if chains else {}
        self.write_patiently([Event("resumed", {"after_step": step, "boot": _boot_id(), **ended})])

    @property
    def head(self) -> Head:
        with faults("read"), self._turn:
            return self._head()

    @property
    def is_begun(self) -> bool:
        """Whether anything is on record beside the first record."""
        return self.head.num_records > 1

    def close(self) -> None:
        with self._turn:
            self._connection.close()

    def _checkpoint(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # nothing is lost; a disk that is full is told by the next commit
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._num_unchecked = 0

    def _commit(self, entries: Sequence[Entry]) -> Head:
        with self._transaction():
            head = self._head()
            blobs: Blobs = {}
            rows: list[Row] = []
            for entry in entries:
                row = _row(entry, self.run_id, head, blobs)
                rows.append(row)
                head = Head(head.num_records + 1, row[1])
            unknown = blobs.keys() - self._known
            self._insert(rows, [(name, blobs[name]) for name in unknown])
        self._remember(unknown)
        self._num_unchecked += len(rows)
        return head

    def _install(self) -> str:
        """The run's id; a file without a log gets one, with a genesis record."""
        with self._transaction():
            found = self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'audit_schema'").fetchone()
            if found is None:
                for statement in SCHEMA.values():
                    self._connection.execute(statement)
                self._connection.execute("INSERT INTO audit_schema VALUES (?)", (SCHEMA_VERSION,))
                self._begin()
        require_schema(self._connection)
        row = self._connection.execute("SELECT body FROM executions WHERE sequence = 0").fetchone()
        if row is None:
            raise AuditError("the audit log has lost its first record: `azr audit verify` tells what was changed")
        return str(json.loads(row[0])["run"])

    def _begin(self) -> None:
        genesis = Event("genesis", {"boot": _boot_id()})
        self._insert([_row(genesis, secrets.token_hex(16), Head(0, NO_HASH), {})], [])

    @contextlib.contextmanager
    def _patience(self) -> Generator[None]:
        """Waits for other processes; without it a transaction begins at once or not at all."""
        self._connection.execute(f"PRAGMA busy_timeout = {1000 * PATIENCE_S:.0f}")
        try:
            yield
        finally:
            self._connection.execute("PRAGMA busy_timeout = 0")

    @contextlib.contextmanager
    def _transaction(self) -> Generator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back already after some errors
                self._connection.execute("ROLLBACK")
            raise

    def _head(self) -> Head:
        query = "SELECT sequence, hash FROM executions ORDER BY sequence DESC LIMIT 1"
        sequence, found = self._connection.execute(query).fetchone()
        return Head(sequence + 1, found)

    def _insert(self, rows: Sequence[Row], blobs: Sequence[tuple[str, bytes]]) -> None:
        self._connection.executemany("INSERT OR IGNORE INTO blobs VALUES (?, ?)", blobs)
        self._connection.executemany("INSERT INTO executions VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def _remember(self, names: set[str]) -> None:
        if len(self._known) + len(names) > MAX_REMEMBERED:
            self._known.clear()
        self._known |= names


def _row(entry: Entry, run_id: str, after: Head, blobs: Blobs) -> Row:
    text = entry.text(Place(run_id, after.num_records, after.hash), blobs)
    kind, step, purpose, status = entry.columns
    return after.num_records, digest(text.encode("ascii")), text, kind, step, purpose, status


class Recorded(NamedTuple):
    """Executions and the number of the first one's record; the others follow it."""

    executions: list[Execution]
    first: int


class Audited:
    """An executor whose executions are on record before anyone sees them."""

    def __init__(self, executor: Executor, log: AuditLog, label: Label) -> None:
        self._executor = executor
        self._log = log
        self._label = label

    @property
    def isolation(self) -> Isolation:
        return self._executor.isolation

    def labelled(self, **changes: Unpack[LabelChanges]) -> Audited:
        """The same executor and log under a changed label."""
        return Audited(self._executor, self._log, self._label.changed(changes))

    async def run(self, jobs: Sequence[Job]) -> list[Execution]:
        """
        Raises:
            SandboxError: the sandbox failed; that is on record as well.
            AuditError: the executions could not be recorded, so no verdict may be drawn from them.
        """
        return (await self.recorded(jobs)).executions

    async def recorded(self, jobs: Sequence[Job]) -> Recorded:
        """Run jobs and say where they are on record; raises as `run` does."""
        begun = Moment.now()
        try:
            with self._log.company():
                executions = await self._executor.run(jobs)
        except SandboxError as error:
            span = Span(begun, Moment.now())
            await self._log.append([Broken(self._label, job, str(error), self.isolation, span) for job in jobs])
            raise
        span = Span(begun, Moment.now())
        pairs = zip(jobs, executions, strict=True)
        first = await self._log.append([Executed(self._label, job, ran, self.isolation, span) for job, ran in pairs])
        return Recorded(executions, first)

    async def __aenter__(self) -> Self:
        await self._executor.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._executor.__aexit__(kind, error, trace)


@runtime_checkable
class Labelling(Protocol):
    """An executor that puts on record why something runs."""

    def labelled(self, **changes: Unpack[LabelChanges]) -> Executor: ...


def labelled(executor: Executor, **changes: Unpack[LabelChanges]) -> Executor:
    """The executor under a changed label; one that keeps no log is given back as it is."""
    return executor.labelled(**changes) if isinstance(executor, Labelling) else executor


def _boot_id() -> str:
    """Which boot of the host the monotonic clock belongs to; empty where the kernel does not say."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
