"""Whether a step's samples, the ranks and the engines fit each other: all of it before anything is started."""

from __future__ import annotations

from collections.abc import Callable

from azr.config import Config
from azr.errors import ConfigError
from azr.policies.openrlhf.flags import samples_per_step, samples_per_update
from azr.sizing.architecture import Architecture, architecture_of
from azr.sizing.topology import Topology, topology_of

MOST_TRIED = 4096
"""How far from a setting its nearest neighbour is looked for."""


def require_layout(config: Config) -> Topology:
    """Which GPU does what.

    Raises:
        ConfigError: it does not come out even; with the numbers and the nearest settings that work.
    """
    topology = topology_of(config)
    _require_engines(topology)
    _require_ranks(topology)
    _require_even_samples(config, topology)
    shape = architecture_of(config.model.path)
    if shape is not None:
        _require_fitting_model(config, topology, shape)
    return topology


def nearest(value: int, works: Callable[[int], bool]) -> int | None:
    """The positive number nearest to `value` that works; the smaller of two."""
    tried = (candidate for away in range(MOST_TRIED) for candidate in (value - away, value + away) if candidate > 0)
    return next(filter(works, tried), None)


def _require_engines(topology: Topology) -> None:
    key = "openrlhf.vllm.num_engines"
    fitting = max(1, topology.ranks // topology.engine_gpus)
    if topology.engines < 1:
        raise ConfigError(f"{key} says how many vLLM engines sample, at least 1; on this layout try {fitting}", key=key)
    if topology.is_colocated and topology.ranks != topology.sampling_gpus:
        raise ConfigError(
            f"{key} = {topology.engines} x openrlhf.vllm.tensor_parallel_size = {topology.engine_gpus} are "
            f"{topology.sampling_gpus} GPUs, but the learner with which they share them (openrlhf.train.colocate_all) "
            f"has {topology.ranks}; set openrlhf.vllm.num_engines = {fitting}",
            key=key,
        )


def _require_ranks(topology: Topology) -> None:
    together = topology.ring_size * topology.learner_tensor_parallel
    if topology.ranks % together:
        fitting = nearest(topology.ranks, lambda ranks: ranks % together == 0)
        raise ConfigError(
            f"{topology.num_nodes} nodes x {topology.gpus_per_node} GPUs are {topology.ranks} ranks and do not divide "
            f"by openrlhf.ds.ring_attn_size = {topology.ring_size} x openrlhf.ds.tensor_parallel_size = "
            f"{topology.learner_tensor_parallel}; the nearest that work: {fitting} ranks",
            key="openrlhf.actor.num_gpus_per_node",
        )


def _require_even_samples(config: Config, topology: Topology) -> None:
    """Ranks with unequal numbers of batches would wait for each other for ever."""
    _require_even(config, topology, "openrlhf.rollout.micro_batch_size", topology.forward_micro_batch)
    micro_batch = 1 if topology.is_dynamic else topology.micro_batch
    _require_even(config, topology, "openrlhf.train.micro_batch_size", micro_batch)


def _require_even(config: Config, topology: Topology, key: str, micro_batch: int) -> None:
    def is_even(copies: int, size: int, samples: int) -> bool:
        return samples % (copies * size) == 0

    samples = samples_per_update(config)
    if is_even(topology.copies, micro_batch, samples):
        return

    def with_proposals(count: int) -> bool:
        selfplay = config.selfplay.model_copy(update={"proposals_per_type": count})
        changed = config.model_copy(update={"selfplay": selfplay})
        whole = samples_per_step(changed) % config.learner.updates_per_step == 0
        return whole and is_even(topology.copies, micro_batch, samples_per_update(changed))

    proposals = nearest(config.selfplay.proposals_per_type, with_proposals)
    copies = nearest(topology.copies, lambda count: is_even(count, micro_batch, samples))
    size = nearest(micro_batch, lambda count: is_even(topology.copies, count, samples))
    ways = [
        f"selfplay.proposals_per_type = {proposals}" if proposals else "",
        f"{copies} ranks (openrlhf.actor.num_nodes x num_gpus_per_node)" if copies else "",
        f"{key} = {size}" if size else "",
    ]
    raise ConfigError(
        f"{_counted(config)}: {samples} do not divide by {topology.copies} ranks x {key} = {micro_batch}; the nearest "
        f"that work: {', or '.join(way for way in ways if way)}",
        key=key,
    )


def _counted(config: Config) -> str:
    selfplay, updates = config.selfplay, config.learner.updates_per_step
    answers = selfplay.group_size if selfplay.solver_batch == "attempts" else 1
    text = (
        f"a step has {samples_per_step(config)} samples ({len(config.tasks.types)} task types x "
        f"{selfplay.proposals_per_type} proposals x {answers + selfplay.train_proposer})"
    )
    return text if updates == 1 else f"{text} in {updates} optimizer steps of {samples_per_update(config)}"


def _require_fitting_model(config: Config, topology: Topology, shape: Architecture) -> None:
    longest = config.sampling.max_prompt_tokens + config.sampling.max_new_tokens
    if longest > shape.positions:
        room = shape.positions - config.sampling.max_prompt_tokens
        smaller = f"sampling.max_new_tokens = {room}" if room > 0 else "a smaller sampling.max_prompt_tokens"
        raise ConfigError(
            f"sampling.max_prompt_tokens + sampling.max_new_tokens = {longest} tokens; {config.model.path} was made "
            f"for {shape.positions}; set {smaller}",
            key="sampling.max_new_tokens",
        )
    parallel = topology.engine_gpus
    if shape.heads % parallel:
        fitting = nearest(parallel, lambda gpus: shape.heads % gpus == 0)
        raise ConfigError(
            f"openrlhf.vllm.tensor_parallel_size = {parallel} does not divide the {shape.heads} attention heads of "
            f"{config.model.path}; the nearest that does: {fitting}",
            key="openrlhf.vllm.tensor_parallel_size",
        )
