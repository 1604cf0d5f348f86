"""Reads a run's metrics: its task types, first and last values, and where the time went."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from statistics import fmean

History = Sequence[Mapping[str, float]]
"""One mapping per step, as `azr.runs.metrics.read` returns them; a key may be missing or nan at any step."""

ENDS = 5
"""Steps to average when the first and the last values of a noisy metric are compared."""

_CELL_KEY = re.compile(r"(?:propose|solve)/([^/]+)/")
_STAGE_KEY = re.compile(r"time/(?!step_s$)(\w+)_s")


def task_types(history: History) -> list[str]:
    """In the order in which they appear."""
    matches = (_CELL_KEY.match(key) for step in history for key in step)
    return list(dict.fromkeys(match[1] for match in matches if match))


def series(history: History, key: str) -> tuple[list[float], list[float]]:
    """The steps at which the key has a finite value, and those values."""
    found = [(step["step"], step[key]) for step in history if math.isfinite(step.get(key, math.nan))]
    return [step for step, _ in found], [value for _, value in found]


def first(history: History, key: str, num_values: int = 1) -> float | None:
    """Mean of the first values of the key; None if it has none."""
    values = series(history, key)[1][:num_values]
    return fmean(values) if values else None


def last(history: History, key: str, num_values: int = 1) -> float | None:
    """Mean of the last values of the key; None if it has none."""
    values = series(history, key)[1][-num_values:]
    return fmean(values) if values else None


def stages(history: History) -> list[str]:
    """Names of the timed parts of a step, in the order in which they appear."""
    matches = (_STAGE_KEY.fullmatch(key) for step in history for key in step)
    return list(dict.fromkeys(match[1] for match in matches if match))


def seconds(history: History, stage: str) -> float:
    """Seconds spent in a stage over the whole history; `step` means complete steps."""
    return sum(series(history, f"time/{stage}_s")[1])


def time_shares(history: History) -> dict[str, float]:
    """Share of the steps' time by stage; the rest is `other`. Empty if nothing was timed."""
    spent = {stage: seconds(history, stage) for stage in stages(history)}
    total = max(seconds(history, "step"), sum(spent.values()))
    if total <= 0:
        return {}
    spent["other"] = total - sum(spent.values())
    return {stage: part / total for stage, part in spent.items() if part / total >= 0.005}
