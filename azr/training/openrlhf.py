"""A training run on OpenRLHF: this process starts its command and shows progress, the loop runs in a Ray actor."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

from rich.console import Console

from azr.config import Config
from azr.errors import PolicyError
from azr.policies.base import Policy
from azr.policies.openrlhf import STAGING
from azr.policies.openrlhf.flags import flags, optimizer_steps
from azr.policies.openrlhf.preflight import require_resources
from azr.runs.checkpoint import CheckpointStore
from azr.runs.metrics import read as read_metrics
from azr.runs.progress import Progress
from azr.runs.relay import Relay, following
from azr.sizing.topology import topology_of
from azr.training.run import train_run

LOG = "openrlhf.log"


@dataclass(frozen=True, slots=True)
class Play:
    """What the trainer's process does with its policy. It travels there."""

    config: Config
    folder: Path
    resume: bool
    relay: Path
    stop: Path
    """A file that appears when the run is to end after its step. Ray's workers do not hear signals."""

    def __call__(self, policy: Policy) -> None:
        asyncio.run(self._train(policy))

    async def _train(self, policy: Policy) -> None:
        await train_run(
            self.config,
            self.folder,
            resume=self.resume,
            load_policy=lambda: policy,
            watch=lambda history: Relay(self.relay),
            told_to_stop=self.stop.exists,
        )


def train_distributed(config: Config, folder: Path, *, resume: bool, console: Console) -> int:
    """Train on OpenRLHF; returns the last finished step.

    Raises:
        ConfigError: OpenRLHF cannot run with this config; nothing has been started.
        PolicyError: a process is lost; the run can be resumed.
    """
    folder = folder.absolute()
    staging = folder / f"{STAGING}{uuid.uuid4().hex[:8]}"
    folders = {"ckpt.path": str(staging), "ckpt.output_dir": str(folder / "model")}
    command = [*flags(config, folders=folders), "--ckpt.save_hf"]
    log = Path(tempfile.gettempdir(), f"azr-openrlhf-{os.getpid()}.log")
    with tempfile.TemporaryDirectory(prefix="azr-openrlhf-") as name:
        scratch = Path(name)
        play = Play(config, folder, resume, scratch / "progress.jsonl", scratch / "stop")
        history = read_metrics(folder / "metrics.jsonl") if resume else []
        shown = Console(file=console.file)  # the terminal itself: OpenRLHF's own words are sent elsewhere
        if resume and _stage(config, folder, staging):
            command.append("--ckpt.load_enable")
        try:
            with (
                Progress(str(folder), history=history, console=shown) as progress,
                following(play.relay, progress),
                _interruptible(play.stop),
            ):
                progress.note("starting Ray, the vLLM engines and the actors")
                _launch(command, play, config, log=log)
        except PolicyError as error:
            raise PolicyError(f"{error}. What OpenRLHF said: {_keep(log, folder)}") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            _keep(log, folder)
    return int(read_metrics(folder / "metrics.jsonl")[-1]["step"])


def _launch(command: list[str], play: Play, config: Config, *, log: Path) -> None:
    from azr.policies.openrlhf.launching import launch
    from azr.policies.openrlhf.trainer import Recipe

    require = partial(require_resources, config, topology_of(config))
    launch(command, Recipe(play, optimizer_steps(config)), address=config.cluster.address, log=log, require=require)


def _stage(config: Config, folder: Path, staging: Path) -> bool:
    """Lay the newest checkpoint where OpenRLHF looks for one; False where there is none."""
    from azr.policies.openrlhf.checkpoint import stage

    checkpoint = CheckpointStore(folder / "checkpoints", config.checkpoint.keep).latest()
    if checkpoint is None:
        return False
    stage(checkpoint.folder / "policy", staging)
    return True


def _keep(log: Path, folder: Path) -> Path:
    """OpenRLHF's own words go to the run directory, if there is one by now; returns where they are."""
    if not folder.is_dir():
        return log
    if log.is_file():
        with (folder / LOG).open("a", encoding="utf-8") as kept:
            kept.write(log.read_text(encoding="utf-8", errors="replace"))
        log.unlink()
    return folder / LOG


@contextmanager
def _interruptible(stop: Path) -> Generator[None]:
    """The first Ctrl-C is passed on to the loop, which stops after the step; the second one breaks off."""
    errors = Console(file=sys.stderr)  # as it is now: later it is OpenRLHF's log
    asked: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        asked.append(1)
        if len(asked) > 1:
            raise KeyboardInterrupt
        stop.touch()
        errors.print("stopping after this step, with a checkpoint; press Ctrl-C again to stop now, without one")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
