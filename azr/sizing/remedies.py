"""Does it fit, and if not, what would: every candidate is calculated before it is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, NamedTuple, cast

from azr.config import Config
from azr.errors import ConfigError
from azr.sizing.architecture import Architecture
from azr.sizing.hardware import GIB
from azr.sizing.memory import Need, longest_sample, needs
from azr.sizing.topology import Topology, topology_of

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Shares of a GPU that are tried for an engine."""
MOST_GPUS = 64
MOST_TOGETHER = 3
NAMED = 3
"""How many remedies are named."""


class Change(NamedTuple):
    """Keys of the config and what they would become."""

    settings: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        return " and ".join(f"{key} = {_toml(value)}" for key, value in self.settings)


def topology_for(config: Config) -> Topology | None:
    """Of OpenRLHF; None for the local policy."""
    return topology_of(config) if config.policy.kind == "openrlhf" else None


def shortfall(config: Config, shape: Architecture, *, gpu_gib: float) -> Need | None:
    """The first kind of GPU that does not hold what it must, or whose engine cannot hold the longest sequence."""
    for need in needs(config, shape, topology_for(config), gpu_gib=gpu_gib):
        samples_here = need.place != "learner"
        if need.peak > gpu_gib * GIB or (samples_here and need.cache_tokens < longest_sample(config)):
            return need
    return None


def remedies(config: Config, shape: Architecture, *, gpu_gib: float) -> list[Change]:
    """The smallest changes that make it fit: single ones, else two or three together; empty where nothing does."""
    tried = list(candidates(config, shape))
    for count in range(1, MOST_TOGETHER + 1):
        found: list[Change] = []
        named: set[frozenset[str]] = set()
        for changes in combinations(tried, count):
            keys = [key for change in changes for key, _ in change.settings]
            if len(set(keys)) < len(keys) or any(known <= set(keys) for known in named):
                continue
            change = Change(tuple(setting for change in changes for setting in change.settings))
            if _fits(config, change, shape, gpu_gib=gpu_gib):
                found.append(change)
                named.add(frozenset(keys))
            if len(found) == NAMED:
                break
        if found:
            return found
    return []


def candidates(config: Config, shape: Architecture) -> Iterator[Change]:
    """What is tried, from what costs nothing to what costs most."""
    if not config.model.gradient_checkpointing:
        yield Change((("model.gradient_checkpointing", True),))
    topology = topology_for(config)
    yield from _local(config) if topology is None else _spread(config, topology, shape)
    for tokens in (config.sampling.max_new_tokens // 2, config.sampling.max_new_tokens // 4):
        if tokens:
            yield Change((("sampling.max_new_tokens", tokens),))


def changed(config: Config, change: Change) -> Config:
    """The config with other settings."""
    table = config.model_dump()
    for key, value in change.settings:
        *parents, last = key.split(".")
        inner = table
        for parent in parents:
            inner = cast("dict[str, Any]", inner.setdefault(parent, {}))
        inner[last] = value
    return Config.model_validate(table)


def _local(config: Config) -> Iterator[Change]:
    longest = longest_sample(config)
    if config.learner.micro_batch_tokens > longest:
        yield Change((("learner.micro_batch_tokens", longest),))
    if config.policy.rollouts == "vllm":
        yield from (Change((("vllm.memory_share", share),)) for share in SHARES if share < config.vllm.memory_share)
    else:
        sizes = (config.sampling.batch_size >> shift for shift in range(1, 7))
        yield from (Change((("sampling.batch_size", size),)) for size in sizes if size)
    if not config.model.lora.rank:
        yield Change((("model.lora.rank", 64),))


def _spread(config: Config, topology: Topology, shape: Architecture) -> Iterator[Change]:
    if topology.micro_batch > 1:
        yield Change((("openrlhf.train.micro_batch_size", 1),))
    if topology.forward_micro_batch > 1:
        yield Change((("openrlhf.rollout.micro_batch_size", 1),))
    if topology.is_colocated and not topology.engines_sleep:
        yield Change((("openrlhf.vllm.enable_sleep", True),))
    if topology.is_colocated and not topology.learner_sleeps:
        yield Change((("openrlhf.ds.enable_sleep", True),))
    share = "openrlhf.vllm.gpu_memory_utilization"
    yield from (Change(((share, value),)) for value in SHARES if value < topology.memory_share)
    if topology.zero_stage < 3:
        yield Change((("openrlhf.ds.zero_stage", 3),))
    yield from _larger_engines(topology, shape)
    yield from _more_gpus(topology)
    if not topology.offloads_optimizer:
        yield Change((("openrlhf.ds.adam_offload", True),))
    if config.learner.entropy_coef:
        yield Change((("learner.entropy_coef", 0.0),))


def _larger_engines(topology: Topology, shape: Architecture) -> Iterator[Change]:
    for gpus in (topology.engine_gpus << shift for shift in range(1, 4)):
        if shape.heads % gpus or topology.sampling_gpus % gpus:
            continue
        engines = topology.sampling_gpus // gpus
        parallel = ("openrlhf.vllm.tensor_parallel_size", gpus)
        yield Change((parallel, ("openrlhf.vllm.num_engines", engines)))


def _more_gpus(topology: Topology) -> Iterator[Change]:
    ranks = topology.ranks * 2
    while ranks <= MOST_GPUS:
        per_node = min(ranks, 8)
        settings: list[tuple[str, Any]] = [("openrlhf.actor.num_gpus_per_node", per_node)]
        if ranks > 8:
            settings.insert(0, ("openrlhf.actor.num_nodes", ranks // 8))
        if topology.is_colocated:
            settings.append(("openrlhf.vllm.num_engines", ranks // topology.engine_gpus))
        yield Change(tuple(settings))
        ranks *= 2


def _fits(config: Config, change: Change, shape: Architecture, *, gpu_gib: float) -> bool:
    try:
        return shortfall(changed(config, change), shape, gpu_gib=gpu_gib) is None
    except ConfigError:
        return False


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def explained(need: Need, *, gpu_gib: float) -> Mapping[str, float]:
    """GiB by name in the fullest phase, with their sum and what there is."""
    parts = {part.name: part.size / GIB for part in need.parts if need.fullest in part.phases}
    return {**parts, f"sum while {need.fullest}": need.peak / GIB, "one GPU has": gpu_gib}
