"""Checks, before anything starts, that the numbers of samples, ranks and engines fit together."""

from __future__ import annotations

from azr.config import Config
from azr.errors import ConfigError
from azr.policies.openrlhf.flags import samples_per_step, samples_per_update
from azr.sizing.architecture import Architecture, architecture_of
from azr.sizing.topology import Topology, topology_of


def require_layout(config: Config) -> Topology:
    """Which GPU does what.

    Raises:
        ConfigError: the numbers do not fit together; the message has them and a setting that works.
    """
    topology = topology_of(config)
    _require_engines(topology)
    _require_ranks(topology)
    _require_even_samples(config, topology)
    shape = architecture_of(config.model.path)
    if shape is not None:
        _require_fitting_model(config, topology, shape)
    return topology


def _largest_divisor(number: int, most: int) -> int:
    return max(size for size in range(1, most + 1) if number % size == 0)


def _require_engines(topology: Topology) -> None:
    key = "openrlhf.vllm.num_engines"
    fitting = max(1, topology.ranks // topology.engine_gpus)
    if topology.engines < 1:
        raise ConfigError(f"{key} must be at least 1, so that an engine samples; here set {fitting}", key=key)
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
        fitting = max(together, topology.ranks - topology.ranks % together)
        raise ConfigError(
            f"{topology.num_nodes} nodes x {topology.gpus_per_node} GPUs are {topology.ranks} ranks, which is not "
            f"divisible by openrlhf.ds.ring_attn_size = {topology.ring_size} x openrlhf.ds.tensor_parallel_size = "
            f"{topology.learner_tensor_parallel}; set {fitting} ranks",
            key="openrlhf.actor.num_gpus_per_node",
        )


def _require_even_samples(config: Config, topology: Topology) -> None:
    """Ranks with unequal numbers of batches would wait for each other forever."""
    _require_even(config, topology, "openrlhf.rollout.micro_batch_size", topology.forward_micro_batch)
    micro_batch = 1 if topology.is_dynamic else topology.micro_batch
    _require_even(config, topology, "openrlhf.train.micro_batch_size", micro_batch)


def _require_even(config: Config, topology: Topology, key: str, micro_batch: int) -> None:
    samples, copies = samples_per_update(config), topology.copies
    if samples % (copies * micro_batch) == 0:
        return
    if samples % copies:
        way = f"{_largest_divisor(samples, copies)} ranks (openrlhf.actor.num_nodes x num_gpus_per_node)"
    else:
        way = f"{key} = {_largest_divisor(samples // copies, micro_batch)}"
    raise ConfigError(
        f"{_counted(config)}: {samples} are not divisible by {copies} ranks x {key} = {micro_batch}; set {way}",
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
            f"sampling.max_prompt_tokens + sampling.max_new_tokens = {longest} tokens, but the window of "
            f"{config.model.path} has {shape.positions}; set {smaller}",
            key="sampling.max_new_tokens",
        )
    parallel = topology.engine_gpus
    if shape.heads % parallel:
        fitting = _largest_divisor(shape.heads, parallel)
        raise ConfigError(
            f"openrlhf.vllm.tensor_parallel_size = {parallel} does not divide the {shape.heads} attention heads of "
            f"{config.model.path}; set it to {fitting}",
            key="openrlhf.vllm.tensor_parallel_size",
        )
