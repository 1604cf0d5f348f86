"""Runs OpenRLHF's own command in this process, with our trainer in place of its own."""

from __future__ import annotations

import os
import re
import runpy
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from azr.errors import AzrError, ConfigError, PolicyError
from azr.policies.openrlhf import RAY_SETTINGS
from azr.policies.openrlhf.stock import NodeAffinitySchedulingStrategy, RayError, RayTaskError, ppo_trainer, ray
from azr.policies.openrlhf.trainer import AZRTrainer, Recipe
from sandbox.types import SandboxError

COMMAND = "openrlhf.cli.train_ppo_ray"


def launch(
    flags: Sequence[str], recipe: Recipe, *, address: str, log: Path, require: Callable[[Mapping[str, float]], None]
) -> None:
    """Run until the recipe is done; OpenRLHF's output goes to the file `log`.

    OpenRLHF's own parser and checks run before Ray starts. `require` is then called with Ray's GPUs and CPUs, because
    OpenRLHF would wait forever for missing ones.

    Raises:
        ConfigError: OpenRLHF refuses a flag or a combination of flags; Ray has not been started.
        PolicyError: a process of Ray, an engine or the trainer is lost.
        AzrError, SandboxError: the recipe raised it in its process.
    """
    with log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        start_ray = ray.init

        def start(**settings: Any) -> None:
            os.environ.update({name: os.environ.get(name, value) for name, value in RAY_SETTINGS.items()})
            start_ray(address or "local", log_to_driver=False, **settings)
            require(ray.cluster_resources())

        with _replaced(ray, "init", start), _replaced(ppo_trainer, "PPOTrainer", TrainerHere(recipe)):
            try:
                if ray.is_initialized():
                    require(ray.cluster_resources())
                with _replaced(sys, "argv", [COMMAND, *flags]), _remote_errors(log):
                    runpy.run_module(COMMAND, run_name="__main__")
            finally:
                ray.shutdown()


class TrainerHere:
    """Replaces OpenRLHF's trainer class: starts ours on this node, because the run directory is here."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def remote(self, *models: Any, **sampling: Any) -> Any:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(AZRTrainer).options(scheduling_strategy=here)
        return actor.remote(*models, recipe=self._recipe, **sampling)


@contextmanager
def _replaced(owner: object, name: str, value: object) -> Generator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _remote_errors(log: Path) -> Generator[None]:
    """Translate errors of other processes, and the messages with which OpenRLHF rejects its flags."""
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, AzrError | SandboxError):
            raise error.cause from None
        raise _lost(error) from error
    except RayError as error:
        raise _lost(error) from error
    except AssertionError as error:
        raise ConfigError(f"OpenRLHF refuses this combination of [openrlhf]: {error}") from error
    except SystemExit as error:
        if error.code:
            sys.stderr.flush()  # it is redirected to the log
            raise refusal(log.read_text(encoding="utf-8", errors="replace")) from error


def refusal(output: str) -> ConfigError:
    """The last line that OpenRLHF's parser printed, with the config key that it refers to."""
    reason = output.strip().rpartition("error: ")[2]
    named = re.match(r"argument --(\S+): ", reason)
    return ConfigError(f"OpenRLHF refuses [openrlhf]: {reason}", key=f"openrlhf.{named[1]}" if named else "")


def _lost(error: Exception) -> PolicyError:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return PolicyError(
        f"the run lost a process: {type(error).__name__}: {lines[-1].strip() if lines else ''}. "
        "Continue from the last checkpoint with --resume"
    )
