"""Files that are complete or absent: atomic writes, JSON state, and disk errors that say what to do."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from azr.errors import CheckpointError, RunError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def disk_faults(doing: str) -> Generator[None]:
    """Turn disk errors inside the block into a `RunError` that says what to do.

    Raises:
        RunError: an OSError or sqlite3.Error was raised.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise RunError(f"cannot {doing}: {_cause(error)}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file in one step: after a crash it is the old file or the new one, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, state: Any) -> None:
    """Write buffers, counters or random state atomically. Text may contain any code point, even lone surrogates.

    Raises:
        RunError: the file cannot be written.
    """
    with disk_faults(f"write {path}"):
        write_atomically(path, json.dumps(state, separators=(",", ":")).encode("ascii"))


def read_json(path: Path) -> Any:
    """What `write_json` wrote.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read the saved state {path}: {error}") from error


def sync_folder(folder: Path) -> None:
    """Make new and renamed files in the folder survive a power failure."""
    if os.name == "nt":
        return  # Windows cannot open a folder, and does not need this
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cause(error: OSError | sqlite3.Error) -> str:
    is_full = isinstance(error, OSError) and error.errno in _FULL
    if is_full or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return (
            "the disk is full. Free some space, then continue with --resume: everything saved before is intact. "
            "A lower checkpoint.keep needs less space."
        )
    return str(error)
