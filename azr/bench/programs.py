"""The programs to measure with: an embedded set of small ones, or JSON lines of real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from azr.errors import InputError
from sandbox.types import Executor, Job, Limits

EMBEDDED = Path(__file__).with_name("programs.jsonl")
SMALL_S = 0.05
"""A program that needs more CPU time is left out: it would measure the program instead of the sandbox."""


@dataclass(frozen=True, slots=True)
class ProgramRow:
    """One line of a file: a program that defines `f`, its inputs, and the message of an induction task."""

    program: str
    inputs: tuple[str, ...]
    message: str


def read_rows(files: Sequence[Path]) -> list[ProgramRow]:
    """All rows of the files, or the embedded set if there are no files.

    Raises:
        InputError: a file cannot be read, or a line lacks `snippet` and `input` or `inputs`.
    """
    return [row for file in files or [EMBEDDED] for row in _read(file)]


async def small_jobs(executor: Executor, rows: Sequence[ProgramRow]) -> list[Job]:
    """One job per program that returns a value within `SMALL_S`, on its first input; the seed slots alternate."""
    limits = Limits(wall_s=1.0, cpu_s=1.0)
    jobs = [Job(row.program, row.inputs[:1], limits=limits, seed_slot=at % 2) for at, row in enumerate(rows)]
    executions = await executor.run(jobs)
    return [job for job, run in zip(jobs, executions, strict=True) if run.ok and run.cpu_s < SMALL_S]


def _read(file: Path) -> list[ProgramRow]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # `splitlines` also splits inside texts, at U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the programs in {file}: {error}") from error
    rows: list[ProgramRow] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_row(cast(dict[str, Any], json.loads(line))))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file}:{number}: expected snippet, and input or inputs: {error!r}") from error
    if not rows:
        raise InputError(f"{file} contains no programs")
    return rows


def _row(fields: dict[str, Any]) -> ProgramRow:
    inputs = _texts(fields["inputs"] if "inputs" in fields else [fields["input"]])
    program = "\n".join([*_texts(fields.get("imports") or []), *_texts([fields["snippet"]])])
    [message] = _texts([fields.get("message") or ""])
    if not inputs:
        raise ValueError("inputs is empty")
    return ProgramRow(program, tuple(inputs), message)


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in cast(list[object], value)):
        raise TypeError(f"{value!r:.80} is not a list of texts")
    return cast(list[str], value)
