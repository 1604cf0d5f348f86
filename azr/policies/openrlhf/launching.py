"""Runs OpenRLHF's own command in this process, with our trainer in the place of its own."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from azr.errors import AzrError, PolicyError
from azr.policies.openrlhf import RAY_SETTINGS
from azr.policies.openrlhf.stock import NodeAffinitySchedulingStrategy, RayError, RayTaskError, ppo_trainer, ray
from azr.policies.openrlhf.trainer import AZRTrainer, Recipe
from sandbox.types import SandboxError

COMMAND = "openrlhf.cli.train_ppo_ray"
ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "true", "NCCL_DEBUG": "WARN", "RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": "1"}
"""What OpenRLHF's command gives Ray's workers when it starts Ray itself."""


def launch(
    flags: Sequence[str], recipe: Recipe, *, address: str, log: Path, require: Callable[[Mapping[str, float]], None]
) -> None:
    """Run until the recipe is played; what OpenRLHF says of it goes to the file `log`.

    `require` is told what GPUs and CPUs Ray has: OpenRLHF would wait for missing ones for ever.

    Raises:
        PolicyError: a process of Ray's, the engines' or the trainer's is lost, or OpenRLHF refuses its flags.
        AzrError, SandboxError: what the recipe raised, as if it had run here.
    """
    with log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        if not ray.is_initialized():
            os.environ.update({name: os.environ.get(name, value) for name, value in RAY_SETTINGS.items()})
            environment = {name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()}
            ray.init(address or "local", log_to_driver=False, runtime_env={"env_vars": environment})
        stock_trainer = ppo_trainer.PPOTrainer
        ppo_trainer.PPOTrainer = TrainerHere(recipe)
        try:
            require(ray.cluster_resources())
            with _arguments(flags), _remote_errors():
                runpy.run_module(COMMAND, run_name="__main__")
        finally:
            ppo_trainer.PPOTrainer = stock_trainer
            ray.shutdown()


class TrainerHere:
    """Stands where OpenRLHF looks for its trainer's class: makes ours, on this node, where the run directory is."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def remote(self, *models: Any, **sampling: Any) -> Any:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(AZRTrainer).options(scheduling_strategy=here)
        return actor.remote(*models, recipe=self._recipe, **sampling)


@contextmanager
def _arguments(flags: Sequence[str]) -> Generator[None]:
    before = sys.argv
    sys.argv = [COMMAND, *flags]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _remote_errors() -> Generator[None]:
    """What went wrong in another process, as our error; Ray's is an instance of the one that was raised there."""
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, AzrError | SandboxError):
            raise error.cause from None
        raise _lost(error) from error
    except RayError as error:
        raise _lost(error) from error
    except SystemExit as error:
        if error.code:
            raise PolicyError(f"OpenRLHF refused to start (exit code {error.code})") from error


def _lost(error: Exception) -> PolicyError:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return PolicyError(
        f"a process of the run is lost: {type(error).__name__}: {lines[-1].strip() if lines else ''}. "
        "Go on from the last checkpoint with --resume"
    )
