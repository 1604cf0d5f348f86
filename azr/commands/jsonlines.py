"""The model-free commands' transport: JSON lines in, JSON lines out, same order, `id` carried through.

A line that cannot be used becomes `{"id": ..., "error": "line 7: ..."}` in its place; the others are processed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from azr.errors import InputError

Row = dict[str, Any]
CHUNK_LINES = 256
"""Lines in flight at once: enough to keep every container busy, few enough to hold in memory."""


class BadRow(Exception):
    """A row that is JSON but not what the command takes."""


@dataclass(frozen=True, slots=True)
class Line:
    """One input line: a row, or why it is none."""

    number: int
    row: Row
    error: str


async def process(
    source: Path,
    target: Path,
    *,
    work: Callable[[Sequence[Row]], Awaitable[list[Row]]],
    check: Callable[[Row], None],
    on_progress: Callable[[int], None],
) -> int:
    """Send every usable row through `work`, chunk by chunk; returns how many lines were not usable.

    `-` means standard input or output. A target file appears only when it is whole.

    Raises:
        InputError: a file cannot be read or written.
    """
    num_bad = 0
    with _reading(source) as lines, _writing(target) as out:
        while chunk := list(islice(lines, CHUNK_LINES)):
            read = [read_line(number, text, check=check) for number, text in chunk]
            done = iter(await work([line.row for line in read if not line.error]))
            for line in read:
                answer = {"id": line.row.get("id"), "error": line.error} if line.error else next(done)
                out.write(json.dumps(answer, ensure_ascii=True) + "\n")
            out.flush()
            num_bad += sum(bool(line.error) for line in read)
            on_progress(len(chunk))
    return num_bad


def read_line(number: int, text: str, *, check: Callable[[Row], None]) -> Line:
    """A line as a row that the command can use, or with the reason why not."""
    try:
        row: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Line(number, {}, f"line {number}: not JSON: {error}")
    if not isinstance(row, dict):
        return Line(number, {}, f"line {number}: not a JSON object")
    try:
        check(row)  # pyright: ignore[reportUnknownArgumentType]  # JSON objects have text keys
    except BadRow as error:
        return Line(number, {"id": row.get("id")}, f"line {number}: {error}")  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return Line(number, row, "")  # pyright: ignore[reportUnknownArgumentType]


def text_field(row: Row, name: str) -> str:
    """A field that must be text.

    Raises:
        BadRow: it is missing or something else.
    """
    if not isinstance(row.get(name), str):
        raise BadRow(f"`{name}` must be text" if name in row else f"`{name}` is missing")
    return row[name]


def texts_field(row: Row, name: str) -> tuple[str, ...]:
    """A field that must be a list of texts.

    Raises:
        BadRow: it is missing or something else.
    """
    value = row.get(name)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):  # pyright: ignore[reportUnknownVariableType]
        raise BadRow(f"`{name}` must be a list of texts" if name in row else f"`{name}` is missing")
    return tuple(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


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
