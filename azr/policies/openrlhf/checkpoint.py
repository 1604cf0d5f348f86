"""An OpenRLHF policy's folder inside a checkpoint of the run.

::

    deepspeed/       what every rank saved: weights, moments, schedule. DeepSpeed unpickles it: load it only if trusted
    model/           the weights as `transformers` loads them, for `azr eval` and for other programs
    policy.json      counters, and the name of this save

OpenRLHF writes only to the folder `ckpt.path`, which is fixed when it starts, and reads from it only when it starts. So
`ckpt.path` is a staging folder in the run directory: a save is moved out of it, and `stage` links a checkpoint into it.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from azr.errors import CheckpointError
from azr.policies.openrlhf import STAGING
from azr.policies.openrlhf.stock import BasePPOTrainer, wait_for

SUMMARY = "policy.json"
DEEPSPEED = "deepspeed"
MODEL = "model"
STAGED = "_actor"
TAG = "state"
NAME = "save_name"


def write(folder: Path, trainer: BasePPOTrainer, counters: Mapping[str, int]) -> None:
    """Have all ranks save, and move what they wrote into the existing, empty folder."""
    staging = Path(cast(str, trainer.args.ckpt.path))
    for leftover in staging.parent.glob(f"{STAGING}*"):  # this run's, and those of runs that were killed
        shutil.rmtree(leftover)
    name = uuid.uuid4().hex
    save = trainer.actor_model_group.async_run_method("save_checkpoint", tag=TAG, client_states={NAME: name})
    wait_for(save)
    (staging / STAGED).rename(folder / DEEPSPEED)
    (staging / f"{TAG}_hf").rename(folder / MODEL)
    (folder / SUMMARY).write_text(json.dumps({NAME: name, **counters}), encoding="utf-8")
    shutil.rmtree(staging)


def stage(policy_folder: Path, staging: Path) -> None:
    """Link a checkpoint into the folder that OpenRLHF reads when it starts."""
    staging.mkdir(parents=True)
    (staging / STAGED).symlink_to((policy_folder / DEEPSPEED).absolute(), target_is_directory=True)


def read(folder: Path, trainer: BasePPOTrainer) -> dict[str, int]:
    """The counters of the checkpoint that the ranks have read.

    Raises:
        CheckpointError: they read another checkpoint or none, or the counters cannot be read.
    """
    states = wait_for(trainer.actor_model_group.async_run_method("get_checkpoint_states"))
    try:
        summary = cast("dict[str, int | str]", json.loads((folder / SUMMARY).read_text(encoding="utf-8")))
        name = summary.pop(NAME)
        summary.pop("generate_calls", None)  # written by earlier versions
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"cannot read {folder / SUMMARY}: {error}") from error
    if any(state.get(NAME) != name for state in states):
        raise CheckpointError(f"OpenRLHF did not start from {folder}: start again with --resume")
    return {key: int(value) for key, value in summary.items()}


def export(folder: Path, trainer: BasePPOTrainer) -> None:
    """Write only the model, into an existing folder; OpenRLHF itself writes it only to `ckpt.output_dir`."""
    wait_for(trainer.actor_model_group.async_run_method("save_model"))
    written = Path(cast(str, trainer.args.ckpt.output_dir))
    if not written.samefile(folder):
        shutil.copytree(written, folder, dirs_exist_ok=True)
