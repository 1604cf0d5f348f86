"""What runs in the fork that a program gets for itself. It only hands over texts; it is believed in nothing else."""

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
from typing import Any

from sandbox.guest import policy
from sandbox.types import Job
from sandbox.values import Arguments, NotAValue, TooLarge, arguments_text, decode_arguments, encode

VALUE, ERROR, NOT_A_VALUE, SYNTAX_ERROR, MEMORY, TOO_LARGE, FORBIDDEN = (b"v", b"e", b"n", b"s", b"m", b"o", b"f")
MAX_ERROR_CHARS = 300
COLLECT = "(lambda *positional, **keywords: (positional, keywords))"
"""What an input is written behind, to be the arguments of this call and nothing else."""

HandOver = Callable[[bytes, str], None]
"""Kind and text to the job process: one line a call of the program, or one line of failure."""


def writer(fd: int, nonce: bytes) -> HandOver:
    """Lines on the result pipe. The nonce keeps accidents and simple forgeries apart from ours; a program that digs it
    out of this process gains nothing, since it could have returned the value that it writes."""
    write, leave = os.write, os._exit

    def hand_over(kind: bytes, text: str) -> None:
        line = nonce + kind + text.replace("\n", " ").encode("utf-8", "backslashreplace") + b"\n"
        while line:
            line = line[write(fd, line) :]
        if kind != VALUE:
            leave(0)

    return hand_over


def run_program(job: Job, arguments: str, hand_over: HandOver) -> None:
    """Define the program's names in an empty module, call the entry, hand over each value."""
    calls = [decode_arguments(arguments) for _ in range(job.calls)]
    module = types.ModuleType("program")
    sys.modules["program"] = sys.modules["__main__"] = module

    def work() -> None:
        exec(_compiled(job, hand_over), module.__dict__)
        entry = module.__dict__.get(job.entry)
        if entry is None:
            raise NameError(f"the program defines no {job.entry!r}")
        for each in calls:
            hand_over(VALUE, encode(entry(*each.positional, **each.keywords), job.limits.output_bytes))

    guarded(work, hand_over)


def evaluate_input(text: str, max_bytes: int, hand_over: HandOver) -> None:
    """Evaluate an argument list in a namespace of builtins and value types, and hand over its canonical text.

    A text that closes the bracket early (`1) or (2`, `1)(2`) parses to something else than one call of our lambda.
    """

    def work() -> None:
        try:
            tree = ast.parse(f"{COLLECT}({text}\n)", mode="eval")
            code = compile(tree, "<input>", "eval", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            hand_over(SYNTAX_ERROR, _told(error))
            return
        if not (isinstance(tree.body, ast.Call) and isinstance(tree.body.func, ast.Lambda)):
            hand_over(SYNTAX_ERROR, "not an argument list")
            return
        hand_over(VALUE, arguments_text(Arguments(*eval(code, dict(INPUT_NAMES))), max_bytes))

    guarded(work, hand_over)


def guarded(work: Callable[[], None], hand_over: HandOver) -> None:
    """Whatever the program raises becomes one line, and the process ends here: no atexit, no threads, no finalizers."""
    kind = ERROR
    try:
        work()
        os._exit(0)
    except TooLarge as error:
        kind, told = TOO_LARGE, _told(error)
    except NotAValue as error:
        kind, told = NOT_A_VALUE, _told(error)
    except MemoryError as error:
        kind, told = MEMORY, _told(error)
    except BaseException as error:
        told = _told(error)
    hand_over(kind, told)
    os._exit(0)


def _compiled(job: Job, hand_over: HandOver) -> types.CodeType:
    """The program's code, after the static policy had its look; parser bombs end here, under the limits."""
    try:
        found = policy.find_forbidden(job.program, job.forbidden) if job.forbidden else ""
        if found:
            hand_over(FORBIDDEN, found)
        return compile(job.program, "<program>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        hand_over(SYNTAX_ERROR, _told(error))
        raise


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
