"""Seconds of a step, against sums made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from azr.config import Config
from azr.sizing.hardware import ASSUMED, GPUS, NETWORK_GB_S
from azr.sizing.step import Step, loads, plan, trained
from tests.sizing.builders import QWEN_7B, colocated, spread, topology

H100 = GPUS["h100-80gb"]


def step(config: Config, **assumed: Any) -> Step:
    known = topology(config) if config.policy.kind == "openrlhf" else None
    return plan(config, QWEN_7B, known, H100, assumed=replace(ASSUMED, **assumed))


def seconds(found: Step, name: str) -> float:
    return next(time.seconds for time in found.times if time.name == name)


def test_a_paper_sized_step_samples_what_the_paper_says() -> None:
    propose, attempt, solve = loads(Config(), replace(ASSUMED, valid_share=1.0))
    assert (propose.completions, attempt.completions, solve.completions) == (192, 1536, 192)
    assert propose.completions + attempt.completions + solve.completions == 1920
    assert attempt.prompts == 192, "eight attempts share the prefill of their prompt"


def test_completions_are_no_longer_than_they_may_be() -> None:
    short = Config.model_validate({"sampling": {"max_new_tokens": 96, "max_prompt_tokens": 512}})
    propose, *_ = loads(short)
    assert propose.completion_tokens == 192 * 96
    assert propose.prompt_tokens == 192 * 512


def test_the_update_sees_proposals_and_answers_with_their_prompts() -> None:
    samples, tokens = trained(Config(), loads(Config()))
    assert samples == 384
    assert tokens == 192 * (2000 + 500) + 192 * (600 + 500)


def test_attempts_are_trained_on_in_attempts_mode_and_proposals_not_without_their_training() -> None:
    config = Config.model_validate({"selfplay": {"solver_batch": "attempts", "train_proposer": False}})
    samples, _ = trained(config, loads(config, replace(ASSUMED, valid_share=1.0)))
    assert samples == 1536


def test_the_update_costs_eight_flops_a_parameter_and_token_with_checkpointing() -> None:
    found = step(colocated())
    flops = 8 * QWEN_7B.computing_parameters * found.trained_tokens
    assert seconds(found, "update") == pytest.approx(flops / (4 * 989e12 * ASSUMED.learning_share))
    assert seconds(found, "old logprobs") == pytest.approx(seconds(found, "update") / 4)
    without = colocated().model_copy(
        update={"model": colocated().model.model_copy(update={"gradient_checkpointing": False})}
    )
    assert seconds(step(without), "update") == pytest.approx(seconds(found, "update") * 6 / 8)


def test_over_a_network_zero_3_waits_for_its_weights() -> None:
    wide = {"actor": {"num_nodes": 2, "num_gpus_per_node": 2}, "vllm": {"num_engines": 4}}
    gathering = step(spread(ds={"zero_stage": 3}, **wide))
    moved = 3 * (384 / 4) * 2 * QWEN_7B.parameters * 3 / 4 / (NETWORK_GB_S * 2 * 1e9)
    assert seconds(gathering, "update") == pytest.approx(moved)
    assert seconds(step(spread(ds={"zero_stage": 2}, **wide)), "update") == pytest.approx(
        max(moved / 3, 8 * QWEN_7B.computing_parameters * gathering.trained_tokens / (4 * 989e12 * 0.35))
    )


def test_a_decoding_pass_reads_the_weights_once_for_all_sequences() -> None:
    found = step(colocated(), engine_pass_s=0.0, prefill_share=1e9)
    weights_s = 2 * QWEN_7B.computing_parameters / (3350e9 * ASSUMED.decoding_share)
    caches_s = 48 * (2000 + 250) * 56 * 1024 / (3350e9 * ASSUMED.decoding_share)
    assert seconds(found, "propose") == pytest.approx(500 * (weights_s + caches_s))


def test_the_weight_sync_moves_the_model_once_and_calls_once_a_tensor() -> None:
    found = step(spread())
    assert seconds(found, "weight sync") == pytest.approx(2 * QWEN_7B.parameters / 450e9 + 339 * ASSUMED.tensor_call_s)


def test_the_sandbox_is_verdicts_over_cores() -> None:
    found = step(colocated(), valid_share=1.0, sandbox_cores=4, verdicts_per_core_s=100)
    assert seconds(found, "sandbox") == pytest.approx(1920 / 400)


def test_the_bottleneck_is_the_longest_stage_and_the_step_is_their_sum() -> None:
    found = step(colocated())
    assert found.seconds == pytest.approx(sum(time.seconds for time in found.times))
    assert seconds(found, found.bottleneck) == max(time.seconds for time in found.times)
    slow = step(colocated(), verdicts_per_core_s=0.01)
    assert slow.bottleneck == "sandbox"


def test_one_long_completion_makes_its_stage_wait_for_every_token() -> None:
    one_pass = 2 * QWEN_7B.computing_parameters / (3350e9 * ASSUMED.decoding_share) + ASSUMED.engine_pass_s
    assert step(colocated()).tail_s == pytest.approx(8096 * one_pass)


def test_the_local_policy_has_no_sync_and_decodes_slower() -> None:
    local = step(Config.model_validate({"model": {"path": "Qwen/Qwen2.5-7B"}}))
    assert [time.name for time in local.times] == ["propose", "attempt", "solve", "sandbox", "update"]
    beside = step(Config.model_validate({"model": {"path": "Qwen/Qwen2.5-7B"}, "policy": {"rollouts": "vllm"}}))
    assert seconds(beside, "attempt") < seconds(local, "attempt")


def test_an_offloaded_optimizer_pays_for_the_bus() -> None:
    found = step(spread(ds={"adam_offload": True, "zero_stage": 3}))
    assert seconds(found, "offloaded optimizer") == pytest.approx(6 * QWEN_7B.parameters / 4 / 25e9)
