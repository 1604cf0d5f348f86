"""The simulation from which the gain of overlap is told: it is the same step, and its arithmetic is right."""

from __future__ import annotations

import asyncio

import pytest

from tests.selfplay.overlap_simulation import Batching, Engine, Lengths, passed, step

SMALL = {"proposals_per_type": 6, "group_size": 4}
ENGINE = Engine(sequences=16, idle_s=0.01, loaded_s=0.02)


@pytest.mark.parametrize(
    ("sequences", "lengths", "wanted_s"),
    [
        (4, [100], 10 * 0.1 + 30 * 0.1 / 4),  # alone: 10 + 30 / 4 ms a token
        (2, [100, 100], 100 * 0.04),  # both at full load
        (1, [100, 50], 150 * 0.04),  # one after the other
        (2, [100, 50], 50 * 0.04 + 50 * 0.025),  # the longer one ends alone
    ],
)
def test_an_engine_is_as_slow_as_the_sequences_that_run(sequences: int, lengths: list[int], wanted_s: float) -> None:
    async def grow() -> None:
        batching = Batching(Engine(sequences, idle_s=0.01, loaded_s=0.03))
        await asyncio.gather(*(batching.grow(length) for length in lengths))

    assert passed(grow())[1] == pytest.approx(wanted_s)  # pyright: ignore[reportUnknownMemberType]


@pytest.mark.parametrize("duplicates", ["zero", "rejected"])
def test_overlap_is_the_same_step_in_less_virtual_time(duplicates: str) -> None:
    lengths = Lengths(300, 1.0)
    in_turn, in_turn_s = step(ENGINE, lengths, seed=0, duplicates=duplicates, **SMALL)
    overlapped, overlapped_s = step(ENGINE, lengths, seed=0, duplicates=duplicates, overlap=True, **SMALL)
    assert (overlapped.episodes, overlapped.rollouts) == (in_turn.episodes, in_turn.rollouts)
    assert overlapped_s < in_turn_s


def test_waiting_for_nothing_is_said_at_once() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="everyone waits"):
        passed(wait())
