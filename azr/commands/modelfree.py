"""`azr exec`, `azr validate`, `azr verify`: the sandbox, the gate and the judge without any model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from azr.commands.jsonlines import BadRow, Row, text_field, texts_field
from azr.errors import Malformed, Rejected
from azr.evaluation.heldout import read_task
from azr.tasks.base import Proposal, TaskType
from azr.tasks.source import entry_program
from azr.types import Outcome, Task, Verdict
from sandbox.audit.log import labelled
from sandbox.types import Execution, Executor, Job, Limits, Status

REASONS = frozenset([*(str(status) for status in Status), "nondeterministic"])
"""Reasons that travel as they are; any other of the gate's is reported as `malformed` with the `detail`."""


@dataclass(frozen=True, slots=True)
class Exec:
    """Runs jobs."""

    executor: Executor
    limits: Limits
    forbidden: tuple[str, ...]

    def check(self, row: Row) -> None:
        text_field(row, "program")
        texts_field(row, "inputs")
        if "entry" in row:
            text_field(row, "entry")

    async def work(self, rows: Sequence[Row]) -> list[Row]:
        executions = await self.executor.run([self._job(row) for row in rows])
        return [_execution_row(row, execution) for row, execution in zip(rows, executions, strict=True)]

    def _job(self, row: Row) -> Job:
        entry = row.get("entry", "f")
        return Job(row["program"], tuple(row["inputs"]), entry=entry, limits=self.limits, forbidden=self.forbidden)


def _execution_row(row: Row, execution: Execution) -> Row:
    results = [
        {"status": str(run.status), "value": run.value if run.ok else None, "error": run.error or None}
        for run in execution.results
    ]
    return {"id": row.get("id"), "status": str(execution.status), "results": results, "wall_s": execution.wall_s}


@dataclass(frozen=True, slots=True)
class Validate:
    """The gate: is this proposal a fair task?"""

    executor: Executor
    task_types: Mapping[str, TaskType]

    def check(self, row: Row) -> None:
        known_type(row, self.task_types)
        text_field(row, "program")
        if "inputs" in row:
            if not texts_field(row, "inputs"):
                raise BadRow("`inputs` is empty")
            text_field(row, "message") if "message" in row else None
        else:
            text_field(row, "input")

    async def work(self, rows: Sequence[Row]) -> list[Row]:
        return list(await asyncio.gather(*(self._validate(row) for row in rows)))

    async def _validate(self, row: Row) -> Row:
        task_type = self.task_types[row["task_type"]]
        inputs = tuple(row["inputs"]) if "inputs" in row else (row["input"],)
        try:
            proposal = Proposal(task_type.checked_program(row["program"]), inputs, row.get("message", ""))
            task = await task_type.validate(proposal, labelled(self.executor, task_type=task_type.name))
        except (Malformed, Rejected) as fault:
            reason = fault.reason if fault.reason in REASONS else "malformed"
            return {"id": row.get("id"), "accepted": False, "reason": reason, "detail": fault.reason, "outputs": []}
        outputs = [example.output for example in task.examples]
        return {"id": row.get("id"), "accepted": True, "reason": "ok", "outputs": outputs}


@dataclass(frozen=True, slots=True)
class Verify:
    """The judge: is this answer right?"""

    executor: Executor
    task_types: Mapping[str, TaskType]

    def check(self, row: Row) -> None:
        known_type(row, self.task_types)
        text_field(row, "program")
        text_field(row, "answer")
        try:
            read_task(row)
        except (KeyError, TypeError, ValueError) as error:
            raise BadRow(f"the task's runs cannot be read: {error}") from error

    async def work(self, rows: Sequence[Row]) -> list[Row]:
        outcomes = await asyncio.gather(*(self._verify(row) for row in rows))
        return [
            {"id": row.get("id"), "correct": outcome.verdict is Verdict.CORRECT, "reason": outcome.reason or "ok"}
            for row, outcome in zip(rows, outcomes, strict=True)
        ]

    async def _verify(self, row: Row) -> Outcome:
        task_type = self.task_types[row["task_type"]]
        try:
            answer = task_type.read_answer(row["answer"])
        except Malformed:
            return Outcome(Verdict.MALFORMED, "malformed")
        return await task_type.verify(_task(row), answer, labelled(self.executor, task_type=task_type.name))


def _task(row: Row) -> Task:
    """The row's task with its entry function called `f`, as `validate` would have made it."""
    task = read_task(row)
    try:
        return replace(task, program=entry_program(task.program))
    except Malformed:
        return task  # a deduction answer is judged by the output alone


def known_type(row: Row, task_types: Mapping[str, TaskType]) -> None:
    """Check the row's task type.

    Raises:
        BadRow: there is none, or nobody knows it.
    """
    name = text_field(row, "task_type")
    if name not in task_types:
        raise BadRow(f"`task_type` is {name!r}; known are {', '.join(task_types)}")
