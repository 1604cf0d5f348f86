"""How rewards become advantages: one small class per estimator, all listed in `ESTIMATORS`.

All tokens of a completion get the same advantage. If all rewards that share a baseline are equal, there is nothing to
learn and the advantages are exactly 0. Standard deviations are of the population (divided
by n), and no epsilon is added to them, so scaling all rewards does not change the advantages.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from azr.types import Cell, Rollout

ROUNDING = 1e-12
"""Rewards whose spread is smaller than this share of their size are taken as equal."""
OFFICIAL_EPSILON = 1e-8
"""Under the root in the official code (verl's `masked_whiten`)."""


class Estimator(Protocol):
    """Turns the rollouts of a step into one advantage each, in their order."""

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float]: ...


class TaskRelative:
    """TRR++: (r - mean) / std within the rollout's cell, every rollout counted once.

    Absolute Zero, arXiv 2505.03335, equation 8. Cells do not affect each other.
    """

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float]:
        return _apply(rollouts, whiten, by=_cell)


class TokenWeightedTaskRelative:
    """TRR++ as the official code computes it: mean and variance over the cell's tokens, so long completions weigh more.

    With L_i tokens and N = sum of L_i: mean = sum(L_i r_i) / N, var = sum(L_i (r_i - mean)^2) / (N - 1),
    A_i = (r_i - mean) / sqrt(var + 1e-8). Lengths (100, 1000) and rewards (1, -0.5) give (3.16, -0.32).
    """

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float]:
        return _apply(rollouts, self._whiten, by=_cell)

    def _whiten(self, rollouts: Sequence[Rollout]) -> list[float]:
        rewards = [rollout.reward for rollout in rollouts]
        lengths = [rollout.num_tokens for rollout in rollouts]
        count = sum(lengths)
        if all_equal(rewards) or count < 2:
            return [0.0] * len(rollouts)
        mean = math.fsum(length * reward for length, reward in zip(lengths, rewards, strict=True)) / count
        squares = (length * (reward - mean) ** 2 for length, reward in zip(lengths, rewards, strict=True))
        scale = 1 / math.sqrt(math.fsum(squares) / (count - 1) + OFFICIAL_EPSILON)
        return [(reward - mean) * scale for reward in rewards]


class GlobalBaseline:
    """REINFORCE++: (r - mean) / std over all rollouts of the step (arXiv 2501.03262)."""

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float]:
        return whiten(rollouts)


class GroupRelative:
    """GRPO: (r - mean) / std within the group (arXiv 2402.03300, section 4.1.2). A group of one gets 0."""

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float]:
        return _apply(rollouts, whiten, by=_group)


class LeaveOneOut:
    """RLOO: r minus the mean reward of the others in the group (arXiv 2402.14740). A group of one gets 0."""

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float]:
        return _apply(rollouts, self._against_others, by=_group)

    def _against_others(self, rollouts: Sequence[Rollout]) -> list[float]:
        rewards = [rollout.reward for rollout in rollouts]
        if all_equal(rewards):
            return [0.0] * len(rewards)
        total, others = math.fsum(rewards), len(rewards) - 1
        return [reward - (total - reward) / others for reward in rewards]


ESTIMATORS: dict[str, Estimator] = {
    "trr++": TaskRelative(),
    "trr++-tokens": TokenWeightedTaskRelative(),
    "reinforce++": GlobalBaseline(),
    "grpo": GroupRelative(),
    "rloo": LeaveOneOut(),
}


def whiten(rollouts: Sequence[Rollout]) -> list[float]:
    """(r - mean) / std over all the rollouts given; exactly 0 when their rewards are equal."""
    rewards = [rollout.reward for rollout in rollouts]
    if all_equal(rewards):
        return [0.0] * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    deviations = [reward - mean for reward in rewards]
    std = math.hypot(*deviations) / math.sqrt(len(rewards))
    return [deviation / std for deviation in deviations]


def all_equal(rewards: Sequence[float]) -> bool:
    """True if the rewards differ by rounding at most, or if there are none."""
    if not rewards:
        return True
    low, high = min(rewards), max(rewards)
    return high - low <= ROUNDING * max(abs(low), abs(high))


def _cell(rollout: Rollout) -> Cell:
    return rollout.cell


def _group(rollout: Rollout) -> tuple[Cell, str]:
    return rollout.cell, rollout.group


def _apply(rollouts: Sequence[Rollout], estimator: Estimator, *, by: Callable[[Rollout], Hashable]) -> list[float]:
    """The estimator's advantages within each scope, back in the order of the rollouts."""
    scopes: dict[Hashable, list[int]] = defaultdict(list)
    for place, rollout in enumerate(rollouts):
        scopes[by(rollout)].append(place)
    advantages = [0.0] * len(rollouts)
    for places in scopes.values():
        for place, advantage in zip(places, estimator([rollouts[place] for place in places]), strict=True):
            advantages[place] = advantage
    return advantages
