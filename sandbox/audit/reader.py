"""Reads an audit log without being able to write to it. The file may be anyone's: nothing in it is taken on trust."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar, cast
from urllib.parse import quote

from sandbox.audit.reading import blob_text, execution_of, job_of
from sandbox.audit.records import Body
from sandbox.audit.schema import require_schema
from sandbox.types import AuditError, Execution, Job

V = TypeVar("V")
PATIENCE_S = 5.0
LOCKED = (
    "a log of this run has a writer that lets nobody else in, as a sandbox worker on another node does: "
    "read it when the run has ended"
)


class Texts(dict[str, str]):
    """The texts of a log by their hashes, read when they are asked for."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__({"": ""})
        self._connection = connection

    def __missing__(self, name: str) -> str:
        with reading():
            row = self._connection.execute("SELECT content FROM blobs WHERE sha256 = ?", (name,)).fetchone()
        if row is None or not isinstance(row[0], bytes):
            raise AuditError(f"the audit log holds no text {name}: `azr audit verify` tells what was changed")
        self[name] = blob_text(row[0])
        return self[name]


class AuditReader:
    """The records of a log, by their sequence. A record is its JSON object, see `sandbox.audit.records`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, path: Path) -> Self:
        """
        Raises:
            AuditError: there is no such file, it holds no audit log, or one of another version.
        """
        connection = connect_read_only(path)
        with reading():
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"audit_schema", "executions", "blobs"} <= tables:
            raise AuditError(f"{path} holds no audit log: it was written without one, or by an older version of azr")
        with reading():
            require_schema(connection)
        return cls(connection)

    def records(self, where: str = "TRUE", *parameters: int | str, newest: int = 0) -> Iterator[Body]:
        """Records in order that meet a condition of yours over the table's columns; the `newest` ones of them only."""
        chosen = f"SELECT sequence, body FROM executions WHERE {where} ORDER BY sequence"
        if newest:
            chosen = f"SELECT * FROM ({chosen} DESC LIMIT {newest:d}) ORDER BY sequence"
        with reading():
            for sequence, text in self._connection.execute(chosen, parameters):
                yield _body(sequence, text)

    def record(self, sequence: int) -> Body:
        """
        Raises:
            AuditError: there is no such record, or it cannot be read.
        """
        for body in self.records("sequence = ?", sequence):
            return body
        raise AuditError(f"the audit log holds no record {sequence}; `azr audit list` shows which there are")

    def hash(self, sequence: int) -> str:
        with reading():
            row = self._connection.execute("SELECT hash FROM executions WHERE sequence = ?", (sequence,)).fetchone()
        return str(row[0]) if row else ""

    def holding(self, text: str) -> set[str]:
        """Hashes of the texts in which `text` occurs."""
        wanted = text.encode("utf-8", "surrogatepass")
        with reading():
            rows = self._connection.execute("SELECT sha256 FROM blobs WHERE instr(content, ?)", (wanted,))
            return {name for (name,) in rows}

    def texts(self) -> Texts:
        return Texts(self._connection)

    def job(self, body: Body, texts: Mapping[str, str]) -> Job:
        """The job of an execution's record."""
        return _told(body, lambda: job_of(body, texts))

    def execution(self, body: Body, texts: Mapping[str, str]) -> Execution:
        """What became of the job."""
        return _told(body, lambda: execution_of(body, texts))

    def close(self) -> None:
        self._connection.close()


def connect_read_only(path: Path) -> sqlite3.Connection:
    """
    Raises:
        AuditError: the file is not there or cannot be read.
    """
    if not path.is_file():
        raise AuditError(f"there is no audit log {path}")
    with reading():
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=PATIENCE_S)
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection


@contextlib.contextmanager
def reading() -> Generator[None]:
    """
    Raises:
        AuditError: for whatever SQLite says in the block.
    """
    try:
        yield
    except sqlite3.Error as error:
        if is_locked(error):
            raise AuditError(LOCKED) from error
        raise AuditError(f"the audit log cannot be read: {error}; `azr audit verify` tells what was changed") from error


def is_locked(error: sqlite3.Error) -> bool:
    """Whether somebody else holds the file; what Python itself says of a row has no code."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _body(sequence: int, text: object) -> Body:
    try:
        body: Any = json.loads(cast(str, text))
    except (TypeError, ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise AuditError(f"record {sequence} cannot be read: `azr audit verify` tells what was changed")
    return cast(Body, body)


def _told(body: Body, make: Callable[[], V]) -> V:
    try:
        return make()
    except (KeyError, TypeError, ValueError) as error:
        raise AuditError(f"record {body.get('sequence')} tells of no whole execution: {error!r:.200}") from error
