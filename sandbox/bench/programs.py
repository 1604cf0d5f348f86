"""The programs that are measured: an embedded set of small ones, or JSON lines of real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sandbox.types import Executor, Job, Limits

EMBEDDED = Path(__file__).with_name("programs.jsonl")
SMALL_S = 0.05
"""A program that takes longer alone is not a small one: its own work would be measured, not the sandbox."""


class BadPrograms(ValueError):
    """A file of programs cannot be read; names the file and the line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file: a program that defines `f`, and one input or several with a message."""

    program: str
    inputs: tuple[str, ...]
    message: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One program and the input to call it with: one verdict."""

    program: str
    input: str


def read_rows(files: Sequence[Path]) -> list[Row]:
    """All rows of the files; without a file the embedded set.

    Raises:
        BadPrograms: a file cannot be read, or a line lacks `snippet` and `input` or `inputs`.
    """
    return [row for file in files or [EMBEDDED] for row in _read(file)]


def samples_of(rows: Sequence[Row]) -> list[Sample]:
    """Each row's first input."""
    return [Sample(row.program, row.inputs[0]) for row in rows]


async def small_ones(executor: Executor, samples: Sequence[Sample]) -> list[Sample]:
    """The samples that give a value soon: the floors know no limits, so nothing else may run there."""
    limits = Limits(wall_s=1.0, cpu_s=1.0)
    jobs = [Job(one.program, (one.input,), limits=limits, seed_slot=at % 2) for at, one in enumerate(samples)]
    executions = await executor.run(jobs)
    pairs = zip(samples, executions, strict=True)
    return [one for one, execution in pairs if execution.ok and execution.cpu_s < SMALL_S]


def _read(file: Path) -> list[Row]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # `splitlines` also splits inside texts, at U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise BadPrograms(f"cannot read the programs {file}: {error}") from error
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_row(cast(dict[str, Any], json.loads(line))))
        except (ValueError, KeyError, TypeError) as error:
            raise BadPrograms(f"{file}:{number} is no program (snippet, input or inputs): {error!r}") from error
    if not rows:
        raise BadPrograms(f"{file} holds no programs")
    return rows


def _row(fields: dict[str, Any]) -> Row:
    inputs = _texts(fields["inputs"] if "inputs" in fields else [fields["input"]])
    program = "\n".join([*_texts(fields.get("imports") or []), *_texts([fields["snippet"]])])
    [message] = _texts([fields.get("message") or ""])
    if not inputs:
        raise ValueError("there is no input")
    return Row(program, tuple(inputs), message)


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in cast(list[object], value)):
        raise TypeError(f"{value!r:.80} is no list of texts")
    return cast(list[str], value)
