"""The programs to measure with: an embedded set of small ones, or JSON lines of real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from azr.errors import InputError
from azr.tasks import rows
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


async def small_jobs(executor: Executor, programs: Sequence[ProgramRow]) -> list[Job]:
    """One job per program that returns a value within `SMALL_S`, on its first input; the seed slots alternate."""
    limits = Limits(wall_s=1.0, cpu_s=1.0)
    jobs = [Job(row.program, row.inputs[:1], limits=limits, seed_slot=at % 2) for at, row in enumerate(programs)]
    executions = await executor.run(jobs)
    return [job for job, run in zip(jobs, executions, strict=True) if run.ok and run.cpu_s < SMALL_S]


def _read(file: Path) -> list[ProgramRow]:
    found = rows.read_rows(file, _program_row, what="program")
    if not found:
        raise InputError(f"{file} contains no programs")
    return found


def _program_row(row: rows.Row) -> ProgramRow:
    imports = rows.texts_field(row, "imports") if row.get("imports") else ()
    program = "\n".join([*imports, rows.text_field(row, "snippet")])
    return ProgramRow(program, rows.inputs_field(row), rows.message_field(row))
