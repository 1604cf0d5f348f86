"""One step of Absolute Zero self-play: Algorithm 1 of arXiv 2505.03335. Read this first; it only goes down the page.

Stage by stage, each stage one batch: propose, validate, attempt, solve, verify. The update is the training loop's: this
room knows tasks and rewards, not gradients. Everything that a model wrote meets Python only inside `executor`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar, Unpack

from azr.config import SelfplayConfig
from azr.errors import Malformed, ModelFault, Rejected
from azr.selfplay.buffer import Buffer, task_key
from azr.selfplay.clock import Overlap, StageClock
from azr.selfplay.metrics import step_metrics
from azr.selfplay.rewards import proposer_reward, solve_rate, solver_reward
from azr.selfplay.rounds import Answered, Asked, Played, Proposed, Recorded
from azr.tasks.base import Proposal, TaskType
from azr.types import Cell, Completion, Outcome, Prompt, Role, Rollout, Task, Verdict
from sandbox.audit import labelled
from sandbox.records import LabelChanges
from sandbox.types import Executor

V = TypeVar("V")
Generate = Callable[[Sequence[str], int], Awaitable[list[list[Completion]]]]
"""(prompts, completions a prompt) -> completions, in the order of the prompts."""


@dataclass(frozen=True, slots=True)
class Game:
    """What a step plays with. Only `buffer` and `rng` move from step to step."""

    config: SelfplayConfig
    task_types: Mapping[str, TaskType]
    generate: Generate
    executor: Executor
    buffer: Buffer
    rng: random.Random
    fits: Callable[[str], bool]
    """Whether a prompt is short enough to be asked."""
    held_out: frozenset[str] = frozenset()
    """Keys of evaluation tasks; a proposal that is one of them is rejected."""

    def labelled(self, **label: Unpack[LabelChanges]) -> Game:
        """The same game; the audit log, where there is one, says this of its executions."""
        return replace(self, executor=labelled(self.executor, **label))


async def play_step(game: Game) -> Played:
    """Play one step of the game, up to the rewards."""
    clock = StageClock()
    proposed = await propose(game.labelled(purpose="validate"), clock)
    new_tasks = [one.task for one in proposed if one.task is not None]
    attempts = await answer(game, new_tasks, num_samples=game.config.group_size, clock=clock, stage="attempt")
    rates = [solve_rate([attempt.outcome for attempt in group]) for group in attempts]
    solve_set = draw_solve_set(game, new_tasks)
    solved = [group[0] for group in await answer(game, solve_set, num_samples=1, clock=clock, stage="solve")]
    for task in new_tasks:
        game.buffer.add(task)
    records = record(game, proposed, rates=rates, attempts=attempts, solved=solved)
    metrics = step_metrics(proposed, rates=rates, attempts=attempts, records=records)
    sizes = {f"buffer/{name}/size": float(len(pool)) for name, pool in game.buffer.pools.items()}
    return Played(records, tuple(zip(new_tasks, rates, strict=True)), {**metrics, **sizes, **clock.seconds()})


async def propose(game: Game, clock: StageClock) -> list[Proposed]:
    """B proposals a type through the gate; duplicates are told apart afterwards, in order."""
    asked = ask(game)

    async def gate(index: int, completion: Completion) -> tuple[Outcome, Task | None]:
        return await gate_one(game, asked[index], completion)

    prompts = [one.prompt for one in asked]
    judged = await sample_and_judge(game, prompts, gate, num_samples=1, overlap=clock.overlap("propose", "validate"))
    return tell_duplicates(game, [Gated(one, *judgement) for one, [judgement] in zip(asked, judged, strict=True)])


class Gated(NamedTuple):
    """A proposal with the gate's judgement."""

    asked: Asked
    completion: Completion
    judgement: tuple[Outcome, Task | None]


def tell_duplicates(game: Game, gated: Sequence[Gated]) -> list[Proposed]:
    """A duplicate is in the buffer, or was proposed before in this step."""
    proposed: list[Proposed] = []
    seen: set[str] = set()
    for asked, completion, (outcome, task) in gated:
        key = f"{task.task_type} {task_key(task)}" if task is not None else ""
        is_duplicate = task is not None and (key in seen or game.buffer.holds(task))
        if is_duplicate and game.config.duplicates == "rejected":
            outcome, task = Outcome(Verdict.REJECTED, "duplicate"), None
        if task is not None:
            seen.add(key)
        proposed.append(Proposed(asked, completion, outcome, task, is_duplicate))
    return proposed


async def sample_and_judge(
    game: Game,
    prompts: Sequence[Prompt],
    judge: Callable[[int, Completion], Awaitable[V]],
    *,
    num_samples: int,
    overlap: Overlap,
) -> list[list[tuple[Completion, V]]]:
    """`num_samples` judged completions a prompt: one batch a task type, each judged while the next one is sampled.

    The sandbox works while the policy does. The last type goes first: induction's programs run most, so that most of
    them run behind the other types' sampling. `judge` gets the prompt's place and one completion.
    """
    found: dict[int, list[tuple[Completion, V]]] = {}

    async def play(places: Sequence[int]) -> None:
        groups = await game.generate([prompts[place].text for place in places], num_samples)
        waiting.sampled()
        pairs = [(place, completion) for place, group in zip(places, groups, strict=True) for completion in group]
        verdicts = iter(await asyncio.gather(*(judge(place, completion) for place, completion in pairs)))
        found.update({p: [(c, next(verdicts)) for c in group] for p, group in zip(places, groups, strict=True)})

    lanes = [[i for i, p in enumerate(prompts) if p.cell.task_type == name] for name in reversed(list(game.task_types))]
    with overlap as waiting:
        await asyncio.gather(*(play(places) for places in lanes if places))
    return [found[place] for place in range(len(prompts))]


def ask(game: Game) -> list[Asked]:
    """B propose prompts a type, each with its own references; one that is too long even with one of them is dropped."""
    asked = [
        _ask_one(game, task_type)
        for task_type in game.task_types.values()
        for _ in range(game.config.proposals_per_type)
    ]
    return [one for one in asked if game.fits(one.prompt.text)]


def _ask_one(game: Game, task_type: TaskType) -> Asked:
    """A propose prompt with as many references as fit."""
    count = task_type.num_references(game.config.references)
    references = game.buffer.sample(task_type.reference_types, count, game.rng)
    if not references and count:  # none of these types is played in this run
        references = game.buffer.sample([task_type.name], count, game.rng)
    text = task_type.propose_prompt(references)
    while len(references) > 1 and not game.fits(text):
        references = references[:-1]
        text = task_type.propose_prompt(references)
    return Asked(Prompt(text, Cell(Role.PROPOSER, task_type.name)), tuple(references))


async def gate_one(game: Game, asked: Asked, completion: Completion) -> tuple[Outcome, Task | None]:
    """The one place where the proposer's faults become outcomes."""
    task_type = game.task_types[asked.prompt.cell.task_type]
    try:
        proposal = task_type.parse_proposal(completion.text, asked.references)
        task = await fair_task(game, task_type, proposal)
    except Malformed as fault:
        return Outcome(Verdict.MALFORMED, fault.reason), None
    except ModelFault as fault:
        return Outcome(Verdict.REJECTED, fault.reason), None
    return Outcome(Verdict.ACCEPTED, ""), task


async def fair_task(game: Game, task_type: TaskType, proposal: Proposal) -> Task:
    """A proposal as a task that this run may play.

    Raises:
        Rejected: it is no fair task, it is held out for evaluation, or its prompt is too long to be asked.
        SandboxError: the sandbox failed.
    """
    task = await task_type.validate(proposal, labelled(game.executor, task_type=task_type.name))
    if task_key(task) in game.held_out:
        raise Rejected("held_out")
    if not game.fits(task_type.solve_prompt(task)):
        raise Rejected("prompt_too_long")
    return task


async def answer(
    game: Game, tasks: Sequence[Task], *, num_samples: int, clock: StageClock, stage: str
) -> list[list[Answered]]:
    """`num_samples` judged answers to each task. Equal answers to one task are judged once."""
    prompts = [Prompt(game.task_types[t.task_type].solve_prompt(t), Cell(Role.SOLVER, t.task_type)) for t in tasks]
    judging: dict[tuple[Task, str], asyncio.Future[Outcome]] = {}
    recorded = game.labelled(purpose=stage)

    async def judge(index: int, completion: Completion) -> Outcome:
        task = tasks[index]
        try:
            found = game.task_types[task.task_type].parse_answer(completion.text)
        except Malformed as fault:
            return Outcome(Verdict.MALFORMED, fault.reason)
        if (task, found) not in judging:
            judging[task, found] = asyncio.ensure_future(verify_one(recorded, task, found))
        return await judging[task, found]

    overlap = clock.overlap(stage, "verify")
    judged = await sample_and_judge(game, prompts, judge, num_samples=num_samples, overlap=overlap)
    return [
        [Answered(prompt, completion, task, outcome) for completion, outcome in group]
        for prompt, task, group in zip(prompts, tasks, judged, strict=True)
    ]


async def verify_one(game: Game, task: Task, answer: str) -> Outcome:
    """Judge one answer."""
    executor = labelled(game.executor, task_type=task.task_type)
    return await game.task_types[task.task_type].verify(task, answer, executor)


def draw_solve_set(game: Game, new_tasks: Sequence[Task]) -> list[Task]:
    """This step's tasks, topped up to B a type from the buffer; in `attempts` mode only the top-up is unsolved."""
    chosen: list[Task] = []
    for name in game.task_types:
        new = [task for task in new_tasks if task.task_type == name]
        missing = max(0, game.config.proposals_per_type - len(new))
        if game.config.solver_batch == "separate":
            chosen += new
        chosen += game.buffer.sample([name], missing, game.rng)
    return chosen


def record(
    game: Game,
    proposed: Sequence[Proposed],
    *,
    rates: Sequence[float],
    attempts: Sequence[Sequence[Answered]],
    solved: Sequence[Answered],
) -> tuple[Recorded, ...]:
    """Rewards: every completion of the step as a rollout, with what it earned and whether it trains."""
    remaining = iter(rates)
    records: list[Recorded] = []
    for index, one in enumerate(proposed):
        rate = next(remaining) if one.task is not None else 0.0
        records.append(_proposer_record(game.config, one, rate=rate, group=f"p{index}"))
    trains = game.config.solver_batch == "attempts"
    for index, group in enumerate(attempts):
        records += [_solver_record(attempt, group=f"a{index}", is_trained=trains) for attempt in group]
    records += [_solver_record(one, group=f"s{index}", is_trained=True) for index, one in enumerate(solved)]
    return tuple(records)


def _proposer_record(config: SelfplayConfig, one: Proposed, *, rate: float, group: str) -> Recorded:
    reward = proposer_reward(one.outcome, rate, unlearnable=config.unlearnable_reward)
    if one.is_duplicate and one.task is not None and config.duplicates == "zero":
        reward = 0.0
    task_id = one.task.task_id if one.task is not None else ""
    rollout = Rollout(one.asked.prompt, one.completion, group, one.outcome, reward, task_id)
    return Recorded(rollout, config.train_proposer, tuple(task.task_id for task in one.asked.references))


def _solver_record(one: Answered, *, group: str, is_trained: bool) -> Recorded:
    reward = solver_reward(one.outcome)
    rollout = Rollout(one.prompt, one.completion, group, one.outcome, reward, one.task.task_id)
    return Recorded(rollout, is_trained, references=())
