"""The transport of `azr exec`, `validate` and `verify`: JSON lines in and out, in the same order, `id` carried through.

A line that cannot be used becomes `{"id": ..., "error": "line 7: ..."}` in its place; the others are processed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from azr.build import make_executor
from azr.config import Config
from azr.errors import InputError
from azr.tasks.rows import BadRow, Row, parse_row
from sandbox.audit.log import Audited, AuditLog, Label
from sandbox.types import Executor

CHUNK_LINES = 256
"""Lines in flight at once: enough to keep every container busy, few enough to hold in memory."""
errors = Console(stderr=True)


class Work(Protocol):
    """What a command does with its rows."""

    def check(self, row: Row) -> None:
        """Raises `BadRow` if the command cannot use the row."""
        ...

    async def work(self, rows: Sequence[Row]) -> list[Row]:
        """One answer per row, in the same order."""
        ...


@dataclass(frozen=True, slots=True)
class InputLine:
    """One input line: a row, or the reason why it cannot be used."""

    row: Row
    error: str


def run(
    source: Path, target: Path, *, config: Config, audit: Path | None, make_work: Callable[[Executor], Work]
) -> int:
    """Process all lines in the config's sandbox; returns the exit code: 1 when a line could not be used.

    Raises:
        InputError: a file cannot be read or written.
        SandboxError: the sandbox failed.
    """
    num_bad = asyncio.run(_run(source, target, config=config, audit=audit, make_work=make_work))
    if num_bad:
        errors.print(f"[bold red]{num_bad} input lines could not be used[/]; their output lines say why")
    return 1 if num_bad else 0


async def _run(
    source: Path, target: Path, *, config: Config, audit: Path | None, make_work: Callable[[Executor], Work]
) -> int:
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    async with make_executor(config.sandbox) as executor:
        with (
            _recorded(executor, audit) as recorded,
            Progress(*columns, console=errors, disable=not errors.is_terminal) as progress,
        ):
            bar = progress.add_task("lines", total=None)
            return await process(
                source, target, make_work(recorded), on_progress=lambda count: progress.advance(bar, count)
            )


@contextmanager
def _recorded(executor: Executor, audit: Path | None) -> Generator[Executor]:
    """The executor, with an audit log if one was asked for. The log is anchored only if everything succeeded."""
    if audit is None:
        yield executor
        return
    with closing(AuditLog.open(audit)) as log:
        yield Audited(executor, log, Label("cli"))
        log.anchor(0)


async def process(source: Path, target: Path, work: Work, *, on_progress: Callable[[int], None]) -> int:
    """Send every usable row through `work`, chunk by chunk; returns how many lines were not usable.

    `-` means standard input or output. A target file appears only when it is complete.

    Raises:
        InputError: a file cannot be read or written.
    """
    num_bad = 0
    with _reading(source) as lines, _writing(target) as out:
        while chunk := list(islice(lines, CHUNK_LINES)):
            read = [read_line(number, text, check=work.check) for number, text in chunk]
            done = iter(await work.work([line.row for line in read if not line.error]))
            for line in read:
                answer = {"id": line.row.get("id"), "error": line.error} if line.error else next(done)
                out.write(json.dumps(answer, ensure_ascii=True) + "\n")
            out.flush()
            num_bad += sum(bool(line.error) for line in read)
            on_progress(len(chunk))
    return num_bad


def read_line(number: int, text: str, *, check: Callable[[Row], None]) -> InputLine:
    """A line as a row that the command can use, or with the reason why not."""
    row: Row = {}
    try:
        row = parse_row(text)
        check(row)
    except BadRow as error:
        return InputLine(row, f"line {number}: {error}")
    return InputLine(row, "")


@contextmanager
def _reading(source: Path) -> Generator[Iterator[tuple[int, str]]]:
    if str(source) == "-":
        yield _numbered(sys.stdin)
        return
    try:
        file = source.open(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}") from error
    with file:
        yield _numbered(file)


def _numbered(lines: TextIO) -> Iterator[tuple[int, str]]:
    return ((number, text) for number, text in enumerate(lines, start=1) if text.strip())


@contextmanager
def _writing(target: Path) -> Generator[TextIO]:
    if str(target) == "-":
        yield sys.stdout
        return
    partial = target.with_name(target.name + ".partial")
    try:
        file = partial.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}") from error
    with file:
        yield file
    try:
        partial.replace(target)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}; the answers are in {partial}") from error
