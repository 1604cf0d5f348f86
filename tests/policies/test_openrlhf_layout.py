"""Samples, ranks and engines that do not come out even are refused with numbers and a setting that works."""

from __future__ import annotations

from typing import Any

import pytest

from azr.config import Config
from azr.errors import ConfigError
from azr.policies.openrlhf.layout import require_layout
from tests.sizing.builders import colocated, spread

REJECTED: list[tuple[dict[str, Any], str]] = [
    (
        {"actor": {"num_gpus_per_node": 5}},
        "384 samples .* are not divisible by 5 ranks .*; set 4 ranks",
    ),
    (
        {"train": {"micro_batch_size": 7}},
        r"4 ranks x openrlhf.train.micro_batch_size = 7; .*openrlhf.train.micro_batch_size = 6",
    ),
    (
        {"rollout": {"micro_batch_size": 5}, "learner": {"updates_per_step": 3}},
        "in 3 optimizer steps of 128: 128 are not divisible by 4 ranks x openrlhf.rollout.micro_batch_size = 5",
    ),
    ({"vllm": {}}, "openrlhf.vllm.num_engines must be at least 1.* set 4"),
    (
        {"vllm": {"num_engines": 1, "tensor_parallel_size": 3}},
        "3 does not divide the 28 attention heads .* set it to 2",
    ),
    ({"ds": {"ring_attn_size": 3}}, "4 ranks, which is not divisible .*ring_attn_size = 3 .*; set 3 ranks"),
    ({"sampling": {"max_new_tokens": 40_000}}, "46144 tokens.*has 32768; set sampling.max_new_tokens = 26624"),
]


@pytest.mark.parametrize(("tables", "words"), REJECTED)
def test_it_is_refused_with_the_nearest_that_works(tables: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        require_layout(spread(**tables))
    assert caught.value.key


def test_engines_that_share_the_learner_s_gpus_are_as_many() -> None:
    other = {"actor": {"num_gpus_per_node": 4}, "vllm": {"num_engines": 3}, "train": {"colocate_all": True}}
    with pytest.raises(ConfigError, match=r"3 GPUs, but the learner .* has 4; set openrlhf.vllm.num_engines = 4"):
        require_layout(spread(**other))


@pytest.mark.parametrize("config", [spread(), colocated(), spread(ds={"ring_attn_size": 2})])
def test_what_comes_out_even_passes(config: Config) -> None:
    assert require_layout(config).ranks == 4


def test_batches_by_tokens_need_no_micro_batch_that_divides() -> None:
    train = {"micro_batch_size": 7, "dynamic_batch_enable": True}
    assert require_layout(spread(train=train)).is_dynamic


def test_a_model_of_unknown_shape_is_not_held_against_one() -> None:
    assert require_layout(spread(model={"path": "someone/theirs"}, sampling={"max_new_tokens": 40_000})).ranks == 4
