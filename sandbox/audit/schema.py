"""The tables of the audit log: append-only by trigger, beside whatever else lies in the same SQLite file."""

from __future__ import annotations

import sqlite3

from sandbox.types import AuditError

SCHEMA_VERSION = 1
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
"""By name, as SQLite keeps it: the verifier compares. INSERT OR REPLACE fires no delete trigger, hence the last two."""


def require_schema(connection: sqlite3.Connection) -> None:
    """
    Raises:
        AuditError: the log was written by another version.
    """
    row = connection.execute("SELECT version FROM audit_schema").fetchone()
    if row is None or row[0] != SCHEMA_VERSION:
        raise AuditError(
            f"the audit log has schema {row and row[0]}, this version of azr reads schema {SCHEMA_VERSION}"
        )
