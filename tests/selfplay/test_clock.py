"""Where a step's time goes when its stages run side by side."""

from __future__ import annotations

import pytest

from azr.selfplay.clock import StageClock


class Hands:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def __call__(self) -> float:
        return self._now_s

    def wait(self, seconds: float) -> None:
        self._now_s += seconds


def test_a_stage_that_is_entered_twice_adds_up() -> None:
    hands = Hands()
    clock = StageClock("solve", now=hands)
    for _ in range(2):
        with clock.stage("solve"):
            hands.wait(1.5)
        hands.wait(10)
    assert clock.seconds() == {"time/solve_s": 3.0}


def test_a_stage_that_fails_is_timed_as_well() -> None:
    hands = Hands()
    clock = StageClock("update", now=hands)

    def fail() -> None:
        with clock.stage("update"):
            hands.wait(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert clock.seconds() == {"time/update_s": 1.0}


def test_a_stage_that_was_not_entered_took_no_time() -> None:
    assert StageClock("solve", "verify").seconds() == {"time/solve_s": 0.0, "time/verify_s": 0.0}


def test_a_moment_belongs_to_the_first_stage_that_is_under_way() -> None:
    hands = Hands()
    clock = StageClock("propose", "validate", "attempt", now=hands)
    with clock.stage("validate"), clock.stage("attempt"):
        hands.wait(1)
        with clock.stage("propose"), clock.stage("propose"):
            hands.wait(2)
        hands.wait(4)
    assert clock.seconds() == {"time/propose_s": 2.0, "time/validate_s": 5.0, "time/attempt_s": 0.0}


def test_stages_that_end_crosswise_add_up_to_what_passed() -> None:
    hands = Hands()
    clock = StageClock("propose", "attempt", now=hands)
    early, late = clock.stage("propose"), clock.stage("attempt")
    early.__enter__()
    hands.wait(1)
    late.__enter__()
    hands.wait(2)
    early.__exit__(None, None, None)
    hands.wait(4)
    late.__exit__(None, None, None)
    assert clock.seconds() == {"time/propose_s": 3.0, "time/attempt_s": 4.0}
