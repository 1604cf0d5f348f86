"""Overlap does not change what a step computes, however long the calls take."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azr.selfplay.absolute_zero import Game, play_step
from azr.selfplay.episode import PlayedStep
from azr.types import Completion, Outcome, Role, Verdict
from sandbox.types import Execution, Job, SandboxBroken
from tests.fakes import (
    InProcessExecutor,
    ScriptedGenerate,
    block,
    completion,
    game,
    induction_proposal,
    proposal,
    reply,
    task,
)
from tests.selfplay.players import (
    NO_TAGS,
    WRONG_OUTPUT,
    cell_of,
    identity_or_seven,
    player,
    program,
    right_input,
    right_output,
)

TYPES = ("deduction", "abduction", "induction")
STEPS = 2


async def dawdle(rng: random.Random) -> None:
    for _ in range(rng.randrange(30)):
        await asyncio.sleep(0)


class Unsteady:
    """A policy that takes an unpredictable time. Its replies depend on `draw` alone."""

    def __init__(self, draw: Callable[[str, int, str], random.Random], latency: random.Random) -> None:
        self.streams: list[str] = []
        self._draw = draw
        self._latency = latency

    async def __call__(self, prompts: Sequence[str], num_samples: int, stream: str) -> list[list[Completion]]:
        self.streams.append(stream)
        await dawdle(self._latency)
        return [
            [
                completion(written(prompt, self._draw(prompt, place, f"{stream} {sample}")))
                for sample in range(num_samples)
            ]
            for place, prompt in enumerate(prompts)
        ]


def by_prompt(prompt: str, place: int, stream: str) -> random.Random:
    """The same words for the same prompt and sample, in whatever call they stand."""
    del place
    return random.Random(f"{prompt} {stream.rpartition(' ')[2]}")


def by_stream(prompt: str, place: int, stream: str) -> random.Random:
    """What a policy with seeds draws: its stream and the place in the call decide."""
    del prompt
    return random.Random(f"{stream} {place}")


def written(prompt: str, rng: random.Random) -> str:
    """A reply that is right, wrong, unreadable, or one of few proposals, so that some come twice."""
    cell = cell_of(prompt)
    if rng.random() < 0.15:
        return NO_TAGS
    if cell.role is Role.PROPOSER and cell.task_type == "induction":
        return induction_proposal(["1", "2", "3", str(rng.randrange(4, 7))])
    if cell.role is Role.PROPOSER:
        return proposal(program(rng.randrange(6)), rng.choice(["1", "1", "undefined"]))
    if rng.random() < 0.4:
        return WRONG_OUTPUT
    if cell.task_type == "induction":
        return reply(block("python", f"def f(x):\n    return {identity_or_seven(prompt)}"))
    return right_output(prompt) if cell.task_type == "deduction" else right_input(prompt)


class UnsteadyExecutor(InProcessExecutor):
    """A sandbox that takes its time."""

    def __init__(self, latency: random.Random) -> None:
        super().__init__()
        self._latency = latency

    async def run(self, jobs: Sequence[Job]) -> list[Execution]:
        await dawdle(self._latency)
        return await super().run(jobs)


def playing(policy: Unsteady, latency: random.Random, *, continuous: bool, **config: Any) -> Game:
    """A game with three proposals per type, and a few tasks in the buffer as references."""
    made = game(policy, executor=UnsteadyExecutor(latency), proposals_per_type=3, **config)
    for number in range(3):
        made.buffer.add(task(program(number), output="7"))
    return replace(made, batches_continuously=continuous)


def without_times(played: PlayedStep) -> tuple[Any, ...]:
    metrics = {key: value for key, value in played.metrics.items() if not key.startswith("time/")}
    return played.episodes, played.rollouts, metrics


async def played_steps(one: Game, steps: Sequence[int]) -> list[tuple[Any, ...]]:
    return [without_times(await play_step(one.labelled(step=step))) for step in steps]


CONFIGS = st.fixed_dictionaries(
    {
        "duplicates": st.sampled_from(["off", "zero", "rejected"]),
        "solver_batch": st.sampled_from(["separate", "attempts"]),
        "continuous": st.booleans(),
    }
)
SEEDS = st.integers(0, 2**32)


@given(config=CONFIGS, seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_the_same_completions_make_the_same_step(config: dict[str, Any], seed: int) -> None:
    def played(*, overlap: bool, latency: random.Random) -> tuple[list[Any], dict[str, Any], object]:
        one = playing(Unsteady(by_prompt, latency), latency, overlap=overlap, seed=seed, **config)
        steps = asyncio.run(played_steps(one, range(STEPS)))
        return steps, one.buffer.state(), one.rng.getstate()

    in_turn = played(overlap=False, latency=random.Random(0))
    assert played(overlap=True, latency=random.Random(seed)) == in_turn


@given(config=CONFIGS, seed=SEEDS)
@settings(max_examples=12, deadline=None)
def test_what_is_drawn_does_not_depend_on_which_call_is_fast(config: dict[str, Any], seed: int) -> None:
    def played(latency: random.Random) -> list[Any]:
        policy = Unsteady(by_stream, latency)
        steps = asyncio.run(played_steps(playing(policy, latency, overlap=True, **config), range(STEPS)))
        assert len(set(policy.streams)) == len(policy.streams)  # every call draws numbers of its own
        return steps

    assert played(random.Random(seed)) == played(random.Random(seed + 1))


@pytest.mark.parametrize("continuous", [True, False])
async def test_a_resumed_run_draws_what_it_would_have_drawn(continuous: bool) -> None:
    def begun(latency: random.Random) -> Game:
        return playing(Unsteady(by_stream, latency), latency, continuous=continuous, overlap=True)

    whole = await played_steps(begun(random.Random(1)), range(1, 5))
    first, second = begun(random.Random(2)), begun(random.Random(3))
    before = await played_steps(first, range(1, 3))
    second.buffer.restore(first.buffer.state())
    second.rng.setstate(first.rng.getstate())
    assert before + await played_steps(second, range(3, 5)) == whole


async def streams(*, continuous: bool, **config: Any) -> set[str]:
    policy = Unsteady(lambda _, __, ___: random.Random(3), random.Random(0))
    await play_step(playing(policy, random.Random(0), continuous=continuous, **config).labelled(step=3))
    return set(policy.streams)


async def test_streams_are_named_by_step_stage_proposal_and_type() -> None:
    places = [(place, TYPES[place // 3]) for place in range(9)]
    wanted = {f"step 3 {verb} {place} {name}" for verb in ("propose", "attempt") for place, name in places}
    assert await streams(continuous=True, overlap=True) == wanted | {f"step 3 solve {name}" for name in TYPES}


@pytest.mark.parametrize(("continuous", "overlap"), [(True, False), (False, False), (False, True)])
async def test_streams_of_whole_batches_are_named_by_step_stage_and_type(continuous: bool, overlap: bool) -> None:
    wanted = {f"step 3 {verb} {name}" for verb in ("propose", "attempt", "solve") for name in TYPES}
    assert await streams(continuous=continuous, overlap=overlap) == wanted


@given(config=CONFIGS, seed=SEEDS)
@settings(max_examples=12, deadline=None)
def test_overlap_changes_no_draw_of_a_policy_that_is_called_per_type(config: dict[str, Any], seed: int) -> None:
    def played(*, overlap: bool) -> list[Any]:
        latency = random.Random(seed)
        one = playing(Unsteady(by_stream, latency), latency, overlap=overlap, **{**config, "continuous": False})
        return asyncio.run(played_steps(one, range(STEPS)))

    assert played(overlap=True) == played(overlap=False)


class Blocked(ScriptedGenerate):
    """Does not answer `number` of its calls until another call, for which that one is not needed, was made."""

    def __init__(self, reply_to: Callable[[str, int], str], *, number: int) -> None:
        super().__init__(reply_to)
        self.num_calls = 0
        self._number = number
        self._attempted = asyncio.Event()

    async def __call__(self, prompts: Sequence[str], num_samples: int, stream: str) -> list[list[Completion]]:
        self.num_calls += 1
        if self.num_calls == self._number:
            await asyncio.wait_for(self._attempted.wait(), timeout=10)
        if "attempt" in stream:
            self._attempted.set()
        return await super().__call__(prompts, num_samples, stream)


@pytest.mark.parametrize(("continuous", "types"), [(True, ["deduction"]), (False, TYPES)])
@pytest.mark.parametrize("slow", [1, 2])
async def test_a_task_is_attempted_while_others_are_still_proposed(
    continuous: bool, types: Sequence[str], slow: int
) -> None:
    policy = Blocked(lambda prompt, _: written(prompt, random.Random(7)), number=slow)
    one = replace(game(policy, types=types, overlap=True), batches_continuously=continuous)
    played = await play_step(one)
    assert len({rollout.group for rollout in played.rollouts if rollout.stage == "propose"}) >= 2


async def test_of_two_equal_proposals_the_first_is_kept_though_it_comes_last() -> None:
    first_alone = asyncio.Event()

    class SecondIsFaster(ScriptedGenerate):
        async def __call__(self, prompts: Sequence[str], num_samples: int, stream: str) -> list[list[Completion]]:
            if "propose 0" in stream and len(prompts) == 1:
                await first_alone.wait()
            first_alone.set()
            return await super().__call__(prompts, num_samples, stream)

    usual = player(propose=proposal(program(100)))
    policy = SecondIsFaster(usual.reply_to)
    one = game(policy, types=["deduction"], overlap=True, duplicates="rejected")
    played = await play_step(replace(one, batches_continuously=True))
    outcomes = [rollout.outcome for rollout in played.rollouts if rollout.stage == "propose"]
    assert outcomes == [Outcome(Verdict.ACCEPTED, ""), Outcome(Verdict.REJECTED, "duplicate")]
    assert {rollout.group for rollout in played.rollouts} == {"p0", "p1", "a0", "s0", "s1"}


@pytest.mark.parametrize("continuous", [True, False])
async def test_a_broken_sandbox_ends_all_running_calls(continuous: bool) -> None:
    ended: list[str] = []

    class Endless(ScriptedGenerate):
        async def __call__(self, prompts: Sequence[str], num_samples: int, stream: str) -> list[list[Completion]]:
            if cell_of(prompts[0]).task_type != "abduction":
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.append(stream)
            return await super().__call__(prompts, num_samples, stream)

    policy = Endless(lambda _, __: proposal(program(100)))
    one = game(policy, executor=InProcessExecutor(SandboxBroken("it died")), overlap=True)
    with pytest.raises(SandboxBroken):
        await play_step(replace(one, batches_continuously=continuous))
    assert len(ended) == (4 if continuous else 2)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_without_overlap_the_solve_set_is_asked_once_all_attempts_are_verified() -> None:
    """Otherwise the seconds of the two stages would be counted as one."""
    latency = random.Random(0)
    policy = Unsteady(by_stream, latency)
    unfinished: list[int] = []

    class Counting(UnsteadyExecutor):
        num_running = 0

        async def run(self, jobs: Sequence[Job]) -> list[Execution]:
            self.num_running += 1
            try:
                return await super().run(jobs)
            finally:
                self.num_running -= 1

    executor = Counting(latency)

    async def generate(prompts: Sequence[str], num_samples: int, stream: str) -> list[list[Completion]]:
        if "solve" in stream:
            unfinished.append(executor.num_running)
        return await policy(prompts, num_samples, stream)

    played = playing(policy, latency, continuous=False, overlap=False)
    await play_step(replace(played, generate=generate, executor=executor))
    stages = [name for stream in policy.streams for name in ("attempt", "solve") if name in stream]
    assert stages == sorted(stages)
    assert unfinished
    assert not unfinished[0]
