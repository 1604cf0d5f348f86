"""Anchors: where an audit log stood after each step, in a file that can be copied elsewhere or signed."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any, NamedTuple


class Anchor(NamedTuple):
    """A line of the anchors file; or what else tells where the log stood."""

    line: int
    run: str
    step: int
    num_records: int
    head: str
    place: str = ""
    """Where this is written, if not in the anchors file."""

    @property
    def where(self) -> str:
        return self.place or f"the anchor of step {self.step} (line {self.line})"

    @classmethod
    def read(cls, number: int, line: bytes) -> Anchor | None:
        """None when the line is none of ours."""
        try:
            told: Any = json.loads(line)
            return cls(number, str(told["run"]), int(told["step"]), int(told["count"]), str(told["head"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None


def anchors_of(path: Path) -> Path:
    """Where the anchors of a log lie: `anchors.jsonl` beside a `run.db`, `NAME.anchors.jsonl` beside any other file."""
    return path.with_name("anchors.jsonl" if path.name == "run.db" else f"{path.name}.anchors.jsonl")


def append_line(path: Path, line: str) -> None:
    """Append durably; a line that a crash tore is taken away first, one that the disk refuses is taken back."""
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
