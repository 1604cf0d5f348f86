"""What a rollout earns: pure functions of outcomes. Source: arXiv 2505.03335, equations 4 to 6."""

from __future__ import annotations

from azr.types import Outcome, Verdict

MALFORMED_REWARD = -1.0
WRONG_REWARD = -0.5
CORRECT_REWARD = 1.0
INVALID_REWARD = -1.0
"""A proposal that is no fair task; the official code gives it the reward of a reply that cannot be read."""


def solver_reward(outcome: Outcome) -> float:
    """1 for a right answer, -0.5 for a wrong one, -1 for a reply that cannot be read (equation 6)."""
    if outcome.verdict is Verdict.CORRECT:
        return CORRECT_REWARD
    return MALFORMED_REWARD if outcome.verdict is Verdict.MALFORMED else WRONG_REWARD


def solve_rate(outcomes: list[Outcome]) -> float:
    """Share of correct attempts; 0 when there were none."""
    return sum(outcome.verdict is Verdict.CORRECT for outcome in outcomes) / max(1, len(outcomes))


def learnability(rate: float) -> float:
    """1 - solve rate, and 0 at both ends: a task that always or never is solved teaches nothing (equation 4)."""
    return 1.0 - rate if 0.0 < rate < 1.0 else 0.0


def proposer_reward(outcome: Outcome, rate: float, *, unlearnable: float) -> float:
    """The learnability of an accepted proposal, else -1.

    `unlearnable` is what an accepted proposal of learnability 0 earns: 0.0 in the paper, -0.5 in the official code.
    """
    if outcome.verdict is not Verdict.ACCEPTED:
        return INVALID_REWARD
    return learnability(rate) or unlearnable
