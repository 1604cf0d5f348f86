"""What runs in the fork that a program gets for itself. It hands over texts; it is believed in nothing else."""

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
from sandbox.shared import screen as policy
from sandbox.shared import wire
from sandbox.shared.values import Arguments, NotAValue, TooLarge, arguments_text, encode
from sandbox.shared.wire import Kind, Request

MAX_ERROR_CHARS = 300
COLLECT = "(lambda *positional, **keywords: (positional, keywords))"
"""What an input is written behind, to be the arguments of this call and nothing else."""

HandOver = Callable[..., None]
"""Kind and texts to the host: a line a call of the program, or one line of failure."""


def be(request: Request, body: memoryview, result_fd: int, output_fd: int) -> NoReturn:
    """The whole life of a fork: read what is asked, be confined, do it."""
    leave, code = os._exit, wire.BROKEN_EXIT
    try:
        nonce, texts = wire.read_body(bytes(body))
        confine.enter(request, result_fd, output_fd)
        code = 1
        do(request, texts, writer(confine.RESULT_FD, nonce))
        code = 0
    finally:
        leave(code)


def do(request: Request, texts: tuple[Any, ...], hand_over: HandOver) -> None:
    """What is asked, in here. Whatever the program raises becomes one line: no atexit, no threads, no finalizers."""
    kind = wire.ERROR
    try:
        return _VERBS[request.kind](texts, request.output_bytes, hand_over)
    except TooLarge as error:
        kind, told = wire.TOO_LARGE, _told(error)
    except NotAValue as error:
        kind, told = wire.NOT_A_VALUE, _told(error)
    except MemoryError as error:
        kind, told = wire.MEMORY, _told(error)
    except BaseException as error:
        told = _told(error)
    return hand_over(kind, told)


def writer(fd: int, nonce: bytes) -> HandOver:
    """Lines on the result pipe. The nonce keeps accidents and simple forgeries apart from ours; a program that digs it
    out of this process gains nothing, since it could have returned the value that it writes."""
    write, leave = os.write, os._exit

    def hand_over(kind: bytes, *texts: str) -> None:
        lines = b"".join(
            [nonce + kind + text.replace("\n", " ").encode("utf-8", "backslashreplace") + b"\n" for text in texts]
        )
        while lines:
            lines = lines[write(fd, lines) :]
        if kind != wire.VALUE:
            leave(0)

    return hand_over


def call_program(texts: tuple[Any, ...], max_bytes: int, hand_over: HandOver) -> None:
    """Define the program's names in an empty module, call the entry on each input, hand over the values."""
    name, program, *inputs = texts
    given = [[wire.read_arguments(packed) for _ in range(wire.CALLS)] for packed in inputs]
    module = types.ModuleType("program")
    sys.modules["program"] = sys.modules["__main__"] = module
    try:
        code = compile(program, "<program>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        hand_over(wire.SYNTAX_ERROR, _told(error))
        raise
    exec(code, module.__dict__)
    entry = module.__dict__.get(name)
    if entry is None:
        raise NameError(f"the program defines no {name!r}")
    for calls in given:
        values = [encode(entry(*positional, **keywords), max_bytes) for positional, keywords in calls]
        hand_over(wire.VALUE, *values)


def inspect_program(texts: tuple[Any, ...], max_bytes: int, hand_over: HandOver) -> None:
    """Apply the static policy; parser bombs end here, under the limits."""
    del max_bytes
    program, *forbidden = texts
    try:
        found = policy.find_forbidden(program, forbidden)
    except (SyntaxError, ValueError, RecursionError) as error:
        hand_over(wire.SYNTAX_ERROR, _told(error))
        raise
    hand_over(wire.FORBIDDEN if found else wire.VALUE, found or "")


def evaluate_input(texts: tuple[Any, ...], max_bytes: int, hand_over: HandOver) -> None:
    """Evaluate an argument list in a namespace of builtins and value types, and hand over its canonical text.

    A text that closes the bracket early (`1) or (2`, `1)(2`) parses to something else than one call of our lambda.
    """
    try:
        tree = ast.parse(f"{COLLECT}({texts[0]}\n)", mode="eval")
        code = compile(tree, "<input>", "eval", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        hand_over(wire.SYNTAX_ERROR, _told(error))
        raise
    if not (isinstance(tree.body, ast.Call) and isinstance(tree.body.func, ast.Lambda)):
        hand_over(wire.SYNTAX_ERROR, "not an argument list")
    hand_over(wire.VALUE, arguments_text(Arguments(*eval(code, dict(INPUT_NAMES))), max_bytes))


def _told(error: BaseException) -> str:
    name = type.__dict__["__name__"].__get__(type(error))
    try:
        return f"{name}: {str(error)[:MAX_ERROR_CHARS]}"
    except BaseException:
        return str(name)


INPUT_NAMES: dict[str, Any] = {
    "collections": collections,
    "datetime": datetime,
    "decimal": decimal,
    "fractions": fractions,
    "Counter": collections.Counter,
    "OrderedDict": collections.OrderedDict,
    "defaultdict": collections.defaultdict,
    "deque": collections.deque,
    "Fraction": fractions.Fraction,
    "Decimal": decimal.Decimal,
    "date": datetime.date,
    "timedelta": datetime.timedelta,
    "timezone": datetime.timezone,
    "nan": math.nan,
    "inf": math.inf,
}

_VERBS: dict[int, Callable[[tuple[Any, ...], int, HandOver], None]] = {
    Kind.INSPECT: inspect_program,
    Kind.EVALUATE: evaluate_input,
    Kind.CALL: call_program,
}
