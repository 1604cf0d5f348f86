"""What runs in the fork that belongs to one request. Read `run` first. The host trusts nothing that comes from here."""

from __future__ import annotations

import ast
import collections
import datetime
import decimal
import fractions
import math
import os
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn

from sandbox.guest import confine
from sandbox.shared import screen, wire
from sandbox.shared.values import Arguments, NotAValue, TooLarge, arguments_text, encode
from sandbox.shared.wire import Kind, RequestHeader

MAX_ERROR_CHARS = 300
COLLECT = "(lambda *positional, **keywords: (positional, keywords))"
"""An input is written behind this function, so that it becomes the arguments of the call and nothing else."""

Write = Callable[..., None]
"""Sends a kind and texts to the host: one line per call of the program, or one line that says why it failed."""


def run(header: RequestHeader, body: memoryview, result_fd: int, output_fd: int) -> NoReturn:
    """The whole life of a fork: read the request, give up every privilege, do the work."""
    leave, code = os._exit, wire.BROKEN_EXIT
    try:
        nonce, texts = wire.read_body(bytes(body))
        confine.enter(header, result_fd, output_fd)
        code = 1
        work(header, texts, line_writer(confine.RESULT_FD, nonce))
        code = 0
    finally:
        leave(code)


def work(header: RequestHeader, texts: tuple[Any, ...], write: Write) -> None:
    """Do what the request asks for. Whatever is raised becomes one line; no atexit, threads or finalizers run."""
    kind = wire.ERROR
    try:
        return _WORK[header.kind](texts, header.output_bytes, write)
    except TooLarge as error:
        kind, message = wire.TOO_LARGE, _message(error)
    except NotAValue as error:
        kind, message = wire.NOT_A_VALUE, _message(error)
    except MemoryError as error:
        kind, message = wire.MEMORY, _message(error)
    except BaseException as error:
        message = _message(error)
    return write(kind, message)


def line_writer(fd: int, nonce: bytes) -> Write:
    """Writes lines to the result pipe. The nonce tells our lines from accidents and simple forgeries. A program that
    finds it in memory gains nothing, because it could have returned the value that it writes."""
    write_bytes, leave = os.write, os._exit

    def write(kind: bytes, *texts: str) -> None:
        lines = b"".join(
            [nonce + kind + text.replace("\n", " ").encode("utf-8", "backslashreplace") + b"\n" for text in texts]
        )
        while lines:
            lines = lines[write_bytes(fd, lines) :]
        if kind != wire.VALUE:
            leave(0)

    return write


def call_program(texts: tuple[Any, ...], max_bytes: int, write: Write) -> None:
    """Define the program's names in an empty module, call the entry on each input, write the values."""
    name, program, *inputs = texts
    arguments = [[wire.read_arguments(packed) for _ in range(wire.CALLS)] for packed in inputs]
    module = types.ModuleType("program")
    sys.modules["program"] = sys.modules["__main__"] = module
    try:
        code = compile(program, "<program>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        write(wire.SYNTAX_ERROR, _message(error))
        raise
    exec(code, module.__dict__)
    entry = module.__dict__.get(name)
    if entry is None:
        raise NameError(f"the program does not define {name!r}")
    for calls in arguments:
        values = [encode(entry(*positional, **keywords), max_bytes) for positional, keywords in calls]
        write(wire.VALUE, *values)


def inspect_program(texts: tuple[Any, ...], max_bytes: int, write: Write) -> None:
    """Screen the program. A program that exhausts the parser does it here, under the limits."""
    del max_bytes
    program, *forbidden = texts
    try:
        found = screen.find_forbidden(program, forbidden)
    except (SyntaxError, ValueError, RecursionError) as error:
        write(wire.SYNTAX_ERROR, _message(error))
        raise
    write(wire.FORBIDDEN if found else wire.VALUE, found or "")


def evaluate_input(texts: tuple[Any, ...], max_bytes: int, write: Write) -> None:
    """Evaluate an argument list in a namespace of builtins and value types, and write its canonical text.

    A text that closes the bracket early (`1) or (2`, `1)(2`) does not parse to one call of our lambda.
    """
    try:
        tree = ast.parse(f"{COLLECT}({texts[0]}\n)", mode="eval")
        code = compile(tree, "<input>", "eval", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        write(wire.SYNTAX_ERROR, _message(error))
        raise
    if not (isinstance(tree.body, ast.Call) and isinstance(tree.body.func, ast.Lambda)):
        write(wire.SYNTAX_ERROR, "not an argument list")
    write(wire.VALUE, arguments_text(Arguments(*eval(code, dict(INPUT_NAMES))), max_bytes))


def _message(error: BaseException) -> str:
    name = type.__dict__["__name__"].__get__(type(error))
    try:
        return f"{name}: {str(error)[:MAX_ERROR_CHARS]}"
    except BaseException:
        return str(name)


_MODULES = {module.__name__: module for module in (collections, datetime, decimal, fractions)}
_TYPES = (
    *(collections.Counter, collections.OrderedDict, collections.defaultdict, collections.deque),
    *(fractions.Fraction, decimal.Decimal, datetime.date, datetime.timedelta, datetime.timezone),
)
INPUT_NAMES: dict[str, Any] = {**_MODULES, **{kind.__name__: kind for kind in _TYPES}, "nan": math.nan, "inf": math.inf}
"""What the source of an input may name, besides builtins."""

_WORK: dict[int, Callable[[tuple[Any, ...], int, Write], None]] = {
    Kind.INSPECT: inspect_program,
    Kind.EVALUATE: evaluate_input,
    Kind.CALL: call_program,
}
