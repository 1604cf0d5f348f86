"""The run directory: everything a run leaves behind, and the lock that keeps a second trainer out.

::

    runs/nano-1/
    ├── config.toml       the resolved config
    ├── metrics.jsonl     a line a step
    ├── run.db            tasks, rollouts and the audit log of all executions (SQLite)
    ├── anchors.jsonl     where the audit log stood after each step; copy it elsewhere
    ├── audit/            logs of a cluster's sandbox workers, a folder each
    ├── checkpoints/      step-000010/ ...
    ├── log.txt
    └── lock              held while a trainer lives
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from azr import configfile
from azr.config import Config
from azr.errors import ConfigError, RunError
from azr.runs.files import disk_faults, write_atomically
from azr.runs.printable import printable

MAY_CHANGE = ("steps", "checkpoint.", "evaluation.every", "sinks.")
"""Config keys, or tables of them, that a resumed run may set anew."""

LOGGERS = ("azr", "sandbox")
"""Whose messages go to log.txt."""


class RunDirectory:
    """Paths of a run. `create` and `resume` also lock it and keep log.txt; leave the `with` block to release both."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._log: logging.Handler | None = None

    @classmethod
    def create(cls, path: Path, config: Config) -> Self:
        """Begin a run in a folder that is not there yet or is empty.

        Raises:
            RunError: something lies there already, another trainer holds it, or the disk refuses.
        """
        cls.require_new(path)
        with disk_faults(f"create the run directory {path}"):
            path.mkdir(parents=True, exist_ok=True)
        return cls(path)._occupy(config)

    @staticmethod
    def require_new(path: Path) -> None:
        """Check that a run may begin here, before anything expensive is opened.

        Raises:
            RunError: something lies there already.
        """
        with disk_faults(f"create the run directory {path}"):
            if path.exists() and any(entry.name != "lock" for entry in path.iterdir()):
                raise RunError(f"{path} is not empty: use --resume to go on with it, or another --run-dir")

    @classmethod
    def resume(cls, path: Path, config: Config) -> Self:
        """Go on with a run under the same config, but for the keys in `MAY_CHANGE`.

        Raises:
            RunError: no run lies there, it was started with another config, or another trainer holds it.
        """
        run = cls.open(path)
        key = _first_difference(run.config(), config)
        if key:
            begun, given = _value(run.config(), key), _value(config, key)
            raise RunError(
                f"{path} was started with {key} = {begun!r}, now it is {given!r}: "
                "resume with the same value, or start anew in another --run-dir"
            )
        return run._occupy(config)

    @classmethod
    def open(cls, path: Path) -> Self:
        """A run to read from; takes no lock.

        Raises:
            RunError: no run lies there.
        """
        if not (path / "config.toml").is_file():
            raise RunError(f"{path} is not a run directory: it has no config.toml")
        return cls(path)

    def config(self) -> Config:
        """The config that the run was started, or last resumed, with.

        Raises:
            RunError: it cannot be read by this version.
        """
        try:
            return configfile.load(self.path / "config.toml")
        except ConfigError as error:
            raise RunError(f"the run's own config cannot be read: {error}") from error

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def database(self) -> Path:
        return self.path / "run.db"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop logging and release the lock."""
        if self._log is not None:
            for name in LOGGERS:
                logging.getLogger(name).removeHandler(self._log)
            self._log.close()
            self._log = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _occupy(self, config: Config) -> Self:
        self._take_lock()
        try:
            with disk_faults(f"write to the run directory {self.path}"):
                write_atomically(self.path / "config.toml", configfile.dump(config).encode("utf-8"))
                self.checkpoints.mkdir(exist_ok=True)
                self._log = _log_to(self.log)
        except BaseException:
            self.close()
            raise
        return self

    def _take_lock(self) -> None:
        """The kernel drops the lock when its holder dies, however it dies."""
        with disk_faults(f"open the lock in {self.path}"):
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
            os.close(lock)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise RunError(f"{self.path} lies on a filesystem without file locks ({error}); use another") from error
            raise RunError(
                f"another trainer (process {holder}) is writing to {self.path}: wait for it, or use another --run-dir"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode("ascii"), 0)
        self._lock = lock


class OneLineFormatter(logging.Formatter):
    """Model text in a message can neither forge a second line nor move the cursor of who reads the file."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        record.message = printable(record.message)
        return super().formatMessage(record)


def _log_to(path: Path) -> logging.Handler:
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        if logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)
    return handler


def _first_difference(stored: Config, given: Config) -> str:
    for key in configfile.known_keys():
        if not key.startswith(MAY_CHANGE) and _value(stored, key) != _value(given, key):
            return key
    return ""


def _value(config: Config, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value
