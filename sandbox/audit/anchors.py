"""Anchors: number of records and last hash after each step, in a file that can be copied elsewhere or signed."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any, NamedTuple


class Anchor(NamedTuple):
    """A line of the anchors file."""

    line: int
    run: str
    step: int
    num_records: int
    head: str
    """Hash of the last record."""

    @classmethod
    def read(cls, number: int, line: bytes) -> Anchor | None:
        """None if the line is not an anchor."""
        try:
            body: Any = json.loads(line)
            return cls(number, str(body["run"]), int(body["step"]), int(body["count"]), str(body["head"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None


def anchors_of(path: Path) -> Path:
    """The anchors file of a log: `anchors.jsonl` beside a `run.db`, `NAME.anchors.jsonl` beside any other file."""
    return path.with_name("anchors.jsonl" if path.name == "run.db" else f"{path.name}.anchors.jsonl")


def append_line(path: Path, line: str) -> None:
    """Append durably: replaces an incomplete last line that a crash left, and leaves none itself if the disk fails."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        content = path.read_bytes()
        end = content.rfind(b"\n") + 1
        os.ftruncate(descriptor, end)
        try:
            if os.pwrite(descriptor, line.encode("ascii"), end) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)
