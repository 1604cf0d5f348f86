"""A verification step of the paper's size without a model: how long training waits for the sandbox. Read `play` first.

With the paper's values, 192 proposals are validated; then 192 x 8 attempts and 192 solver answers are verified. The
replies are scripted; task types parse, validate and verify them as in training, and equal replies are verified once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from azr.bench.programs import ProgramRow
from azr.config import SelfplayConfig
from azr.errors import InputError, Malformed, Rejected
from azr.prompts import fence
from azr.tasks.base import TaskType
from azr.types import Example, Task
from sandbox.types import Execution, Executor, Isolation, Job

THOUGHT = "Let me go through it step by step.</think> "
NO_MESSAGE = "What does this function do?"
KINDS = ("right",) * 5 + ("variant",) * 3 + ("wrong",) * 6 + ("repeated",) * 4 + ("malformed",) * 2
"""How often each kind of reply is drawn. A variant may be right but differs from the known answer, so it must run."""


@dataclass(frozen=True, slots=True)
class StageFigures:
    """One of validate, attempt and solve."""

    wall_s: float
    completions: int
    runs: int
    """How many inputs programs were called with."""


@dataclass(frozen=True, slots=True)
class StepFigures:
    """How long one step took, per stage, and the verdicts on all attempts and answers."""

    wall_s: float
    stages: dict[str, StageFigures]
    verdicts: dict[str, int]


async def play(
    rows: Sequence[ProgramRow],
    task_types: Mapping[str, TaskType],
    executor: Executor,
    *,
    selfplay: SelfplayConfig,
    repeat: int,
) -> StepFigures:
    """Play one step. Each repeat marks its programs, so that nothing is remembered from an earlier one.

    Raises:
        InputError: induction is among the types, and every program has a single input.
    """
    counting = CountingExecutor(executor)
    proposals = _proposals(rows, list(task_types), selfplay.proposals_per_type, repeat)
    stages: dict[str, StageFigures] = {}
    verdicts: Counter[str] = Counter()
    started = time.perf_counter()
    validated = await asyncio.gather(*(_validated(task_types[name], row, counting) for name, row in proposals))
    stages["validate"] = StageFigures(time.perf_counter() - started, len(proposals), counting.runs)
    tasks = [task for task in validated if task is not None]
    for stage, num_samples in (("attempt", selfplay.group_size), ("solve", 1)):
        replies = [(task, _replies(task, tasks, num_samples)) for task in tasks]
        started, runs = time.perf_counter(), counting.runs
        verifying = [_verified(task_types[task.task_type], task, group, counting) for task, group in replies]
        groups = await asyncio.gather(*verifying)
        stages[stage] = StageFigures(time.perf_counter() - started, len(tasks) * num_samples, counting.runs - runs)
        verdicts.update(verdict for group in groups for verdict in group)
    return StepFigures(sum(stage.wall_s for stage in stages.values()), stages, dict(verdicts))


class CountingExecutor:
    """Passes jobs to another executor and counts runs. It does not start or stop that executor."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self.runs = 0

    @property
    def isolation(self) -> Isolation:
        return self._inner.isolation

    async def run(self, jobs: Sequence[Job]) -> list[Execution]:
        self.runs += sum(len(job.inputs) for job in jobs)
        return await self._inner.run(jobs)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, error, trace


def _proposals(
    rows: Sequence[ProgramRow], names: Sequence[str], per_type: int, repeat: int
) -> list[tuple[str, ProgramRow]]:
    """`per_type` proposals for each task type, from the rows in turn; a row's inputs rotate when it comes again."""
    with_several = [row for row in rows if len(row.inputs) > 1]
    found: list[tuple[str, ProgramRow]] = []
    for offset, name in enumerate(names):
        pool = with_several if name == "induction" else list(rows)
        if not pool:
            raise InputError("induction tasks need programs with several inputs (`inputs`)")
        for at in range(per_type):
            row = pool[(at + offset) % len(pool)]
            turn = (at // len(pool) + offset) % len(row.inputs)
            inputs = (*row.inputs[turn:], *row.inputs[:turn])
            found.append((name, ProgramRow(f"{row.program}\n# {repeat}-{name}-{at}", inputs, row.message)))
    return found


async def _validated(task_type: TaskType, row: ProgramRow, executor: Executor) -> Task | None:
    """The row as a proposer's reply, parsed and validated; None if it is not a fair task."""
    reference = Task(task_type.name, row.program, (Example("1", "1"),), message="")
    try:
        proposal = task_type.parse_proposal(proposal_reply(task_type.name, row), [reference])
        return await task_type.validate(proposal, executor)
    except (Malformed, Rejected):
        return None


async def _verified(task_type: TaskType, task: Task, replies: Sequence[str], executor: Executor) -> list[str]:
    """The verdict on each reply; equal replies are verified once."""
    different = list(dict.fromkeys(replies))
    verdicts = await asyncio.gather(*(_verdict(task_type, task, reply, executor) for reply in different))
    by_reply = dict(zip(different, verdicts, strict=True))
    return [by_reply[reply] for reply in replies]


async def _verdict(task_type: TaskType, task: Task, reply: str, executor: Executor) -> str:
    try:
        answer = task_type.parse_answer(reply)
    except Malformed:
        return "malformed"
    return str((await task_type.verify(task, answer, executor)).verdict)


def proposal_reply(name: str, row: ProgramRow) -> str:
    """A proposer's reply: program and input, or inputs and message."""
    inputs = [fence(text, "input") for text in row.inputs]
    if name != "induction":
        return _tagged(fence(row.program, "python"), inputs[0])
    return _tagged(*inputs, fence(row.message or NO_MESSAGE, "message"))


def _replies(task: Task, tasks: Sequence[Task], count: int) -> list[str]:
    """`count` solver replies to a task; wrong ones are the answers to other tasks of its type."""
    rng = random.Random(task.program)
    others = [other for other in tasks if other.task_type == task.task_type]
    found: list[str] = []
    for kind in rng.choices(KINDS, k=count):
        found.append(rng.choice(found) if kind == "repeated" and found else _reply(kind, task, rng.choice(others)))
    return found


def _reply(kind: str, task: Task, other: Task) -> str:
    if kind == "malformed":
        return f"{THOUGHT}The answer is 7."
    source = task if kind == "right" else other
    if task.task_type == "deduction":
        return _tagged(fence(source.examples[0].output, "output"))
    if task.task_type == "abduction":
        return _tagged(fence(source.examples[0].input, "input"))
    program = f"{task.program}\n# written differently" if kind == "variant" else source.program
    return _tagged(fence(program, "python"))


def _tagged(*blocks: str) -> str:
    return f"{THOUGHT}<answer>{chr(10).join(blocks)}</answer>"
