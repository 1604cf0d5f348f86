"""`azr plan`: which GPU memory a config needs, and how long a step takes, by calculation. Nothing is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from azr import configfile
from azr.config import Config
from azr.configfile import placed
from azr.errors import ConfigError
from azr.policies.openrlhf.layout import require_layout
from azr.sizing.architecture import Architecture, architecture_of
from azr.sizing.fit import remedy, shortfall
from azr.sizing.hardware import ASSUMED, GIB, GPUS, Assumptions
from azr.sizing.memory import Need, host_bytes, needs
from azr.sizing.step import Step, plan
from azr.sizing.topology import topology_for

console = Console()


def run_plan(path: Path, *, gpu: str, completion: int | None, overrides: Sequence[str], as_json: bool) -> int:
    """Print the plan; returns 1 where the run would not fit the GPU."""
    config = configfile.load(path, overrides)
    shape = architecture_of(config.model.path)
    if shape is None:
        raise ConfigError(
            f"model.path = {config.model.path!r}: the size of this model is unknown. Set model.path to a folder with "
            "the config.json of a Llama, Qwen2 or Qwen3 model",
            key="model.path",
        )
    if gpu not in GPUS:
        raise ConfigError(f"--gpu {gpu}: unknown GPU. Choose one of {', '.join(GPUS)}")
    if config.policy.kind == "openrlhf":
        try:
            require_layout(config)
        except ConfigError as error:
            raise placed(error, path) from None
    assumed = replace(ASSUMED, completion=completion) if completion else ASSUMED
    topology, kind = topology_for(config), GPUS[gpu]
    found = needs(config, shape, topology, gpu_gib=kind.memory_gib, assumed=assumed)
    step = plan(config, shape, topology, kind, assumed=assumed)
    lacking = shortfall(config, shape, gpu_gib=kind.memory_gib)
    found_way = remedy(config, shape, gpu_gib=kind.memory_gib) if lacking else None
    ways = [str(found_way)] if found_way else []
    if as_json:
        console.print_json(data=_document(config, shape, found, step, gpu=gpu, ways=ways, fits=lacking is None))
    else:
        _show(config, shape, found, step, gpu=gpu, assumed=assumed)
        console.print(_verdict(found, lacking, ways, gpu=gpu), soft_wrap=True)
    return 0 if lacking is None else 1


def _document(
    config: Config, shape: Architecture, found: list[Need], step: Step, *, gpu: str, ways: list[str], fits: bool
) -> dict[str, Any]:
    topology = topology_for(config)
    return {
        "model": {"path": config.model.path, "parameters": shape.parameters, "cache_bytes_a_token": shape.cache_bytes},
        "gpu": {"name": gpu, **asdict(GPUS[gpu])},
        "memory": [
            {
                "place": need.place,
                "gpus": need.num_gpus,
                "peak_gib": need.peak / GIB,
                "fullest_phase": need.fullest,
                "cache_tokens": need.cache_tokens,
                "parts": [{"name": p.name, "gib": p.size / GIB, "phases": p.phases} for p in need.parts],
            }
            for need in found
        ],
        "host_gib": {name: size / GIB for name, size in host_bytes(shape, topology).items()} if topology else {},
        "step": {
            "seconds": step.seconds,
            "bottleneck": step.bottleneck,
            "tail_s": step.tail_s,
            "sampled_tokens": sum(load.completion_tokens for load in step.loads),
            "trained_tokens": step.trained_tokens,
            "stages": [time._asdict() for time in step.times],
        },
        "fits": fits,
        "remedies": ways,
    }


def _show(
    config: Config, shape: Architecture, found: list[Need], step: Step, *, gpu: str, assumed: Assumptions
) -> None:
    console.print(
        f"{config.model.path}: {shape.parameters / 1e9:.3g} G parameters, {shape.cache_bytes / 1024:.0f} KiB of cache "
        f"per token; {gpu}, {GPUS[gpu].memory_gib:.0f} GiB. Calculated, not measured.",
        soft_wrap=True,
    )
    for need in found:
        console.print(_memory_table(need))
    topology = topology_for(config)
    for name, size in host_bytes(shape, topology).items() if topology else ():
        console.print(f"host memory, all nodes: {size / GIB:.0f} GiB for {name}")
    console.print(_time_table(step))
    sampled = sum(load.completion_tokens for load in step.loads)
    console.print(
        f"tokens per step: {sampled / 1e6:.2f} M sampled, {step.trained_tokens / 1e6:.2f} M trained; a completion that "
        f"runs to {config.sampling.max_new_tokens} tokens makes its stage wait up to {step.tail_s:.0f} s",
        soft_wrap=True,
    )
    console.print("assumed: " + ", ".join(f"{name} {value:g}" for name, value in assumed.rows()), soft_wrap=True)


def _memory_table(need: Need) -> Table:
    table = Table(title=f"GiB on each of {need.num_gpus} GPUs: {need.place}", title_justify="left")
    table.add_column("")
    for phase in need.phases:
        table.add_column(phase, justify="right")
    for part in need.parts:
        table.add_row(part.name, *(f"{part.size / GIB:.1f}" if phase in part.phases else "" for phase in need.phases))
    table.add_section()
    table.add_row("together", *(f"{need.phase(phase) / GIB:.1f}" for phase in need.phases))
    return table


def _time_table(step: Step) -> Table:
    table = Table(title="seconds per step", title_justify="left")
    table.add_column("stage")
    table.add_column("s", justify="right")
    table.add_column("share", justify="right")
    table.add_column("from")
    for time in step.times:
        mark = "bold" if time.name == step.bottleneck else ""
        table.add_row(time.name, f"{time.seconds:.1f}", f"{time.seconds / step.seconds:.0%}", time.by, style=mark)
    table.add_section()
    table.add_row("together", f"{step.seconds:.0f}", "", f"bottleneck: {step.bottleneck}")
    return table


def _verdict(found: list[Need], lacking: Need | None, ways: list[str], *, gpu: str) -> str:
    if lacking is None:
        peaks = ", ".join(f"{need.place} {need.peak / GIB:.0f} GiB" for need in found)
        return f"[bold green]fits[/]: {peaks} of {GPUS[gpu].memory_gib:.0f} GiB"
    what = f"{lacking.place} needs {lacking.peak / GIB:.0f} GiB while {lacking.fullest}"
    if lacking.peak <= GPUS[gpu].memory_gib * GIB:
        what = (
            f"the KV cache of the {lacking.place} holds {lacking.cache_tokens} tokens, less than the longest sequence"
        )
    return f"[bold red]does not fit[/]: {what}; " + (
        f"it would with {ways[0]}" if ways else "no single setting suffices: take more GPUs or a smaller model"
    )
