"""Whether a run fits its GPUs and, if it does not, one setting with which it would."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

from azr.config import Config
from azr.sizing.architecture import Architecture
from azr.sizing.hardware import GIB
from azr.sizing.memory import Need, longest_sample, needs
from azr.sizing.topology import Topology, topology_for

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Shares of a GPU that are tried for an engine."""


class Setting(NamedTuple):
    """A key of the config and its value: Setting("openrlhf.ds.zero_stage", 3)."""

    key: str
    value: bool | int | float

    def __str__(self) -> str:
        return f"{self.key} = {str(self.value).lower() if isinstance(self.value, bool) else self.value}"


def shortfall(config: Config, shape: Architecture, *, gpu_gib: float) -> Need | None:
    """The first kind of GPU that has too little memory, or whose engine cannot hold the longest sequence."""
    for need in needs(config, shape, topology_for(config), gpu_gib=gpu_gib):
        samples_here = need.place != "learner"
        if need.peak > gpu_gib * GIB or (samples_here and need.cache_tokens < longest_sample(config)):
            return need
    return None


def remedy(config: Config, shape: Architecture, *, gpu_gib: float) -> Setting | None:
    """The first setting with which the run fits by calculation; None if none of them suffices alone."""
    fitting = (
        one for one in _candidates(config) if shortfall(with_setting(config, one), shape, gpu_gib=gpu_gib) is None
    )
    return next(fitting, None)


def with_setting(config: Config, setting: Setting) -> Config:
    """A copy of the config with another value for one key."""
    table = config.model_dump()
    *parents, last = setting.key.split(".")
    inner = table
    for parent in parents:
        inner = cast("dict[str, Any]", inner.setdefault(parent, {}))
    inner[last] = setting.value
    return Config.model_validate(table)


def explained(need: Need, *, gpu_gib: float) -> Mapping[str, float]:
    """GiB by name in the fullest phase, their sum, and what one GPU has."""
    parts = {part.name: part.size / GIB for part in need.parts if need.fullest in part.phases}
    return {**parts, f"sum while {need.fullest}": need.peak / GIB, "one GPU has": gpu_gib}


def _candidates(config: Config) -> Iterator[Setting]:
    """From settings that cost nothing to those that cost most."""
    if not config.model.gradient_checkpointing:
        yield Setting("model.gradient_checkpointing", True)
    topology = topology_for(config)
    yield from _local(config) if topology is None else _openrlhf(topology)
    if tokens := config.sampling.max_new_tokens // 2:
        yield Setting("sampling.max_new_tokens", tokens)


def _local(config: Config) -> Iterator[Setting]:
    longest = longest_sample(config)
    if config.learner.micro_batch_tokens > longest:
        yield Setting("learner.micro_batch_tokens", longest)
    if config.policy.rollouts == "vllm":
        yield from (Setting("vllm.memory_share", share) for share in SHARES if share < config.vllm.memory_share)
    else:
        sizes = (config.sampling.batch_size >> shift for shift in range(1, 7))
        yield from (Setting("sampling.batch_size", size) for size in sizes if size)
    if not config.model.lora.rank:
        yield Setting("model.lora.rank", 64)


def _openrlhf(topology: Topology) -> Iterator[Setting]:
    if topology.micro_batch > 1:
        yield Setting("openrlhf.train.micro_batch_size", 1)
    if topology.forward_micro_batch > 1:
        yield Setting("openrlhf.rollout.micro_batch_size", 1)
    if topology.is_colocated:
        yield Setting("openrlhf.vllm.enable_sleep", True)
        yield Setting("openrlhf.ds.enable_sleep", True)
    share = topology.memory_share
    yield from (Setting("openrlhf.vllm.gpu_memory_utilization", value) for value in SHARES if value < share)
    yield Setting("openrlhf.ds.zero_stage", 3)
    if not topology.is_colocated:
        yield Setting("openrlhf.actor.num_gpus_per_node", 2 * topology.gpus_per_node)
    yield Setting("openrlhf.ds.adam_offload", True)
