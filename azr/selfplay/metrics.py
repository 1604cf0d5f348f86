"""What one step says about its tasks and answers; rewards and advantages are for `azr.rl.statistics`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from azr.selfplay.buffer import task_key
from azr.selfplay.rounds import Answered, Proposed, Recorded
from azr.tasks.parsing import has_thought
from azr.tasks.quality import is_trivial, message_leak, novelty, num_statements
from azr.types import Role, Rollout, Verdict


def step_metrics(
    proposed: Sequence[Proposed],
    *,
    rates: Sequence[float],
    attempts: Sequence[Sequence[Answered]],
    records: Sequence[Recorded],
) -> dict[str, float]:
    """Metrics of one step, keyed `propose/<type>/...`, `solve/<type>/...` and `tokens/generated`."""
    metrics = {"tokens/generated": float(sum(record.rollout.num_tokens for record in records))}
    by_type: dict[str, list[Proposed]] = defaultdict(list)
    for one in proposed:
        by_type[one.asked.prompt.cell.task_type].append(one)
    rates_by_type: dict[str, list[float]] = defaultdict(list)
    for group, rate in zip(attempts, rates, strict=True):
        rates_by_type[group[0].task.task_type].append(rate)
    for name, ones in by_type.items():
        metrics |= {f"propose/{name}/{key}": value for key, value in _proposals(ones, rates_by_type[name]).items()}
        solver = [r.rollout for r in records if r.rollout.cell == (Role.SOLVER, name) and r.is_trained]
        metrics |= {f"solve/{name}/{key}": value for key, value in _answers(solver).items()}
    return metrics


def _mean(values: Iterable[float]) -> float:
    """Mean, and 0 for nothing at all."""
    known = list(values)
    return fmean(known) if known else 0.0


def _proposals(proposed: Sequence[Proposed], rates: Sequence[float]) -> dict[str, float]:
    accepted = [(one, one.task) for one in proposed if one.task is not None]
    tasks = [task for _, task in accepted]
    return {
        "valid_rate": _mean(one.outcome.verdict is Verdict.ACCEPTED for one in proposed),
        "duplicates": _mean(one.is_duplicate for one in proposed),
        "distinct": len({task_key(task) for task in tasks}) / len(tasks) if tasks else 0.0,
        "learnable": sum(0 < rate < 1 for rate in rates) / len(proposed),
        "solve_rate": _mean(rates),
        "trivial": _mean(is_trivial(task) for task in tasks),
        "statements": _mean(num_statements(task.program) for task in tasks),
        "message_leak": _mean(message_leak(task) for task in tasks),
        "novelty": _mean(novelty(task.program, one.asked.references) for one, task in accepted),
    }


def _answers(rollouts: Sequence[Rollout]) -> dict[str, float]:
    return {
        "accuracy": _mean(rollout.outcome.verdict is Verdict.CORRECT for rollout in rollouts),
        "malformed": _mean(rollout.outcome.verdict is Verdict.MALFORMED for rollout in rollouts),
        "thinks": _mean(has_thought(rollout.completion.text) for rollout in rollouts),
    }
