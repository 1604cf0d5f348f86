"""Where a step's time goes when sampling and judging run side by side."""

from __future__ import annotations

import asyncio

import pytest

from azr.selfplay.absolute_zero import sample_and_judge
from azr.selfplay.clock import StageClock
from azr.types import Cell, Completion, Prompt, Role
from tests.fakes import completion, game
from tests.selfplay.players import player

TICK_S = 0.02


def test_a_stage_that_is_entered_twice_adds_up() -> None:
    clock = StageClock()
    for _ in range(2):
        with clock.stage("solve"):
            pass
    assert list(clock.seconds()) == ["time/solve_s"]
    assert clock.seconds()["time/solve_s"] > 0


def test_a_stage_that_fails_is_timed_as_well() -> None:
    clock = StageClock()
    with pytest.raises(ZeroDivisionError), clock.stage("update"):
        raise ZeroDivisionError
    assert "time/update_s" in clock.seconds()


def test_judging_counts_only_from_the_last_sampled_batch_on() -> None:
    clock = StageClock()
    with clock.overlap("propose", "validate") as waiting:
        waiting.sampled()
    spent = clock.seconds()
    assert set(spent) == {"time/propose_s", "time/validate_s"}
    assert all(seconds >= 0 for seconds in spent.values())


def test_judging_without_any_sampling_is_all_judging() -> None:
    clock = StageClock()
    with clock.overlap("solve", "verify"):
        pass
    assert clock.seconds()["time/solve_s"] == 0


async def test_one_type_is_judged_while_the_next_one_is_sampled() -> None:
    events: list[str] = []

    class Slow:
        """A policy with one stream of work, like a GPU."""

        def __init__(self) -> None:
            self._stream = asyncio.Lock()

        async def __call__(self, prompts: list[str], num_samples: int) -> list[list[Completion]]:
            async with self._stream:
                await asyncio.sleep(TICK_S)
                events.append(f"sampled {prompts[0]}")
            return [[completion(prompt)] * num_samples for prompt in prompts]

    async def judge(place: int, answer: Completion) -> str:
        await asyncio.sleep(TICK_S / 4)
        events.append(f"judged {answer.text}")
        return f"{place}:{answer.text}"

    prompts = [Prompt(name, Cell(Role.SOLVER, name)) for name in ("deduction", "abduction", "induction")]
    overlap = StageClock().overlap("solve", "verify")
    found = await sample_and_judge(game(Slow()), prompts, judge, num_samples=1, overlap=overlap)  # pyright: ignore[reportArgumentType]
    assert [verdict for [(_, verdict)] in found] == ["0:deduction", "1:abduction", "2:induction"]
    assert events.index("judged induction") < events.index("sampled abduction")
    assert events.index("judged abduction") < events.index("sampled deduction")


async def test_no_prompts_ask_nobody() -> None:
    policy = player()

    async def judge(place: int, answer: Completion) -> str:
        return f"{place} {answer.text}"

    overlap = StageClock().overlap("solve", "verify")
    assert await sample_and_judge(game(policy), [], judge, num_samples=4, overlap=overlap) == []
    assert policy.prompts == []
