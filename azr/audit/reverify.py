"""Recomputes every verdict and reward of a run from the audit log, and compares with what was trained on.

The policy's completions are read and judged once more by the very code of self-play; only the executor is another one:
it runs nothing and answers with what the log says the job gave. Not recomputed, because it takes the policy itself:
whether a prompt was too long to be asked (the tokenizer decides), and the held-out accuracy (its replies are not kept).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, cast

from azr.audit.timeline import Key, Timeline, key
from azr.errors import Malformed, RunError
from azr.runs.store import RunStore
from azr.selfplay.absolute_zero import Game, Gated, gate_one, record, tell_duplicates, verify_one
from azr.selfplay.rewards import solve_rate
from azr.selfplay.rounds import Answered, Asked, Recorded
from azr.types import Cell, Completion, Example, Outcome, Prompt, Role, Task, Verdict
from sandbox.audit.reader import AuditReader
from sandbox.types import Execution, Isolation, Job, SandboxError

V = TypeVar("V")
Row = dict[str, Any]


class Mismatch(NamedTuple):
    """A rollout that the log tells otherwise."""

    rollout_id: str
    field: str
    stored: str
    recomputed: str


@dataclass(frozen=True, slots=True)
class Reverified:
    """What came of it."""

    num_steps: int
    num_rollouts: int
    num_executions: int
    """Records of the surviving timeline that were consulted."""
    num_dropped: int
    """Records of steps that were done again after a resume."""
    mismatches: tuple[Mismatch, ...]


class NotOnRecord(SandboxError):
    """A verdict asks for an execution that the log does not hold."""


class LogExecutor:
    """Answers jobs from the log. A job that ran more than once in a step has several answers; `choice` takes one."""

    def __init__(self, executions: dict[Key, list[Execution]], choice: int) -> None:
        self._executions = executions
        self._choice = choice
        self.num_choices = 1
        """How many answers the job with most of them had."""

    @property
    def isolation(self) -> Isolation:
        raise NotImplementedError("nothing is executed")

    async def run(self, jobs: Sequence[Job]) -> list[Execution]:
        return [self._answer(job) for job in jobs]

    def _answer(self, job: Job) -> Execution:
        known = self._executions.get(key(job))
        if not known:
            raise NotOnRecord(f"no execution of this program on {'; '.join(job.inputs)!r:.80}")
        self.num_choices = max(self.num_choices, len(known))
        return known[min(self._choice, len(known) - 1)]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, error, trace


async def reverify(store: RunStore, reader: AuditReader, game: Game) -> Reverified:
    """Go through the run step by step; `game` is one with an empty buffer, whose executor and policy are not used.

    Raises:
        AuditError: the log cannot be read.
        RunError: the rollouts cannot be read.
    """
    tasks = {str(row["task_id"]): (int(str(row["step"])), _task(row)) for row in store.rows("SELECT * FROM tasks")}
    for step, task in tasks.values():
        if step == 0:
            game.buffer.add(task)
    timeline = Timeline(reader)
    mismatches: list[Mismatch] = []
    num_rollouts = num_steps = 0
    for step, rows in _steps(store):
        again = _Step(game, {name: task for name, (_, task) in tasks.items()}, timeline.executions(step))
        mismatches += await again.mismatches(rows, _references(store, step))
        num_rollouts += len(rows)
        num_steps += 1
    return Reverified(num_steps, num_rollouts, timeline.num_executions, timeline.num_dropped, tuple(mismatches))


class _Step:
    """One step, judged again."""

    def __init__(self, game: Game, tasks: dict[str, Task], executions: dict[Key, list[Execution]]) -> None:
        self._game = game
        self._tasks = tasks
        self._executions = executions
        self._found: list[Mismatch] = []

    async def mismatches(self, rows: Sequence[Row], references: dict[str, list[str]]) -> list[Mismatch]:
        """What the rows say otherwise; the step's new tasks are put into the buffer."""
        proposals = [row for row in rows if row["role"] == Role.PROPOSER]
        gated = [await self._gate(row, references.get(row["rollout_id"], [])) for row in proposals]
        proposed = tell_duplicates(self._game, gated)
        answers = [(row, await self._answer(row)) for row in rows if row["role"] == Role.SOLVER]
        attempts = _grouped(answers, "a")
        rates = [solve_rate([one.outcome for one in group]) for group in attempts]
        new_tasks = [one.task for one in proposed if one.task is not None]
        if len(rates) != len(new_tasks):
            step = str(rows[0]["step"])
            self._found.append(Mismatch(f"{step}-*", "accepted", f"{len(rates)} tasks", f"{len(new_tasks)} tasks"))
            rates = [*rates, *[0.0] * len(new_tasks)]
        solved = [group[0] for group in _grouped(answers, "s")]
        records = record(self._game, proposed, rates=rates, attempts=attempts, solved=solved)
        for row, recomputed in zip(rows, records, strict=True):
            self._compare(row, recomputed)
        for task in new_tasks:
            self._game.buffer.add(task)
        return self._found

    async def _gate(self, row: Row, references: list[str]) -> Gated:
        cell = Cell(Role.PROPOSER, row["task_type"])
        asked = Asked(Prompt(row["prompt"], cell), tuple(self._task(name) for name in references))
        completion = _completion(row)
        known = Outcome(Verdict.ACCEPTED, "") if row["reason"] == "duplicate" else _outcome(row)

        def fits(text: str) -> bool:
            del text
            return row["reason"] != "prompt_too_long"

        async def judge(executor: LogExecutor) -> tuple[Outcome, Task | None]:
            game = replace(self._game, executor=executor, fits=fits)
            return await gate_one(game, asked, completion)

        unknown = (Outcome(Verdict.REJECTED, "not on record"), None)
        judged = await self._judged(row, judge, agrees=lambda told: told[0] == known, unknown=unknown)
        return Gated(asked, completion, judged)

    async def _answer(self, row: Row) -> Answered:
        task, completion = self._task(row["task_id"]), _completion(row)

        async def judge(executor: LogExecutor) -> Outcome:
            try:
                answer = self._game.task_types[task.task_type].parse_answer(completion.text)
            except Malformed as fault:
                return Outcome(Verdict.MALFORMED, fault.reason)
            return await verify_one(replace(self._game, executor=executor), task, answer)

        unknown = Outcome(Verdict.WRONG, "not on record")
        outcome = await self._judged(row, judge, agrees=lambda told: told == _outcome(row), unknown=unknown)
        return Answered(Prompt(row["prompt"], Cell(Role.SOLVER, row["task_type"])), completion, task, outcome)

    async def _judged(
        self, row: Row, judge: Callable[[LogExecutor], Awaitable[V]], *, agrees: Callable[[V], bool], unknown: V
    ) -> V:
        """What the log gives; of a job that ran more than once and differed, the runs that agree with the rollout."""
        choice = num_choices = 0
        first = unknown
        try:
            while choice == 0 or choice < num_choices:
                executor = LogExecutor(self._executions, choice)
                told = await judge(executor)
                if agrees(told):
                    return told
                first = told if choice == 0 else first
                choice, num_choices = choice + 1, executor.num_choices
        except NotOnRecord as missing:
            self._found.append(Mismatch(row["rollout_id"], "execution", "a verdict", str(missing)))
        return first

    def _compare(self, row: Row, again: Recorded) -> None:
        rollout = again.rollout
        pairs = {
            "verdict": (row["verdict"], rollout.outcome.verdict.value),
            "reason": (row["reason"], rollout.outcome.reason),
            "reward": (float(row["reward"]), float(rollout.reward)),
            "task_id": (row["task_id"], rollout.task_id),
        }
        for field, (stored, recomputed) in pairs.items():
            if stored != recomputed:
                self._found.append(Mismatch(row["rollout_id"], field, str(stored), str(recomputed)))

    def _task(self, name: str) -> Task:
        if name not in self._tasks:
            raise RunError(f"run.db names the task {name!r:.40} and does not hold it: its tables were changed")
        return self._tasks[name]


def _steps(store: RunStore) -> Iterator[tuple[int, list[Row]]]:
    """Rollouts by step, in the order in which they were made."""
    for [step] in [row.values() for row in store.rows("SELECT DISTINCT step FROM rollouts ORDER BY step")]:
        query = "SELECT *, text AS prompt FROM rollouts JOIN prompts USING (prompt_hash) WHERE step = ?"
        rows: list[Row] = list(store.rows(query, step))
        yield cast(int, step), sorted(rows, key=lambda row: int(row["rollout_id"].rpartition("-")[2]))


def _references(store: RunStore, step: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    query = "SELECT rollout_id, task_id FROM lineage JOIN rollouts USING (rollout_id) WHERE step = ?"
    for row in store.rows(query.replace("task_id FROM", "lineage.task_id FROM"), step):
        found[str(row["rollout_id"])].append(str(row["task_id"]))
    return found


def _grouped(answers: Sequence[tuple[Row, Answered]], mark: str) -> list[list[Answered]]:
    groups: dict[str, list[Answered]] = defaultdict(list)
    for row, answered in answers:
        if str(row["group_id"]).startswith(mark):
            groups[str(row["group_id"])].append(answered)
    return list(groups.values())


def _task(row: Row) -> Task:
    examples = tuple(Example(*run) for run in json.loads(row["examples"]))
    return Task(row["task_type"], row["program"], examples, row["message"])


def _completion(row: Row) -> Completion:
    return Completion(row["completion"], (), (), (), is_truncated=bool(row["is_truncated"]))


def _outcome(row: Row) -> Outcome:
    return Outcome(Verdict(row["verdict"]), row["reason"])
