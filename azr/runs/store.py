"""run.db: every task and every rollout of a run, written in one transaction a step.

Model text may hold NUL or lone surrogates, which SQLite's TEXT cannot carry faithfully. Such text, and only such, is
stored as a BLOB of its UTF-8 bytes (surrogates passed through); `RunStore.rows` gives the same string back for both.

The table name `executions` is reserved for the audit log.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from azr.errors import RunError
from azr.runs.files import disk_faults
from azr.types import Rollout, Task

Column = str | int | float | bytes | None

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE tasks (
    task_id     TEXT PRIMARY KEY,
    step        INTEGER NOT NULL,  -- when it was accepted first; seed tasks have 0
    task_type   TEXT NOT NULL,
    program     TEXT NOT NULL,
    examples    TEXT NOT NULL,     -- JSON: [[input, output], ...]
    message     TEXT NOT NULL,
    rollout_id  TEXT NOT NULL,     -- the proposer's rollout; empty for a seed task
    fingerprint TEXT NOT NULL,     -- of the normalised program: equal for programs that differ in names and layout
    solve_rate  REAL               -- NULL for a seed task that was not attempted
);
CREATE INDEX tasks_by_step ON tasks (step);
CREATE TABLE prompts (prompt_hash TEXT PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE rollouts (
    rollout_id   TEXT PRIMARY KEY,
    step         INTEGER NOT NULL,
    role         TEXT NOT NULL,
    task_type    TEXT NOT NULL,
    group_id     TEXT NOT NULL,
    prompt_hash  TEXT NOT NULL REFERENCES prompts,
    completion   TEXT NOT NULL,
    verdict      TEXT NOT NULL,
    reason       TEXT NOT NULL,
    reward       REAL NOT NULL,
    advantage    REAL,             -- NULL where the learner did not see it
    num_tokens   INTEGER NOT NULL,
    is_truncated INTEGER NOT NULL,
    task_id      TEXT NOT NULL     -- empty for a proposal that became no task
);
CREATE INDEX rollouts_by_step ON rollouts (step);
CREATE INDEX rollouts_by_task ON rollouts (task_id);
CREATE INDEX rollouts_by_prompt ON rollouts (prompt_hash);
CREATE TABLE lineage (              -- which reference tasks a proposal was shown
    rollout_id TEXT NOT NULL REFERENCES rollouts ON DELETE CASCADE,
    task_id    TEXT NOT NULL,
    PRIMARY KEY (rollout_id, task_id)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """An accepted task and where it came from."""

    task: Task
    rollout_id: str
    """The proposer's rollout; empty for a seed task."""
    fingerprint: str
    """Hash of the normalised program."""
    solve_rate: float | None
    """None for a seed task: nobody attempted it."""


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """A rollout and what the learner made of it."""

    rollout_id: str
    rollout: Rollout
    advantage: float | None
    """None for a rollout that was not trained on."""


class RunStore:
    """The database of one run."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
        _install_schema(connection)
        self._connection = connection

    @classmethod
    def open(cls, path: Path) -> Self:
        """The store in this file, made when it is not there.

        Raises:
            RunError: the file is no database of ours, or the disk refuses.
        """
        with disk_faults(f"open {path}"):
            return cls(sqlite3.connect(path))

    def write(self, step: int, tasks: Sequence[TaskRecord], rollouts: Sequence[RolloutRecord]) -> None:
        """Record a step: all of it or, when anything fails, nothing. A task that is known already keeps its first row.

        Raises:
            RunError: the disk is full or refuses.
        """
        prompts = {_hash(record.rollout.prompt.text): record.rollout.prompt.text for record in rollouts}
        lineage = [(record.rollout_id, task_id) for record in rollouts for task_id in record.rollout.references]
        with disk_faults("write run.db"), self._connection as transaction:
            transaction.executemany(_insert("OR IGNORE", "tasks", 9), [_task_row(step, record) for record in tasks])
            transaction.executemany(
                _insert("OR IGNORE", "prompts", 2), [(key, _stored(text)) for key, text in prompts.items()]
            )
            transaction.executemany(_insert("", "rollouts", 14), [_rollout_row(step, record) for record in rollouts])
            transaction.executemany(_insert("OR IGNORE", "lineage", 2), lineage)

    def delete_after(self, step: int) -> None:
        """Forget the steps after `step`: they are about to be done again.

        Raises:
            RunError: the disk is full or refuses.
        """
        with disk_faults("write run.db"), self._connection as transaction:
            transaction.execute("DELETE FROM rollouts WHERE step > ?", (step,))
            transaction.execute("DELETE FROM tasks WHERE step > ?", (step,))
            transaction.execute("DELETE FROM prompts WHERE prompt_hash NOT IN (SELECT prompt_hash FROM rollouts)")

    def num_rollouts(self) -> int:
        """How many rollouts are on record.

        Raises:
            RunError: the database cannot be read.
        """
        with disk_faults("read run.db"):
            return int(self._connection.execute("SELECT COUNT(*) FROM rollouts").fetchone()[0])

    def rows(self, query: str, *parameters: Column) -> Iterator[dict[str, str | int | float | None]]:
        """Rows of a query of yours as dictionaries, text decoded.

        Raises:
            RunError: the query or the database is at fault.
        """
        with disk_faults("read run.db"):
            cursor = self._connection.execute(query, parameters)
            names = [column[0] for column in cursor.description]
            for row in cursor:
                yield {name: _loaded(value) for name, value in zip(names, row, strict=True)}

    def close(self) -> None:
        self._connection.close()


def _install_schema(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    elif version != SCHEMA_VERSION:
        raise RunError(f"run.db has schema {version}, this version of azr reads schema {SCHEMA_VERSION}")


def _insert(conflict: str, table: str, columns: int) -> str:
    return f"INSERT {conflict} INTO {table} VALUES ({', '.join('?' * columns)})"


def _task_row(step: int, record: TaskRecord) -> tuple[Column, ...]:
    task = record.task
    examples = json.dumps([[example.input, example.output] for example in task.examples])
    return (
        task.task_id,
        step,
        task.task_type,
        _stored(task.program),
        examples,
        _stored(task.message),
        record.rollout_id,
        record.fingerprint,
        record.solve_rate,
    )


def _rollout_row(step: int, record: RolloutRecord) -> tuple[Column, ...]:
    rollout = record.rollout
    return (
        record.rollout_id,
        step,
        rollout.cell.role.value,
        rollout.cell.task_type,
        rollout.group,
        _hash(rollout.prompt.text),
        _stored(rollout.completion.text),
        rollout.outcome.verdict.value,
        _stored(rollout.outcome.reason),
        rollout.reward,
        record.advantage,
        rollout.num_tokens,
        rollout.completion.is_truncated,
        rollout.task_id,
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _stored(text: str) -> str | bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    is_plain = b"\0" not in encoded and not any("\ud800" <= char <= "\udfff" for char in text)
    return text if is_plain else encoded


def _loaded(value: Column) -> str | int | float | None:
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value
