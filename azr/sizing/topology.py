"""Which GPU does what: the part of `[openrlhf]` that decides memory and time, with OpenRLHF's own defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from azr.config import Config
from azr.errors import ConfigError

Positive = Annotated[int, Field(ge=1)]


class Topology(BaseModel):
    """GPUs, engines and how the learner is spread. The aliases are OpenRLHF's flags; a test compares the defaults."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    num_nodes: Positive = Field(1, alias="actor.num_nodes")
    gpus_per_node: Positive = Field(8, alias="actor.num_gpus_per_node")
    num_engines: int | None = Field(None, alias="vllm.num_engines")
    engine_gpus: Positive = Field(1, alias="vllm.tensor_parallel_size")
    memory_share: float = Field(0.95, alias="vllm.gpu_memory_utilization", gt=0, le=1)
    engines_sleep: bool = Field(False, alias="vllm.enable_sleep")
    learner_sleeps: bool = Field(False, alias="ds.enable_sleep")
    is_colocated: bool = Field(False, alias="train.colocate_all")
    reference_is_colocated: bool = Field(False, alias="train.colocate_actor_ref")
    reference_nodes: Positive | None = Field(None, alias="ref.num_nodes")
    reference_gpus: Positive | None = Field(None, alias="ref.num_gpus_per_node")
    zero_stage: Annotated[int, Field(ge=0, le=3)] = Field(2, alias="ds.zero_stage")
    offloads_optimizer: bool = Field(False, alias="ds.adam_offload")
    ring_size: Positive = Field(1, alias="ds.ring_attn_size")
    learner_tensor_parallel: Positive = Field(1, alias="ds.tensor_parallel_size")
    packs: bool = Field(False, alias="ds.packing_samples")
    is_dynamic: bool = Field(False, alias="train.dynamic_batch_enable")
    micro_batch: Positive = Field(1, alias="train.micro_batch_size")
    forward_micro_batch: Positive = Field(1, alias="rollout.micro_batch_size")

    @property
    def ranks(self) -> int:
        """GPUs of the learner."""
        return self.num_nodes * self.gpus_per_node

    @property
    def copies(self) -> int:
        """Ranks that see different samples: the data-parallel size."""
        return max(1, self.ranks // (self.ring_size * self.learner_tensor_parallel))

    @property
    def engines(self) -> int:
        return self.num_engines or 0

    @property
    def sampling_gpus(self) -> int:
        """GPUs of the engines, shared with the learner's or not."""
        return self.engines * self.engine_gpus

    def gpus(self, *, has_reference: bool) -> int:
        """GPUs that OpenRLHF requests from Ray."""
        if self.is_colocated:
            return self.ranks
        reference = (self.reference_nodes or self.num_nodes) * (self.reference_gpus or self.gpus_per_node)
        apart = reference if has_reference and not self.reference_is_colocated else 0
        return self.ranks + self.sampling_gpus + apart


def topology_of(config: Config) -> Topology:
    """The GPU layout in `[openrlhf]`.

    Raises:
        ConfigError: a value has the wrong type or is out of range.
    """
    wanted = {field.alias: name for name, field in Topology.model_fields.items()}
    given = {flag: value for flag, value in flatten(config.openrlhf) if flag in wanted}
    try:
        return Topology.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        key = f"openrlhf.{first['loc'][0]}"
        raise ConfigError(f"{key} = {first['input']!r}: {first['msg']}", key=key) from None


def topology_for(config: Config) -> Topology | None:
    """The topology of a run on OpenRLHF; None for the local policy."""
    return topology_of(config) if config.policy.kind == "openrlhf" else None


def flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{"actor": {"num_nodes": 2}}` -> `actor.num_nodes`, 2."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from flatten(cast("Mapping[str, Any]", value), f"{prefix}{name}.")
        else:
            yield prefix + name, value
