"""The tables of the audit log. Triggers make them append-only; other tables may share the SQLite file."""

from __future__ import annotations

import sqlite3

from sandbox.types import AuditError

SCHEMA_VERSION = 1
COLUMNS = ("kind", "step", "purpose", "status")
"""Fields of the body that `executions` repeats for queries; the verifier compares them."""
SCHEMA = {
    "audit_schema": "CREATE TABLE audit_schema (version INTEGER NOT NULL)",
    "blobs": "CREATE TABLE blobs (sha256 TEXT PRIMARY KEY, content BLOB NOT NULL)",
    "executions": """CREATE TABLE executions (
    sequence INTEGER PRIMARY KEY,  -- 0 is the genesis record
    hash     TEXT NOT NULL,        -- SHA-256 of the body
    body     TEXT NOT NULL,        -- canonical JSON; holds the hash of the record before it
    kind     TEXT NOT NULL,        -- these four repeat fields of the body, for queries; the verifier compares
    step     INTEGER,
    purpose  TEXT,
    status   TEXT
)""",
    "executions_by_step": "CREATE INDEX executions_by_step ON executions (step)",
    **{
        f"{table}_no_{verb.lower()}": f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table}\n"
        f"BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        for table in ("executions", "blobs")
        for verb in ("UPDATE", "DELETE")
    },
    "executions_no_replace": """CREATE TRIGGER executions_no_replace BEFORE INSERT ON executions
WHEN EXISTS (SELECT 1 FROM executions WHERE sequence = NEW.sequence)
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    "blobs_no_replace": """CREATE TRIGGER blobs_no_replace BEFORE INSERT ON blobs
WHEN EXISTS (SELECT 1 FROM blobs WHERE sha256 = NEW.sha256 AND content <> NEW.content)
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
}
"""Statements by name, exactly as SQLite stores them, because the verifier compares them.

INSERT OR REPLACE does not fire delete triggers, hence the last two.
"""


def require_schema(connection: sqlite3.Connection) -> None:
    """
    Raises:
        AuditError: another version of azr wrote the log.
    """
    row = connection.execute("SELECT version FROM audit_schema").fetchone()
    if row is None or row[0] != SCHEMA_VERSION:
        raise AuditError(
            f"the audit log has schema version {row and row[0]}, but this version of azr reads {SCHEMA_VERSION} only"
        )
