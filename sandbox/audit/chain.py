"""Finds what was changed in an audit log after it was written. Read `verify`.

A log that is consistent in itself may still have lost its last records, or have been rewritten from the first record
on. Truncation or a rewritten log can only be detected with an anchor that the attacker could not change. Records after
the last anchor are only as safe as the file itself.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from sandbox.audit.anchors import Anchor
from sandbox.audit.reader import connect_read_only, named_blobs
from sandbox.audit.records import NO_HASH, Body, Head, canonical, digest
from sandbox.audit.schema import COLUMNS, SCHEMA
from sandbox.types import AuditError


class Damage(NamedTuple):
    """One difference from what was written."""

    kind: str
    """`changed`, `missing`, `duplicate`, `order`, `foreign`, `chain`, `text`, `anchor`, `schema`, `file`."""
    sequence: int
    """The record where it shows; -1 if it does not belong to a record."""
    text: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found. Without damage the log is intact as far as the anchors reach."""

    run_id: str
    head: Head
    num_anchors: int
    num_after_anchor: int
    """Records after the last anchor: the newest ones of a run that still goes on or was killed."""
    damage: tuple[Damage, ...]


class StoredRecord(NamedTuple):
    """A record as stored in the file."""

    sequence: int
    hash: str
    content: bytes
    columns: tuple[object, ...]
    """The fields that the table repeats for queries."""


def verify(path: Path, anchors: Path | None) -> Verification:
    """Check every record, every text, the triggers of the tables, and the chain against the anchors.

    Raises:
        AuditError: a file does not exist, or is not an SQLite database. Everything else is reported as damage.
    """
    connection = connect_read_only(path)
    connection.text_factory = bytes  # a changed byte may make invalid UTF-8
    found = _Found()
    rows: list[tuple[int, str]] = []
    names: dict[str, int] = {}
    run_id = ""
    try:
        _check_schema(connection, found)
        for row, body in _chained(connection, found):
            run_id = run_id or str(body.get("run", ""))
            rows.append((row.sequence, row.hash))
            for name in _names(row, body, found):
                names.setdefault(name, row.sequence)
        _check_texts(connection, names, found)
        _check_pages(connection, found)
    except sqlite3.Error as error:
        found.add("file", -1, f"SQLite cannot read the whole file: {error}")
    finally:
        connection.close()
    known = _read_anchors(anchors, found) if anchors is not None else []
    _check_anchors(known, rows, run_id, found)
    covered = max((anchor.num_records for anchor in known), default=0)
    head = Head(len(rows), rows[-1][1] if rows else NO_HASH)
    return Verification(run_id, head, len(known), max(0, len(rows) - covered), tuple(found.damage))


class _Found:
    def __init__(self) -> None:
        self.damage: list[Damage] = []

    def add(self, kind: str, sequence: int, text: str) -> None:
        self.damage.append(Damage(kind, sequence, text))


def _check_schema(connection: sqlite3.Connection, found: _Found) -> None:
    """The tables and their triggers are defined as in `SCHEMA`."""
    query = "SELECT name, sql FROM sqlite_master WHERE tbl_name IN ('audit_schema', 'blobs', 'executions') AND sql > ''"
    try:
        there = {_text(name): _text(sql) for name, sql in connection.execute(query)}
    except sqlite3.Error as error:
        advice = "give a run directory, or a file written with --audit; a damaged log must be restored from a copy"
        raise AuditError(f"the file cannot be read as an SQLite database: {error}; {advice}") from error
    for name, sql in SCHEMA.items():
        if name not in there:
            found.add("schema", -1, f"{sql.split('(')[0].split(' BEFORE')[0].removeprefix('CREATE ')} is missing")
        elif there[name] != sql:
            found.add("schema", -1, f"the definition of {name} was changed")
    for name in there.keys() - SCHEMA.keys():
        found.add("schema", -1, f"{name!r:.80} was added to the log's tables")


def _check_pages(connection: sqlite3.Connection, found: _Found) -> None:
    """Everything but the records: for example wrong indexes and unused pages."""
    verdicts = [_text(row[0]) for row in connection.execute("PRAGMA integrity_check(10)")]
    if verdicts != ["ok"]:
        found.add("file", -1, f"SQLite finds damage: {'; '.join(verdicts)[:500]}")


def _chained(connection: sqlite3.Connection, found: _Found) -> Iterator[tuple[StoredRecord, Body]]:
    """Every record that can be read, after its place in the chain was checked."""
    before = StoredRecord(-1, NO_HASH, b"", ())
    run: object = None
    query = f"SELECT sequence, hash, body, {', '.join(COLUMNS)} FROM executions ORDER BY sequence"
    for sequence, stored, text, *columns in connection.execute(query):
        content = text if isinstance(text, bytes) else b""
        row = StoredRecord(sequence if isinstance(sequence, int) else -1, _text(stored), content, tuple(columns))
        body = _checked_body(row, found)
        run = body.get("run") if run is None else run
        _check_place(row, before, found)
        if body:
            _check_claims(row, body, previous=before.hash, run=run, found=found)
        yield row, body
        before = row
    if before.sequence < 0:
        found.add("missing", 0, "there are no records, not even the first one")


def _check_place(row: StoredRecord, before: StoredRecord, found: _Found) -> None:
    if row.sequence == before.sequence:
        found.add("duplicate", row.sequence, "there is a second record with this number")
    elif row.sequence != before.sequence + 1:
        found.add("missing", row.sequence, f"the records between {before.sequence} and this one are missing")


def _check_claims(row: StoredRecord, body: Body, *, previous: str, run: object, found: _Found) -> None:
    """What the record says about itself."""
    if body.get("sequence") != row.sequence:
        found.add("order", row.sequence, f"this record was written as number {body.get('sequence')!r:.40}")
    if [body.get(name) for name in COLUMNS] != [_known(value) for value in row.columns]:
        found.add("changed", row.sequence, "the columns used for queries differ from the record")
    if body.get("run") != run:
        found.add("foreign", row.sequence, f"this record belongs to another log, {body.get('run')!r:.80}")
    if body.get("previous") != previous:
        found.add("chain", row.sequence, "hash chain broken: this record does not follow the previous one")


def _checked_body(row: StoredRecord, found: _Found) -> Body:
    """The record's body; empty if it cannot be read."""
    if digest(row.content) != row.hash:
        found.add("changed", row.sequence, "the record does not match its hash")
    try:
        body: Any = json.loads(row.content)
        is_ours = isinstance(body, dict) and canonical(body).encode("ascii") == row.content
    except (ValueError, RecursionError):
        body, is_ours = {}, False
    if not is_ours:
        found.add("changed", row.sequence, "the record is not in the encoding that azr writes")
    return cast(Body, body) if isinstance(body, dict) else {}


def _names(row: StoredRecord, body: Body, found: _Found) -> list[str]:
    try:
        return [name for name in named_blobs(body) if isinstance(name, str)]  # pyright: ignore[reportUnnecessaryIsInstance]  # the file may come from anywhere
    except (AttributeError, KeyError, TypeError):
        found.add("changed", row.sequence, "the record does not have the fields of an execution")
        return []


def _check_texts(connection: sqlite3.Connection, names: dict[str, int], found: _Found) -> None:
    there: set[str] = set()
    for stored, content in connection.execute("SELECT sha256, content FROM blobs"):
        name = _text(stored)
        there.add(name)
        if not isinstance(content, bytes) or digest(content) != name:
            found.add("text", names.get(name, -1), f"the text {name!r:.70} does not match its hash")
        if name not in names:
            found.add("text", -1, f"the text {name!r:.70} is not named by any record")
    for name in names.keys() - there:
        found.add("text", names[name], f"the text {name!r:.70} is missing")


def _read_anchors(path: Path, found: _Found) -> list[Anchor]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise AuditError(f"cannot read the anchors {path}: {error.strerror}") from error
    anchors: list[Anchor] = []
    for number, line in enumerate(lines[:-1], start=1):  # a crash may have left an incomplete last line
        anchor = Anchor.read(number, line)
        if anchor is None:
            found.add("anchor", -1, f"line {number} of the anchors cannot be read")
        else:
            anchors.append(anchor)
    return anchors


def _check_anchors(anchors: list[Anchor], rows: list[tuple[int, str]], run_id: str, found: _Found) -> None:
    hashes = dict(rows)
    for anchor in anchors:
        where, last = f"the anchor of step {anchor.step} (line {anchor.line})", anchor.num_records - 1
        if anchor.run != run_id:
            found.add("anchor", -1, f"{where} belongs to another log, {anchor.run!r:.80}")
        elif anchor.num_records > len(rows):
            found.add("anchor", len(rows), f"{where} counts {anchor.num_records} records; only {len(rows)} are left")
        elif hashes.get(last) != anchor.head:
            found.add("anchor", last, f"{where} has another hash for this record: the log was rewritten")


def _known(value: object) -> object:
    return _text(value) if isinstance(value, bytes) else value


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
