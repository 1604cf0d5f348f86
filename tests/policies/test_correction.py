"""What a learner does with tokens that another engine sampled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from azr.config import LearnerConfig
from azr.policies.learner import Learner
from azr.types import TrainingSample
from tests.policies.models import LEARNER, PROMPTS, drawn, policy, samples_of


def learner(folder: Path, *, samples_itself: bool, **changes: object) -> Learner:
    config = LearnerConfig.model_validate({**LEARNER.model_dump(), **changes})
    model = LlamaForCausalLM.from_pretrained(folder, attention_dropout=0.0)
    return Learner(model, config, temperature=1.0, samples_itself=samples_itself)


def shifted(samples: list[TrainingSample], by: float) -> list[TrainingSample]:
    """As if the sampler had found every token likelier than the learner does."""
    return [replace(s, sampling_logprobs=tuple(value + by for value in s.sampling_logprobs)) for s in samples]


@pytest.fixture(scope="module")
def samples(model_folder: Path) -> list[TrainingSample]:
    return samples_of(drawn(policy(model_folder), PROMPTS * 3))


def update(one: Learner, samples: list[TrainingSample]) -> dict[str, float]:
    return one.update(samples, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("updates_per_step", [1, 3])
def test_the_first_ratio_is_one_and_the_gap_is_measured(
    model_folder: Path, samples: list[TrainingSample], updates_per_step: int
) -> None:
    one = learner(model_folder, samples_itself=False, updates_per_step=updates_per_step, learning_rate=1e-9)
    metrics = update(one, shifted(samples, 0.25))
    assert metrics["ratio"] == pytest.approx(1.0, abs=1e-4)
    assert metrics["sampler_gap"] == pytest.approx(0.25, abs=1e-4)
    assert metrics["sampler_gap_max"] == pytest.approx(0.25, abs=1e-3)
    assert metrics["importance"] == pytest.approx(0.7788, abs=1e-3)
    assert metrics["importance_capped"] == 0.0
    assert metrics["sampler_kl"] > 0.01


def test_later_steps_of_an_update_take_their_ratio_against_the_policy_before_the_first(
    model_folder: Path, samples: list[TrainingSample]
) -> None:
    """Sampling logprobs that are the learner's own give the same update with and without the correction."""
    plain = learner(model_folder, samples_itself=True, updates_per_step=3)
    corrected = learner(model_folder, samples_itself=False, updates_per_step=3)
    left, right = (update(one, samples) for one in (plain, corrected))
    assert right["ratio"] == pytest.approx(left["ratio"], abs=1e-4)
    assert right["ratio"] != pytest.approx(1.0, abs=1e-4)
    assert right["loss"] == pytest.approx(left["loss"], abs=1e-5)


def test_a_step_on_shifted_logprobs_is_the_weighted_step(model_folder: Path, samples: list[TrainingSample]) -> None:
    """A shift common to all tokens scales the gradient by the common weight, and nothing else."""
    settings = {"entropy_coef": 0.0, "max_grad_norm": 1e9}
    plain = learner(model_folder, samples_itself=True, **settings)
    corrected = learner(model_folder, samples_itself=False, **settings)
    norms = [update(plain, samples)["grad_norm"], update(corrected, shifted(samples, 0.5))["grad_norm"]]
    assert norms[1] / norms[0] == pytest.approx(0.6065, rel=1e-3)


def test_tokens_far_likelier_to_the_learner_are_capped(model_folder: Path, samples: list[TrainingSample]) -> None:
    metrics = update(learner(model_folder, samples_itself=False, importance_cap=1.5), shifted(samples, -1.0))
    assert metrics["importance"] == pytest.approx(1.5)
    assert metrics["importance_capped"] == pytest.approx(1.0)


def test_a_cap_of_zero_takes_the_sampler_as_it_is(model_folder: Path, samples: list[TrainingSample]) -> None:
    off = learner(model_folder, samples_itself=False, importance_cap=0.0)
    plain = learner(model_folder, samples_itself=True)
    moved = shifted(samples, 0.25)
    assert update(off, moved) == update(plain, moved)
