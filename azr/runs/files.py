"""Files that are whole or not there: atomic writes, JSON state, and the disk's refusals in plain words."""

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
    """Turn what the disk refuses into a `RunError` that says what to do.

    Raises:
        RunError: any OSError or sqlite3.Error inside the block.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise RunError(f"cannot {doing}: {_cause(error)}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file in one move: a reader or a crash sees the file from before or the new one, never a part."""
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
    """Write buffers, counters or random state atomically; text may hold any code point, lone surrogates included.

    Raises:
        RunError: the disk refuses.
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
    """Make the names in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cause(error: OSError | sqlite3.Error) -> str:
    is_full = isinstance(error, OSError) and error.errno in _FULL
    if is_full or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return (
            "the disk is full. Free some space, then go on with --resume; "
            "what was saved before is intact. A lower checkpoint.keep needs less room."
        )
    return str(error)
