"""Bytes on one GPU, phase by phase, for the local policy and for OpenRLHF.

Counted: weights, gradients, optimizer as DeepSpeed 0.19.6 or `MasterAdamW` keeps them, activations, logits, KV cache.
Assumed: `Assumptions`. The peak is the largest phase: not everything is there at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from azr.config import Config
from azr.sizing.architecture import Architecture
from azr.sizing.hardware import ASSUMED, GIB, Assumptions
from azr.sizing.topology import Topology

Phase = Literal["sampling", "logits", "gradients", "step", "sync"]
"""Sampling; the backward pass at its start, when the logits are there, and at its end; the optimizer; weight sync."""
PHASES: tuple[Phase, ...] = ("sampling", "logits", "gradients", "step", "sync")
LEARNING: tuple[Phase, ...] = ("logits", "gradients", "step")
BUCKET = 500_000_000
"""Elements of DeepSpeed's `reduce_bucket_size`, whose default OpenRLHF keeps."""
LIVE = 1_000_000_000
"""Elements of `stage3_max_live_parameters` and of `sub_group_size`, likewise."""


class Part(NamedTuple):
    """Something on the GPU and when it is there."""

    name: str
    size: float
    """Bytes."""
    phases: tuple[Phase, ...] = PHASES


@dataclass(frozen=True, slots=True)
class Need:
    """What one GPU of a kind must hold."""

    place: str
    """`learner`, `engine`, `learner and engine` or `local`."""
    num_gpus: int
    parts: tuple[Part, ...]
    cache_tokens: int
    """Tokens that the KV cache of one engine holds; 0 where none samples here."""

    def phase(self, phase: Phase) -> float:
        return sum(part.size for part in self.parts if phase in part.phases)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Those that differ; one where nothing comes and goes."""
        named = {phase for part in self.parts if part.phases != PHASES for phase in part.phases}
        return tuple(phase for phase in PHASES if phase in named) or ("sampling",)

    @property
    def fullest(self) -> Phase:
        return max(self.phases, key=self.phase)

    @property
    def peak(self) -> float:
        """Bytes in the fullest phase."""
        return self.phase(self.fullest)


def needs(
    config: Config, shape: Architecture, topology: Topology | None, *, gpu_gib: float, assumed: Assumptions = ASSUMED
) -> list[Need]:
    """One entry for each kind of GPU that a run uses; without a topology it is the local policy's one GPU."""
    if topology is None:
        return [_local(config, shape, gpu_gib=gpu_gib, assumed=assumed)]
    learner = learner_parts(config, shape, topology, assumed=assumed)
    engine, cache = engine_parts(
        shape, topology.engine_gpus, share=topology.memory_share, gpu_gib=gpu_gib, assumed=assumed
    )
    if not topology.is_colocated:
        return [
            Need("learner", topology.ranks, tuple(learner), 0),
            Need("engine", topology.sampling_gpus, tuple(engine), cache),
        ]
    if topology.engines_sleep:
        engine = taking_turns(engine, weights=2 * shape.parameters / topology.engine_gpus, assumed=assumed)
    return [Need("learner and engine", topology.ranks, (*learner, *engine), cache)]


def learner_parts(
    config: Config, shape: Architecture, topology: Topology, *, assumed: Assumptions = ASSUMED
) -> list[Part]:
    """A rank of DeepSpeed, bfloat16, Adam."""
    weights = shape.parameters / topology.learner_tensor_parallel
    own = weights * topology.learner_tensor_parallel / topology.ranks
    stage, on_gpu = topology.zero_stage, 0 if topology.offloads_optimizer else 1
    resident: tuple[Phase, ...] = LEARNING if topology.learner_sleeps else PHASES
    parts = [
        Part("weights", 2 * (own if stage == 3 else weights)),
        Part("gradients", 2 * (own if stage >= 2 else weights) * on_gpu, resident),
        Part("optimizer: weights and moments in float32", 12 * (own if stage >= 1 else weights) * on_gpu, resident),
        Part("gradients in float32", 4 * (own if stage < 3 else min(LIVE, own)) * on_gpu, ("step",)),
        Part("gradient bucket", 2 * min(BUCKET, weights), ("logits", "gradients")),
    ]
    if stage == 3:
        parts.append(Part("gathered weights", 2 * min(LIVE, weights), ("logits", "gradients", "sync")))
    if config.learner.kl_coef and (topology.is_colocated or topology.reference_is_colocated):
        parts.append(Part("reference model", 2 * (own if stage == 3 else weights)))
    tokens = micro_batch_tokens(config, topology)
    forward = topology.forward_micro_batch * longest_sample(config) // topology.ring_size
    values = max((12 if config.learner.entropy_coef else 8) * tokens, 6 * forward)
    parts += [
        *activation_parts(shape, tokens, is_checkpointed=config.model.gradient_checkpointing),
        Part("logits in float32 and their gradients", values * shape.vocabulary, ("logits",)),
        Part("CUDA, NCCL, fragmentation", assumed.context_gib * GIB),
    ]
    return parts


def micro_batch_tokens(config: Config, topology: Topology) -> int:
    """Most tokens that a rank puts through the model at once while it learns."""
    longest = longest_sample(config)
    if topology.is_dynamic:
        return max(config.learner.micro_batch_tokens, -(-longest // topology.ring_size))
    return -(-longest * topology.micro_batch // topology.ring_size)


def longest_sample(config: Config) -> int:
    """Tokens of the longest prompt with the longest completion."""
    return config.sampling.max_prompt_tokens + config.sampling.max_new_tokens


def activation_parts(shape: Architecture, tokens: int, *, is_checkpointed: bool) -> list[Part]:
    """bfloat16, with an attention that keeps no matrix of tokens x tokens."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = 2 * tokens * (6 * shape.hidden + 2 * queries + 4 * keys + 4 * shape.intermediate)
    inside = layer + 2 * tokens * (2 * shape.hidden + 2 * shape.intermediate)
    if is_checkpointed:
        kept = 2 * tokens * shape.hidden * shape.layers
        return [
            Part("layer inputs", kept, ("logits", "gradients")),
            Part("one layer, recomputed, and its gradients", inside, ("gradients",)),
        ]
    return [Part("activations", layer * shape.layers, ("logits", "gradients"))]


def engine_parts(
    shape: Architecture, gpus: int, *, share: float, gpu_gib: float, assumed: Assumptions = ASSUMED
) -> tuple[list[Part], int]:
    """A vLLM engine fills its share of the GPU: what weights and overhead leave is cache; also the tokens in it."""
    weights, overhead = 2 * shape.parameters / gpus, assumed.engine_gib * GIB
    cache = max(0.0, share * gpu_gib * GIB - weights - overhead)
    parts = [
        Part("engine: weights", weights),
        Part("engine: activations, CUDA graphs", overhead),
        Part("engine: KV cache", cache),
    ]
    return parts, int(cache / cache_bytes_a_gpu(shape, gpus))


def taking_turns(engine: Iterable[Part], *, weights: float, assumed: Assumptions) -> list[Part]:
    """An engine that sleeps while the learner learns, and wakes its weights alone for the sync."""
    awake = [Part(part.name, part.size, ("sampling",)) for part in engine]
    for_sync = Part("engine: weights, for the sync", weights, ("sync",))
    return [*awake, for_sync, Part("engine: asleep", assumed.asleep_gib * GIB, (*LEARNING, "sync"))]


def cache_bytes_a_gpu(shape: Architecture, gpus: int) -> float:
    """Of one token: KV heads are divided among the GPUs of an engine, but not below one."""
    return shape.cache_bytes * max(1, shape.kv_heads // gpus) / shape.kv_heads


def _local(config: Config, shape: Architecture, *, gpu_gib: float, assumed: Assumptions) -> Need:
    tokens = config.learner.micro_batch_tokens
    parts = [
        *local_state(config, shape),
        *activation_parts(shape, tokens, is_checkpointed=config.model.gradient_checkpointing),
        Part("logits and their gradients", 4 * tokens * shape.vocabulary, ("logits",)),
        Part("CUDA, fragmentation, pieces of logits in float32", assumed.context_gib * GIB),
    ]
    if config.policy.rollouts == "transformers":
        cache = config.sampling.batch_size * longest_sample(config)
        sampling: tuple[Phase, ...] = ("sampling",)
        parts.append(Part("KV cache, every sequence at its longest", cache * shape.cache_bytes, sampling))
        return Need("local", 1, tuple(parts), cache)
    table = config.vllm
    engine, cache = engine_parts(
        shape, table.tensor_parallel, share=table.memory_share, gpu_gib=gpu_gib, assumed=assumed
    )
    if table.sleep:
        engine = taking_turns(engine, weights=2 * shape.parameters / table.tensor_parallel, assumed=assumed)
    return Need("local", table.tensor_parallel, (*parts, *engine), cache)


def local_state(config: Config, shape: Architecture) -> list[Part]:
    """As `azr.policies.optimizer.MasterAdamW` keeps it; with adapters, the rest is frozen."""
    width = 4 if config.model.dtype == "float32" or (config.model.dtype, config.model.device) == ("auto", "cpu") else 2
    trained = adapter_parameters(shape, config.model.lora.rank) if config.model.lora.rank else shape.parameters
    frozen = shape.parameters if config.model.lora.rank else 0
    masters = 4 * trained if width == 2 else 0
    parts = [
        Part("weights", width * (trained + frozen)),
        Part("optimizer: float32 weights and moments", masters + 8 * trained),
        Part("gradients in float32", 4 * trained, LEARNING),
    ]
    if width == 2:
        parts.append(Part("gradients of one pass", 2 * trained, ("gradients",)))
    if config.learner.kl_coef and not frozen:
        parts.append(Part("reference model", width * shape.parameters))
    return parts


def adapter_parameters(shape: Architecture, rank: int) -> int:
    """Of low-rank adapters on every linear layer but the head."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sides: Iterable[tuple[int, int]] = (
        (shape.hidden, queries), (shape.hidden, keys), (shape.hidden, keys), (queries, shape.hidden),
        (shape.hidden, shape.intermediate), (shape.hidden, shape.intermediate), (shape.intermediate, shape.hidden),
    )  # fmt: skip
    return shape.layers * rank * sum(into + out for into, out in sides)


def host_bytes(shape: Architecture, topology: Topology) -> Mapping[str, float]:
    """Memory of all nodes together that goes to what is not on a GPU."""
    found: dict[str, float] = {}
    if topology.offloads_optimizer:
        found["optimizer, offloaded"] = 16.0 * shape.parameters
    if topology.learner_sleeps and not topology.offloads_optimizer:
        found["optimizer, while engines sample"] = 14.0 * shape.parameters
    if topology.engines_sleep:
        found["engine weights, while the learner learns"] = 2.0 * shape.parameters * topology.engines
    return found
