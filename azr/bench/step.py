"""One verification step of the paper's size, without a model: what training waits for the sandbox. Read `play` first.

With the paper's values 192 proposals go through the gate, then 192 x 8 attempts and 192 solver answers through the
judge, by the very code that self-play uses: replies are parsed, prompts rendered, equal answers judged once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from azr.bench.answers import Kind, answered, replies
from azr.bench.counting import Counting
from azr.config import SelfplayConfig
from azr.errors import ModelFault
from azr.prompts import fence
from azr.selfplay.absolute_zero import Game, answer, fair_task
from azr.selfplay.buffer import Buffer
from azr.selfplay.clock import STAGES, StageClock
from azr.tasks.base import TaskType
from azr.types import Completion, Example, Task
from sandbox.bench import guests, machine
from sandbox.bench.programs import Row
from sandbox.types import Executor

SINGLE_RUN = ("deduction", "abduction")
NO_MESSAGE = "What does this function do?"


@dataclass(frozen=True, slots=True)
class Stage:
    """One of validate, attempt and solve."""

    wall_s: float
    completions: int
    runs: int
    needed_no_run: int
    """Completions that were decided without any run: malformed, known, deduced, repeated."""


@dataclass(frozen=True, slots=True)
class StepFigures:
    """What one step took, and what it was made of."""

    wall_s: float
    stages: dict[str, Stage]
    host_cpu_s: float
    guest_cpu_s: float
    """Supervisors and all that they forked."""
    other_cpu_s: float
    """The rest of the machine meanwhile: the engine that carries the bytes, and strangers."""
    program_cpu_s: float
    """Of `guest_cpu_s`, what the programs' own processes took, as the supervisor measured it."""
    statuses: dict[str, int]
    verdicts: dict[str, int]
    """Of all attempts and answers."""
    mix: dict[str, int]
    """Of all attempts and answers, as they were made."""


@dataclass(frozen=True, slots=True)
class Material:
    """Proposals that pass the gate, by task type, each as program, inputs and message."""

    rows: Mapping[str, tuple[Row, ...]]
    num_refused: int
    """Rows that the gate turned away while this was chosen."""


async def choose(
    rows: Sequence[Row], task_types: Mapping[str, TaskType], executor: Executor, *, selfplay: SelfplayConfig, seed: int
) -> Material:
    """A step's fair proposals of each type out of the rows; where they are too few, rows come again."""
    rng = random.Random(seed)
    game = _game(selfplay, task_types, executor, {})
    per_type = selfplay.proposals_per_type
    chosen: dict[str, tuple[Row, ...]] = {}
    num_refused = 0
    candidates = _candidates(rows, list(task_types), rng)
    for name, pool in candidates.items():
        fair: list[Row] = []
        for start in range(0, len(pool), per_type):
            batch = pool[start : start + per_type]
            tasks = await asyncio.gather(*(_gate(game, name, row) for row in batch))
            fair += [row for row, task in zip(batch, tasks, strict=True) if task is not None]
            num_refused += sum(task is None for task in tasks)
            if len(fair) >= per_type:
                break
        chosen[name] = tuple((fair * per_type)[:per_type])
    return Material(chosen, num_refused)


async def play(
    material: Material,
    task_types: Mapping[str, TaskType],
    executor: Executor,
    *,
    selfplay: SelfplayConfig,
    repeat: int,
    seed: int,
) -> StepFigures:
    """One step. Each repeat has programs and answers that the sandbox has not seen, so that nothing is remembered."""
    counting = Counting(executor)
    proposals = [
        (name, _marked(row, f"{repeat}-{index}"))
        for name, rows in material.rows.items()
        for index, row in enumerate(rows)
    ]
    rng = random.Random(f"{seed} {repeat}")
    meter = _Meter(counting)
    game = _game(selfplay, task_types, counting, {})
    with meter.stage("validate", len(proposals)):
        judged = await asyncio.gather(*(_gate(game, name, row) for name, row in proposals))
    tasks = [task for task in judged if task is not None]
    verdicts: Counter[str] = Counter()
    mix: Counter[str] = Counter()
    stages: list[tuple[Literal["attempt", "solve"], int]] = [("attempt", selfplay.group_size), ("solve", 1)]
    for stage, num_samples in stages:
        written = _written(tasks, num_samples, rng)
        mix.update(str(reply) for group in written for reply, _ in group)
        game = _game(selfplay, task_types, counting, _by_prompt(tasks, written, task_types))
        with meter.stage(stage, len(tasks) * num_samples):
            groups = await answer(game, tasks, num_samples=num_samples, clock=StageClock(*STAGES), stage=stage)
        verdicts.update(str(one.outcome.verdict) for group in groups for one in group)
    return meter.figures(verdicts, mix)


class _Meter:
    """Adds up clocks over the stages; what is prepared between them is not counted."""

    def __init__(self, counting: Counting) -> None:
        self._counting = counting
        self._stages: dict[str, Stage] = {}
        self._cpu_s = [0.0, 0.0, 0.0]

    @contextmanager
    def stage(self, name: str, completions: int) -> Generator[None]:
        counting = self._counting
        guest_pids = guests.pids(counting)
        before, runs, askers = _cpu_now(guest_pids), counting.runs, counting.askers
        started = time.perf_counter()
        yield
        wall_s = time.perf_counter() - started
        spent = [after - earlier for after, earlier in zip(_cpu_now(guest_pids), before, strict=True)]
        self._cpu_s = [total + one for total, one in zip(self._cpu_s, spent, strict=True)]
        asked = counting.askers - askers
        self._stages[name] = Stage(wall_s, completions, counting.runs - runs, completions - asked)

    def figures(self, verdicts: Counter[str], mix: Counter[str]) -> StepFigures:
        host, guest, machine_wide = self._cpu_s
        return StepFigures(
            wall_s=sum(stage.wall_s for stage in self._stages.values()),
            stages=self._stages,
            host_cpu_s=host,
            guest_cpu_s=guest,
            other_cpu_s=max(0.0, machine_wide - host - guest),
            program_cpu_s=self._counting.program_cpu_s,
            statuses=dict(self._counting.statuses),
            verdicts=dict(verdicts),
            mix=dict(mix),
        )


def _cpu_now(guest_pids: Sequence[int]) -> tuple[float, float, float]:
    """This process's, the guests' and the whole machine's seconds."""
    busy, _ = machine.busy_and_total()
    return time.process_time(), guests.cpu_s(guest_pids), busy / guests.TICKS_PER_S


async def _gate(game: Game, name: str, row: Row) -> Task | None:
    """The proposal as a policy would write it, read and validated; None when it is no fair task."""
    task_type = game.task_types[name]
    reference = Task(name, row.program, (Example("1", "1"),), message="")
    try:
        proposal = task_type.parse_proposal(proposal_reply(name, row), [reference])
        return await fair_task(game, task_type, proposal)
    except ModelFault:
        return None


def proposal_reply(name: str, row: Row) -> str:
    """A proposer's reply: program and input, or inputs and message."""
    inputs = [fence(text, "input") for text in row.inputs]
    if name in SINGLE_RUN:
        return answered(fence(row.program, "python"), inputs[0])
    return answered(*inputs, fence(row.message or NO_MESSAGE, "message"))


def _candidates(rows: Sequence[Row], names: Sequence[str], rng: random.Random) -> dict[str, list[Row]]:
    """Rows that can be proposed, by type, in random order; deduction and abduction get different ones."""
    single = [row for row in rows if len(row.inputs) == 1]
    several = [row for row in rows if len(row.inputs) > 1]
    if not single:
        single = [Row(row.program, (text,), row.message) for row in several for text in row.inputs]
    for pool in (single, several):
        rng.shuffle(pool)
    singles = [name for name in names if name in SINGLE_RUN]
    return {
        name: single[singles.index(name) :: len(singles)] if name in singles else several
        for name in names
        if name in singles or several
    }


def _marked(row: Row, mark: str) -> Row:
    return Row(f"{row.program}\n# {mark}", row.inputs, row.message)


def _written(tasks: Sequence[Task], num_samples: int, rng: random.Random) -> list[list[tuple[Kind, str]]]:
    """A policy's replies to each task."""
    by_type: dict[str, list[Task]] = {}
    for task in tasks:
        by_type.setdefault(task.task_type, []).append(task)
    return [[(r.kind, r.text) for r in replies(task, by_type[task.task_type], num_samples, rng)] for task in tasks]


Scripts = dict[str, deque[list[str]]]
"""Replies by prompt; tasks that look alike take theirs in order."""


def _by_prompt(
    tasks: Sequence[Task], written: Sequence[Sequence[tuple[Kind, str]]], task_types: Mapping[str, TaskType]
) -> Scripts:
    scripts: Scripts = {}
    for task, group in zip(tasks, written, strict=True):
        prompt = task_types[task.task_type].solve_prompt(task)
        scripts.setdefault(prompt, deque()).append([text for _, text in group])
    return scripts


def _game(selfplay: SelfplayConfig, task_types: Mapping[str, TaskType], executor: Executor, scripts: Scripts) -> Game:
    """A game whose policy says at once what the scripts say."""

    async def generate(prompts: Sequence[str], num_samples: int, stream: str = "") -> list[list[Completion]]:
        del stream
        texts = [scripts[prompt].popleft() for prompt in prompts]
        assert all(len(group) == num_samples for group in texts)
        return [[Completion(text, (), (), (), is_truncated=False) for text in group] for group in texts]

    return Game(
        config=selfplay,
        task_types=task_types,
        generate=generate,
        executor=executor,
        buffer=Buffer(tuple(task_types), capacity=1),
        rng=random.Random(0),
        fits=lambda text: bool(text),
    )
