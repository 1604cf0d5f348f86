"""The folder of a local policy inside a checkpoint: two safetensors files and a JSON file. Nothing is unpickled.

::

    weights.safetensors      the trained parameters, float32
    optimizer.safetensors    AdamW's moments, `<parameter>/exp_avg` and so on
    policy.json              counters

`azr.runs.checkpoint` verifies the SHA-256 of every file before a checkpoint is used, so they are not hashed again here.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]  # bare PathLike

from azr.errors import CheckpointError
from azr.policies.optimizer import OptimizerState
from azr.policies.randomness import Counters

WEIGHTS = "weights.safetensors"
MOMENTS = "optimizer.safetensors"
SUMMARY = "policy.json"


class _Summary(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)  # earlier versions also wrote `generate_calls`

    seed: int
    update_calls: int
    num_steps: int


def write(folder: Path, state: OptimizerState, counters: Counters) -> None:
    """Write the three files into an existing folder."""
    save_file({name: weight.contiguous() for name, weight in state.weights.items()}, folder / WEIGHTS)
    save_file({name: moment.contiguous() for name, moment in state.moments.items()}, folder / MOMENTS)
    summary = _Summary(**counters._asdict(), num_steps=state.num_steps)
    (folder / SUMMARY).write_text(json.dumps(summary.model_dump(), indent=1), encoding="utf-8")


def read(folder: Path) -> tuple[OptimizerState, Counters]:
    """Read what `write` wrote, onto the CPU.

    Raises:
        CheckpointError: a file is missing or cannot be read.
    """
    try:
        summary = _Summary.model_validate_json((folder / SUMMARY).read_text(encoding="utf-8"))
        state = OptimizerState(load_file(folder / WEIGHTS), load_file(folder / MOMENTS), summary.num_steps)
    except (OSError, UnicodeDecodeError, ValidationError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the checkpoint {folder}: {error}") from error
    return state, Counters(summary.seed, summary.update_calls)
