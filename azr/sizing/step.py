"""Seconds of one step, stage by stage, and which stage is the bottleneck: by FLOPs, bytes and assumptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from azr.config import Config
from azr.sizing.architecture import Architecture
from azr.sizing.hardware import ASSUMED, NETWORK_GB_S, PCIE_GB_S, Assumptions, Gpu
from azr.sizing.memory import cache_bytes_per_gpu, needs
from azr.sizing.topology import Topology

GB = 1e9


class Load(NamedTuple):
    """What one stage samples."""

    name: str
    prompts: float
    completions: float
    prompt_tokens: float
    """Tokens of all prompts; the completions of one prompt share its prefill."""
    completion_tokens: float


class Time(NamedTuple):
    """A line of the plan."""

    name: str
    seconds: float
    by: str
    """What it was calculated from."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the game and its update."""

    loads: tuple[Load, ...]
    trained_samples: float
    trained_tokens: float
    """Prompts and completions that go through the learner."""
    times: tuple[Time, ...]
    tail_s: float
    """Added to a stage when one completion of it runs to `max_new_tokens` and all others wait."""

    @property
    def seconds(self) -> float:
        return sum(time.seconds for time in self.times)

    @property
    def bottleneck(self) -> str:
        return max(self.times, key=lambda time: time.seconds).name


def loads(config: Config, assumed: Assumptions = ASSUMED) -> tuple[Load, ...]:
    """The three stages that sample from the policy."""
    proposals = float(len(config.tasks.types) * config.selfplay.proposals_per_type)
    valid = assumed.valid_share * proposals
    apart = proposals if config.selfplay.solver_batch == "separate" else proposals - valid
    completion = min(assumed.completion, config.sampling.max_new_tokens)
    proposer = min(assumed.proposer_prompt, config.sampling.max_prompt_tokens)
    solver = min(assumed.solver_prompt, config.sampling.max_prompt_tokens)
    attempts = valid * config.selfplay.group_size
    return (
        Load("propose", proposals, proposals, proposals * proposer, proposals * completion),
        Load("attempt", valid, attempts, valid * solver, attempts * completion),
        Load("solve", apart, apart, apart * solver, apart * completion),
    )


def trained(config: Config, stages: tuple[Load, ...]) -> tuple[float, float]:
    """Samples of the update and their tokens, prompts included."""
    propose, attempt, solve = stages
    used = [propose] if config.selfplay.train_proposer else []
    used += [attempt, solve] if config.selfplay.solver_batch == "attempts" else [solve]
    samples = sum(load.completions for load in used)
    tokens = sum(load.completion_tokens + load.prompt_tokens / max(load.prompts, 1) * load.completions for load in used)
    return samples, tokens


def plan(
    config: Config, shape: Architecture, topology: Topology | None, gpu: Gpu, *, assumed: Assumptions = ASSUMED
) -> Step:
    """The step's arithmetic on this kind of GPU."""
    stages = loads(config, assumed)
    samples, tokens = trained(config, stages)
    sampler = _sampler(config, shape, topology, gpu, assumed=assumed)
    times = [_generation(load, shape, sampler, gpu, assumed=assumed) for load in stages]
    times.append(_sandbox(stages, assumed=assumed))
    times += _update(config, shape, topology, gpu, tokens=tokens, samples=samples, assumed=assumed)
    times += _sync(shape, topology, gpu, assumed=assumed)
    tail_s = config.sampling.max_new_tokens * _pass_s(1, 0, shape, sampler, gpu, assumed=assumed)
    return Step(stages, samples, tokens, tuple(times), tail_s)


class SamplerShape(NamedTuple):
    """The engines that sample."""

    engines: int
    gpus: int
    """GPUs per engine."""
    sequences: int
    """Sequences that one engine decodes at once."""
    overhead_s: float
    """Time of a decoding pass that is not spent moving bytes."""


def _sampler(
    config: Config, shape: Architecture, topology: Topology | None, gpu: Gpu, *, assumed: Assumptions
) -> SamplerShape:
    [*_, need] = needs(config, shape, topology, gpu_gib=gpu.memory_gib, assumed=assumed)
    mean = assumed.completion + assumed.solver_prompt
    fitting = max(1, need.cache_tokens // mean)
    if topology is not None:
        most = min(assumed.engine_sequences, fitting)
        return SamplerShape(topology.engines, topology.engine_gpus, most, assumed.engine_pass_s)
    if config.policy.rollouts == "vllm":
        most = min(config.vllm.max_sequences, fitting)
        return SamplerShape(1, config.vllm.tensor_parallel, most, assumed.engine_pass_s)
    return SamplerShape(1, 1, config.sampling.batch_size, assumed.eager_pass_s)


def _generation(load: Load, shape: Architecture, sampler: SamplerShape, gpu: Gpu, *, assumed: Assumptions) -> Time:
    if not load.completions:
        return Time(load.name, 0.0, "nothing to sample")
    at_once = min(sampler.sequences, max(1.0, load.completions / sampler.engines))
    context = load.prompt_tokens / load.prompts + load.completion_tokens / load.completions / 2
    pass_s = _pass_s(at_once, context, shape, sampler, gpu, assumed=assumed)
    decode_s = load.completion_tokens / (sampler.engines * at_once) * pass_s
    flops = 2 * shape.computing_parameters * load.prompt_tokens
    prefill_s = flops / (sampler.engines * sampler.gpus * gpu.tflops * 1e12 * assumed.prefill_share)
    by = f"{sampler.engines} x {at_once:.0f} sequences, {pass_s * 1e3:.0f} ms per pass; prefill {prefill_s:.1f} s"
    return Time(load.name, decode_s + prefill_s, by)


def _pass_s(
    sequences: float, context: float, shape: Architecture, sampler: SamplerShape, gpu: Gpu, *, assumed: Assumptions
) -> float:
    """Seconds for one token of every sequence: weights and caches are read once."""
    weights = 2 * shape.computing_parameters / sampler.gpus
    caches = sequences * context * cache_bytes_per_gpu(shape, sampler.gpus)
    moving_s = (weights + caches) / (gpu.bandwidth_gb_s * GB * assumed.decoding_share)
    flops = 2 * shape.computing_parameters * sequences / sampler.gpus
    return max(moving_s, flops / (gpu.tflops * 1e12 * assumed.prefill_share)) + sampler.overhead_s


def _sandbox(stages: tuple[Load, ...], *, assumed: Assumptions) -> Time:
    verdicts = sum(load.completions for load in stages)
    rate = assumed.verdicts_per_core_s * assumed.sandbox_cores
    return Time("sandbox", verdicts / rate, f"{verdicts:.0f} verdicts, {rate:.0f}/s on {assumed.sandbox_cores} cores")


def _update(
    config: Config,
    shape: Architecture,
    topology: Topology | None,
    gpu: Gpu,
    *,
    tokens: float,
    samples: float,
    assumed: Assumptions,
) -> list[Time]:
    """6 FLOPs per parameter and token, 8 with checkpointing; OpenRLHF adds a forward pass before the update."""
    passes = 8 if config.model.gradient_checkpointing else 6
    ranks = topology.ranks if topology else 1
    speed = ranks * gpu.tflops * 1e12 * assumed.learning_share
    learn_s = passes * shape.computing_parameters * tokens / speed
    by = (
        f"{tokens / 1e6:.2f} M tokens x {passes} x {shape.computing_parameters / 1e9:.1f} G parameters, {ranks} GPU"
        + "s" * (ranks > 1)
    )
    if topology is None:
        return [Time("update", learn_s, by)]
    old_s = 2 * shape.computing_parameters * tokens / speed
    moved_s = _exchange_s(shape, topology, gpu, samples=samples)
    by += f"; exchange {moved_s:.1f} s, overlapped"
    found = [Time("old logprobs", old_s, "one forward pass"), Time("update", max(learn_s, moved_s), by)]
    if topology.offloads_optimizer:
        offload_s = config.learner.updates_per_step * 6 * shape.parameters / topology.ranks / (PCIE_GB_S * GB)
        found.append(Time("offloaded optimizer", offload_s, f"gradients down, weights up at {PCIE_GB_S:.0f} GB/s"))
    return found


def _exchange_s(shape: Architecture, topology: Topology, gpu: Gpu, *, samples: float) -> float:
    """Per micro-batch, ZeRO-3 gathers weights twice and scatters gradients; ZeRO-2 only scatters gradients."""
    batches = samples / topology.copies / topology.micro_batch
    link = gpu.link_gb_s if topology.num_nodes == 1 else NETWORK_GB_S * topology.gpus_per_node
    others = (topology.ranks - 1) / topology.ranks
    rounds = (3 if topology.zero_stage == 3 else 1) * batches
    return rounds * 2 * shape.parameters * others / (link * GB)


def _sync(shape: Architecture, topology: Topology | None, gpu: Gpu, *, assumed: Assumptions) -> list[Time]:
    if topology is None:
        return []
    size = 2 * shape.parameters
    link = gpu.bandwidth_gb_s / 2 if topology.is_colocated else gpu.link_gb_s
    if not topology.is_colocated and topology.num_nodes > 1:
        link = NETWORK_GB_S
    seconds = size / (link * GB) + shape.tensors * assumed.tensor_call_s
    by = f"{size / GB:.1f} GB at {link:.0f} GB/s and {shape.tensors} tensors x {assumed.tensor_call_s * 1e3:.0f} ms"
    return [Time("weight sync", seconds, by)]
