"""One step of Absolute Zero self-play: Algorithm 1 of arXiv 2505.03335. Read this first; it only goes down the page.

Stage by stage, each stage one batch: propose, validate, attempt, solve, verify; or, with `selfplay.overlap`, each task
attempted as soon as it is through the gate. The update is the training loop's: this room knows tasks and rewards, not
gradients. Everything that a model wrote meets Python only inside `executor`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Unpack

from azr.config import SelfplayConfig
from azr.errors import Malformed, ModelFault, Rejected
from azr.selfplay.buffer import Buffer, task_key
from azr.selfplay.clock import STAGES, StageClock
from azr.selfplay.metrics import step_metrics
from azr.selfplay.rewards import proposer_reward, solve_rate, solver_reward
from azr.selfplay.rounds import Answered, Asked, Played, Proposed, Recorded, Sampled
from azr.selfplay.sampling import Generate, Stage, sample_and_judge, together
from azr.tasks.base import Proposal, TaskType
from azr.types import Cell, Completion, Outcome, Prompt, Role, Rollout, Task, Verdict
from sandbox.audit.log import labelled
from sandbox.audit.records import LabelChanges
from sandbox.types import Executor


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
    batches_continuously: bool = False
    """Whether many small calls of `generate` are as fast as one large one."""
    step: int = 0
    stream: str = ""
    """Names the random numbers of what is sampled next; see `Generate`."""

    def labelled(self, **label: Unpack[LabelChanges]) -> Game:
        """The same game; the audit log, where there is one, says this of its executions."""
        return replace(self, executor=labelled(self.executor, **label), step=label.get("step", self.step))

    def drawing(self, name: str) -> Game:
        """The same game, with random numbers of this name's own, whoever asks first."""
        return replace(self, stream=f"step {self.step} {name}")


async def play_step(game: Game) -> Played:
    """Play one step of the game, up to the rewards."""
    clock = StageClock(*STAGES)
    play = play_overlapped if game.config.overlap else play_in_turn
    proposed, attempts, solved = await play(game.labelled(purpose="validate"), ask(game), clock)
    rates = [solve_rate([one.outcome for one in group]) for group in attempts]
    new_tasks = accepted(proposed)
    for task in new_tasks:
        game.buffer.add(task)
    records = record(game, proposed, rates=rates, attempts=attempts, solved=solved)
    metrics = step_metrics(proposed, rates=rates, attempts=attempts, records=records)
    sizes = {f"buffer/{name}/size": float(len(pool)) for name, pool in game.buffer.pools.items()}
    return Played(records, tuple(zip(new_tasks, rates, strict=True)), {**metrics, **sizes, **clock.seconds()})


async def play_in_turn(game: Game, asked: Sequence[Asked], clock: StageClock) -> Sampled:
    """One stage after the other."""
    proposed = tell_duplicates(game, await propose(game, asked, clock))
    attempts = await attempt(game, accepted(proposed), clock)
    solved = await solve(game, accepted(proposed), clock)
    return Sampled(proposed, attempts, solved)


async def play_overlapped(game: Game, asked: Sequence[Asked], clock: StageClock) -> Sampled:
    """The same game, each lane attempted once it is through the gate, the solve set answered once all lanes are.

    Every call has a random stream of its own, so that what is drawn does not depend on who comes first.
    """

    async def attempt_lane(place: int, gating: Awaitable[list[Gated]]) -> list[list[Answered]]:
        tasks = accepted(tell_duplicates(game, await gating))
        return await attempt(game.drawing(f"attempt {place}"), tasks, clock)

    async with together() as group:
        gating = [
            group.create_task(propose(game.drawing(f"propose {place}"), lane, clock))
            for place, lane in enumerate(lanes_of(game, asked))
        ]
        attempting = [group.create_task(attempt_lane(place, lane)) for place, lane in enumerate(gating)]
        proposed = tell_duplicates(game, [one for lane in gating for one in await lane])
        solved = await solve(game.drawing("solve"), accepted(proposed), clock)
    return Sampled(proposed, [answers for lane in attempting for answers in lane.result()], solved)


def lanes_of(game: Game, asked: Sequence[Asked]) -> list[list[Asked]]:
    """Each proposal by itself, or those of a type together, in order.

    Together where the policy is faster so, and where duplicates are rejected: who comes second is known only then.
    """
    if game.batches_continuously and game.config.duplicates != "rejected":
        return [[one] for one in asked]
    return [[one for one in asked if one.prompt.cell.task_type == name] for name in game.task_types]


def accepted(proposed: Iterable[Proposed]) -> list[Task]:
    """The tasks among the proposals."""
    return [one.task for one in proposed if one.task is not None]


async def propose(game: Game, asked: Sequence[Asked], clock: StageClock) -> list[Gated]:
    """A completion of each propose prompt, through the gate."""

    async def gate(index: int, completion: Completion) -> tuple[Outcome, Task | None]:
        return await gate_one(game, asked[index], completion)

    prompts = [one.prompt for one in asked]
    stage = Stage("propose", "validate", clock, num_samples=1, stream=game.stream)
    judged = await sample_and_judge(game.generate, prompts, gate, stage)
    return [Gated(one, *judgement) for one, [judgement] in zip(asked, judged, strict=True)]


async def attempt(game: Game, tasks: Sequence[Task], clock: StageClock) -> list[list[Answered]]:
    """A group of answers to each task; they measure it."""
    return await answer(game, tasks, num_samples=game.config.group_size, clock=clock, stage="attempt")


async def solve(game: Game, new_tasks: Sequence[Task], clock: StageClock) -> list[Answered]:
    """An answer to each task of the solve set."""
    solve_set = draw_solve_set(game, new_tasks)
    return [group[0] for group in await answer(game, solve_set, num_samples=1, clock=clock, stage="solve")]


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

    sampled = Stage(stage, "verify", clock, num_samples=num_samples, stream=game.stream)
    judged = await sample_and_judge(game.generate, prompts, judge, sampled)
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
