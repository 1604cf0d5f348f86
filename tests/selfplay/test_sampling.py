"""Sampling and checking side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from azr.selfplay.clock import STAGES, StageClock
from azr.selfplay.sampling import SamplingPlan, sample_and_check, together
from azr.types import Cell, Completion, Prompt, Role
from sandbox.types import SandboxBroken
from tests.fakes import completion

TYPES = ("deduction", "abduction", "induction")
PROMPTS = [Prompt(name, Cell(Role.SOLVER, name)) for name in TYPES]


def plan(*, num_samples: int = 1, stream: str = "stream") -> SamplingPlan:
    return SamplingPlan("solve", "verify", StageClock(*STAGES), num_samples, stream)


class OneAtATime:
    """A policy with one stream of work, like a GPU; it says what it was asked for."""

    def __init__(self, events: list[str]) -> None:
        self._work = asyncio.Lock()
        self._events = events

    async def __call__(self, prompts: Sequence[str], num_samples: int, stream: str) -> list[list[Completion]]:
        async with self._work:
            for _ in range(8):  # as long as a check and more
                await asyncio.sleep(0)
            self._events.append(f"sampled {prompts[0]}: {stream}")
        return [[completion(f"{prompt} {sample}") for sample in range(num_samples)] for prompt in prompts]


async def test_one_type_is_checked_while_the_next_one_is_sampled() -> None:
    events: list[str] = []

    async def check(place: int, answer: Completion) -> str:
        await asyncio.sleep(0)
        events.append(f"checked {answer.text[:-2]}")
        return f"{place}: {answer.text}"

    found = await sample_and_check(OneAtATime(events), PROMPTS, check, plan())
    assert [verdict for [verdict] in found] == ["0: deduction 0", "1: abduction 0", "2: induction 0"]
    done = [event.split(":")[0] for event in events]
    assert done == [f"{did} {name}" for name in reversed(TYPES) for did in ("sampled", "checked")]


async def test_results_are_in_the_order_of_the_prompts_and_samples() -> None:
    async def check(place: int, answer: Completion) -> str:
        return f"{place}: {answer.text}"

    prompts = [PROMPTS[0], PROMPTS[2], PROMPTS[0]]
    found = await sample_and_check(OneAtATime([]), prompts, check, plan(num_samples=2))
    assert found == [
        ["0: deduction 0", "0: deduction 1"],
        ["1: induction 0", "1: induction 1"],
        ["2: deduction 0", "2: deduction 1"],
    ]


async def test_each_batch_has_a_stream_of_its_own() -> None:
    events: list[str] = []

    async def check(place: int, answer: Completion) -> str:
        return f"{place} {answer.text}"

    await sample_and_check(OneAtATime(events), [PROMPTS[0], PROMPTS[2]], check, plan(stream="s"))
    assert events == ["sampled induction: s induction", "sampled deduction: s deduction"]


async def test_without_prompts_the_policy_is_not_called() -> None:
    events: list[str] = []

    async def check(place: int, answer: Completion) -> str:
        return f"{place} {answer.text}"

    assert await sample_and_check(OneAtATime(events), [], check, plan(num_samples=4)) == []
    assert events == []


async def test_a_failing_check_ends_sampling_and_the_other_checks() -> None:
    ended: list[str] = []

    async def endless(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    class Endless(OneAtATime):
        async def __call__(self, prompts: Sequence[str], num_samples: int, stream: str) -> list[list[Completion]]:
            if prompts[0] == "deduction":
                await endless("sampling")
            return await super().__call__(prompts, num_samples, stream)

    async def check(place: int, answer: Completion) -> str:
        if answer.text == "induction 1":
            raise SandboxBroken("it died")
        await endless("checking")
        return f"{place}"

    with pytest.raises(SandboxBroken):
        await sample_and_check(Endless([]), [PROMPTS[0], PROMPTS[2]], check, plan(num_samples=2))
    assert sorted(ended) == ["checking", "sampling"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_first_failure_travels_as_itself_with_its_cause() -> None:
    async def fail() -> None:
        raise SandboxBroken("it died") from OSError("gone")

    async def play() -> None:
        async with together() as group:
            group.create_task(fail())
            group.create_task(fail())
            await asyncio.Event().wait()

    with pytest.raises(SandboxBroken) as failure:
        await play()
    assert isinstance(failure.value.__cause__, OSError)


async def test_being_cancelled_is_no_failure() -> None:
    async def play() -> None:
        async with together() as group:
            group.create_task(asyncio.Event().wait())

    playing = asyncio.create_task(play())
    await asyncio.sleep(0)
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
