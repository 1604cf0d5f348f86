"""Rollouts and training samples with only what a test is about spelled out."""

from __future__ import annotations

import random

from azr.types import Cell, Completion, Outcome, Prompt, Role, Rollout, TrainingSample, Verdict

SOLVE_DEDUCTION = Cell(Role.SOLVER, "deduction")
PROPOSE_ABDUCTION = Cell(Role.PROPOSER, "abduction")


def rollout(
    reward: float, *, cell: Cell = SOLVE_DEDUCTION, group: str = "0", num_tokens: int = 3, is_truncated: bool = False
) -> Rollout:
    completion = Completion(
        text="",
        prompt_ids=(1,),
        token_ids=(2,) * num_tokens,
        sampling_logprobs=(-1.0,) * num_tokens,
        is_truncated=is_truncated,
    )
    return Rollout(
        prompt=Prompt("", cell),
        completion=completion,
        stage="solve",
        group=group,
        outcome=Outcome(Verdict.CORRECT, ""),
        reward=reward,
        task_id="",
        references=(),
        is_trained=True,
    )


def sample(num_prompt: int, num_tokens: int, *, advantage: float = 1.0, cell: Cell = SOLVE_DEDUCTION) -> TrainingSample:
    """Token ids count up from 1, so that a place can be told from another."""
    return TrainingSample(
        cell=cell,
        prompt_ids=tuple(range(1, num_prompt + 1)),
        token_ids=tuple(range(num_prompt + 1, num_prompt + num_tokens + 1)),
        sampling_logprobs=tuple(-float(place) for place in range(1, num_tokens + 1)),
        advantage=advantage,
    )


def random_samples(count: int, *, seed: int, vocabulary: int = 12) -> list[TrainingSample]:
    """Ragged prompts and completions with plausible logprobs and advantages of both signs, from two cells."""
    rng = random.Random(seed)
    samples: list[TrainingSample] = []
    for place in range(count):
        length = rng.randint(1, 9)
        samples.append(
            TrainingSample(
                cell=(SOLVE_DEDUCTION, PROPOSE_ABDUCTION)[place % 2],
                prompt_ids=tuple(rng.randrange(vocabulary) for _ in range(rng.randint(1, 7))),
                token_ids=tuple(rng.randrange(vocabulary) for _ in range(length)),
                sampling_logprobs=tuple(rng.uniform(-4, -1) for _ in range(length)),
                advantage=rng.uniform(-2, 2),
            )
        )
    return samples
