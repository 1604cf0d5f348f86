"""Appends records to the SQLite file of an audit log. Read `Writer.write`."""

from __future__ import annotations

import contextlib
import errno
import json
import secrets
import sqlite3
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from sandbox.audit.records import NO_HASH, Blobs, Event, Head, Place, Record, canonical, digest
from sandbox.audit.schema import COLUMNS, SCHEMA, SCHEMA_VERSION, require_schema
from sandbox.types import AuditError

BUSY_TIMEOUT_S = 30.0
"""How long a write waits for another process that writes to the same file."""
CHECKPOINT_RECORDS = 4000
"""After so many records SQLite's write-ahead log (some 20 MB) is copied into the file, which waits for the disk."""
MAX_QUICK_RECORDS = 200
"""More records would block the event loop for too long."""
MAX_REMEMBERED = 100_000
"""Blob hashes kept in memory, so that a program that runs again and again is not written again and again."""

Row = tuple[int, str, str, Any, Any, Any, Any]
"""A row of `executions`: sequence, hash, body, and the fields of the body that are repeated for queries."""


class Writer:
    """Writes to one SQLite file, which other threads and processes may write to as well."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self._known: set[str] = set()
        self._num_unchecked = 0
        with self._busy_timeout():
            connection.isolation_level = None
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            self.run_id = self._install()

    def write(self, records: Sequence[Record]) -> Head:
        """Commit records in one transaction, all or none; returns the new end of the chain."""
        with disk_faults("write"), self._lock, self._busy_timeout():
            if self._num_unchecked >= CHECKPOINT_RECORDS:
                self._checkpoint()
            return self._commit(records)

    def write_durably(self, records: Sequence[Record]) -> Head:
        """Like `write`, but the records and all earlier ones also survive a power cut."""
        with disk_faults("write"), self._lock:
            self._connection.execute("PRAGMA synchronous = FULL")  # the commit also syncs all earlier commits
            try:
                return self.write(records)
            finally:
                self._connection.execute("PRAGMA synchronous = NORMAL")

    def write_quickly(self, records: Sequence[Record]) -> bool:
        """Like `write`, but returns False and writes nothing if that would take long or wait for another thread or
        process."""
        is_short = len(records) <= MAX_QUICK_RECORDS and self._num_unchecked < CHECKPOINT_RECORDS
        if not is_short or not self._lock.acquire(blocking=False):
            return False
        try:
            with disk_faults("write"):
                return self._committed_unless_busy(records)
        finally:
            self._lock.release()

    def _committed_unless_busy(self, records: Sequence[Record]) -> bool:
        try:
            self._commit(records)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:  # extended codes say why
                return False
            raise
        return True

    @property
    def head(self) -> Head:
        with disk_faults("read"), self._lock:
            return self._head()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _checkpoint(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # nothing is lost; if the disk is full, the next commit reports it
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._num_unchecked = 0

    def _commit(self, records: Sequence[Record]) -> Head:
        with self._transaction():
            head = self._head()
            blobs: Blobs = {}
            rows: list[Row] = []
            for record in records:
                row = _row(record, self.run_id, head, blobs)
                rows.append(row)
                head = Head(head.num_records + 1, row[1])
            unknown = blobs.keys() - self._known
            self._insert(rows, [(name, blobs[name]) for name in unknown])
        self._remember(unknown)
        self._num_unchecked += len(rows)
        return head

    def _install(self) -> str:
        """The log's id; a file without a log gets one, with a first record."""
        with self._transaction():
            found = self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'audit_schema'").fetchone()
            if found is None:
                for statement in SCHEMA.values():
                    self._connection.execute(statement)
                self._connection.execute("INSERT INTO audit_schema VALUES (?)", (SCHEMA_VERSION,))
                genesis = Event("genesis", {"boot": boot_id()})
                self._insert([_row(genesis, secrets.token_hex(16), Head(0, NO_HASH), {})], [])
        require_schema(self._connection)
        row = self._connection.execute("SELECT body FROM executions WHERE sequence = 0").fetchone()
        if row is None:
            raise AuditError("the audit log has lost its first record: `azr audit verify` shows what was changed")
        return str(json.loads(row[0])["run"])

    @contextlib.contextmanager
    def _busy_timeout(self) -> Generator[None]:
        """Wait for other processes; outside of this, a transaction begins at once or not at all."""
        self._connection.execute(f"PRAGMA busy_timeout = {1000 * BUSY_TIMEOUT_S:.0f}")
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
            with contextlib.suppress(sqlite3.Error):  # SQLite itself rolls back after some errors
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


def _row(record: Record, run_id: str, after: Head, blobs: Blobs) -> Row:
    body = record.body(Place(run_id, after.num_records, after.hash), blobs)
    text = canonical(body)
    kind, step, purpose, status = (body.get(name) for name in COLUMNS)
    return after.num_records, digest(text.encode("ascii")), text, kind, step, purpose, status


@contextlib.contextmanager
def disk_faults(doing: str) -> Generator[None]:
    """
    Raises:
        AuditError: the disk or SQLite failed in the block.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        is_full = (
            error.errno in (errno.ENOSPC, errno.EDQUOT)
            if isinstance(error, OSError)
            else getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        )
        advice = "the disk is full. Free some space, then continue with --resume" if is_full else str(error)
        raise AuditError(f"cannot {doing} the audit log: {advice}. All earlier records are intact.") from error


def boot_id() -> str:
    """The boot of the host that the monotonic clock belongs to; empty if the kernel does not report it."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
