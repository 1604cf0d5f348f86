"""Questions to a run's metrics."""

from __future__ import annotations

import math

import pytest

from azr.runs.history import first, last, series, stages, task_types, time_shares
from tests.runs.curves import STAGES, TYPES, run_history


def test_task_types_come_from_the_metrics_so_that_plugins_show_up_too() -> None:
    assert task_types([*run_history(), {"step": 21, "solve/my type/accuracy": 0.5}]) == [*TYPES, "my type"]


def test_evaluations_are_not_task_types() -> None:
    assert task_types([{"step": 0, "eval/mean": 0.5, "eval/thinks": 0.1}]) == []


def test_a_series_passes_over_steps_without_a_finite_value() -> None:
    history = [{"step": 0, "loss": 1.0}, {"step": 1}, {"step": 2, "loss": math.nan}, {"step": 3, "loss": 2.0}]
    assert series(history, "loss") == ([0, 3], [1.0, 2.0])


def test_first_and_last_average_over_the_values_that_there_are() -> None:
    history = [{"step": step, "loss": float(step)} for step in range(10)]
    assert (first(history, "loss"), last(history, "loss")) == (0, 9)
    assert (first(history, "loss", 4), last(history, "loss", 4)) == (1.5, 7.5)
    assert (first(history, "loss", 99), first(history, "nothing")) == (4.5, None)


def test_time_shares_add_up_and_name_what_no_stage_accounts_for() -> None:
    shares = time_shares(run_history())
    assert stages(run_history()) == list(STAGES)
    assert shares["update"] == pytest.approx(0.5)
    assert shares["other"] == pytest.approx(0.05)
    assert sum(shares.values()) == pytest.approx(1)


def test_untimed_steps_have_no_shares() -> None:
    assert time_shares([{"step": 1, "loss": 1.0}]) == {}
