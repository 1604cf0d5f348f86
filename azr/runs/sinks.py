"""Where metrics go beside metrics.jsonl: TensorBoard, Weights & Biases. Opt-in, imported only when asked for."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from azr.config import SinksConfig
from azr.errors import RunError
from azr.runs.files import write_atomically

Import = Callable[[str], ModuleType]


class Sink(Protocol):
    """Takes each step's finite values."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def open_sinks(config: SinksConfig, run_path: Path, *, import_module: Import = importlib.import_module) -> list[Sink]:
    """The sinks that the config asks for.

    Raises:
        RunError: the package of one is not installed.
    """
    sinks: list[Sink] = []
    if config.tensorboard:
        sinks.append(TensorBoardSink(run_path / "tensorboard", import_module))
    if config.wandb:
        sinks.append(WandbSink(run_path, config.wandb_project, import_module))
    return sinks


class TensorBoardSink:
    """Event files through the tensorboard package alone: no torch, no TensorFlow."""

    def __init__(self, folder: Path, import_module: Import = importlib.import_module) -> None:
        self._writer: Any = _import("tensorboard.summary", "tensorboard", import_module).Writer(str(folder))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandbSink:
    """One W&B run per run directory: its id is kept there, so that a resumed run goes on in the same chart."""

    def __init__(self, run_path: Path, project: str, import_module: Import = importlib.import_module) -> None:
        wandb: Any = _import("wandb", "wandb", import_module)
        self._run: Any = wandb.init(
            project=project, name=run_path.name, id=_run_id(run_path), dir=str(run_path), resume="allow"
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def _run_id(run_path: Path) -> str:
    path = run_path / "wandb_id.txt"
    if not path.exists():
        write_atomically(path, uuid.uuid4().hex.encode("ascii"))
    return path.read_text(encoding="ascii")


def _import(module: str, package: str, import_module: Import) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise RunError(
            f"sinks.{package} = true needs the package {package}: pip install 'azr[sinks]', or switch it off"
        ) from error
