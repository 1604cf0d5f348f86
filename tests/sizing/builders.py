"""Configs for the calculations."""

from __future__ import annotations

from typing import Any

from azr.config import Config
from azr.sizing.architecture import PUBLISHED
from azr.sizing.topology import Topology, topology_of

QWEN_7B = PUBLISHED["Qwen2.5-7B"]
PSI = QWEN_7B.parameters


def spread(**tables: Any) -> Config:
    """Qwen2.5-7B on OpenRLHF, 4 ranks and 4 engines apart, unless the tables of [openrlhf] say otherwise."""
    others = {
        name: tables.pop(name) for name in ("model", "learner", "sampling", "selfplay", "cluster") if name in tables
    }
    openrlhf = {"actor": {"num_gpus_per_node": 4}, "vllm": {"num_engines": 4}, **tables}
    model = {"path": "Qwen/Qwen2.5-7B", **others.pop("model", {})}
    return Config.model_validate({"policy": {"kind": "openrlhf"}, "model": model, "openrlhf": openrlhf, **others})


def colocated(gpus: int = 4, *, stage: int = 3, sleeps: bool = True) -> Config:
    """Learner and engines on the same GPUs."""
    return spread(
        actor={"num_gpus_per_node": gpus},
        vllm={"num_engines": gpus, "gpu_memory_utilization": 0.6, "enable_sleep": sleeps},
        train={"colocate_all": True},
        ds={"zero_stage": stage, "enable_sleep": sleeps},
    )


def topology(config: Config) -> Topology:
    return topology_of(config)
