"""A run that does not fit is refused, and the setting that the refusal names does fit."""

from __future__ import annotations

from typing import Any

import pytest

from azr.config import Config
from azr.sizing.architecture import PUBLISHED
from azr.sizing.fit import Setting, explained, remedy, shortfall, with_setting
from azr.sizing.hardware import GIB
from tests.sizing.builders import QWEN_7B, colocated, spread

FITTING = {"sampling": {"max_prompt_tokens": 512, "max_new_tokens": 512}}


def named(config: Config, *, gpu_gib: float) -> str:
    return str(remedy(config, QWEN_7B, gpu_gib=gpu_gib))


def test_a_run_that_fits_lacks_nothing() -> None:
    assert shortfall(colocated(4), QWEN_7B, gpu_gib=79) is None


@pytest.mark.parametrize(
    ("config", "gpu_gib", "way"),
    [
        (colocated(4, sleeps=False), 79, "openrlhf.vllm.enable_sleep = true"),
        (spread(train={"micro_batch_size": 4}, ds={"zero_stage": 3}), 79, "openrlhf.train.micro_batch_size = 1"),
        (spread(actor={"num_gpus_per_node": 8}, vllm={"num_engines": 1}, **FITTING), 24, "openrlhf.ds.zero_stage = 3"),
        (
            spread(ds={"zero_stage": 3}, model={"gradient_checkpointing": False}),
            79,
            "model.gradient_checkpointing = true",
        ),
    ],
)
def test_a_setting_that_fits_is_named(config: Config, gpu_gib: float, way: str) -> None:
    assert shortfall(config, QWEN_7B, gpu_gib=gpu_gib) is not None
    assert named(config, gpu_gib=gpu_gib) == way


@pytest.mark.parametrize("gpu_gib", [24, 32, 40, 48, 60])
def test_the_named_setting_fits(gpu_gib: float) -> None:
    config = colocated(4)
    found = remedy(config, QWEN_7B, gpu_gib=gpu_gib)
    assert found is None or shortfall(with_setting(config, found), QWEN_7B, gpu_gib=gpu_gib) is None


def test_if_no_single_setting_suffices_none_is_named() -> None:
    assert remedy(colocated(1), QWEN_7B, gpu_gib=4) is None


def test_an_engine_whose_cache_cannot_hold_the_longest_sequence_lacks_memory() -> None:
    config = spread(vllm={"num_engines": 4, "gpu_memory_utilization": 0.22}, ds={"zero_stage": 3})
    need = shortfall(config, QWEN_7B, gpu_gib=79)
    assert need is not None
    assert need.place == "engine"
    assert need.peak < 79 * GIB


@pytest.mark.parametrize(
    ("tables", "way"),
    [
        ({}, "model.lora.rank = 64"),
        ({"model": {"path": "Qwen/Qwen2.5-7B", "lora": {"rank": 64}}}, "sampling.batch_size = 32"),
    ],
)
def test_the_local_policy_is_told_of_adapters_and_smaller_batches(tables: dict[str, Any], way: str) -> None:
    config = Config.model_validate({"model": {"path": "Qwen/Qwen2.5-7B"}, **tables})
    assert named(config, gpu_gib=60 if "model" in tables else 79) == way


def test_a_change_is_made_to_any_depth_and_the_original_stays() -> None:
    config = spread()
    other = with_setting(config, Setting("openrlhf.ds.zero_stage", 3))
    assert other.openrlhf["ds"] == {"zero_stage": 3}
    assert "ds" not in config.openrlhf


def test_the_explanation_adds_up() -> None:
    need = shortfall(colocated(2, stage=2), QWEN_7B, gpu_gib=79)
    assert need is not None
    *parts, total, available = explained(need, gpu_gib=79).values()
    assert sum(parts) == pytest.approx(total)
    assert total > available == 79


@pytest.mark.parametrize(
    ("model", "fewest"), [("Qwen2.5-3B", 2), ("Qwen2.5-7B", 3), ("Llama-3.1-8B", 3), ("Qwen2.5-14B", 6)]
)
def test_the_fewest_gpus_of_80_gb_are_those_of_the_scaling_page(model: str, fewest: int) -> None:
    def fits(gpus: int) -> bool:
        return shortfall(colocated(gpus), PUBLISHED[model], gpu_gib=79) is None

    assert next(gpus for gpus in range(1, 9) if fits(gpus)) == fewest
