"""The nano model's small Python: chains of one to four statements on a list, an int or a string.

A filled-in example: `def f(x):\\n a=sorted(x)\\n return a[0]` on `[3, 1]` takes the values `[1, 3]` and `1`.
Programs are drawn together with their values. Text is parsed by `parse` and computed by `run`, never by Python itself.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, cast

Value = int | str | list[int]

LETTERS = "pqrs"
VARIABLES = "abc"
MAX_STATEMENTS = 4
LARGEST_INT = 19
LONGEST_LIST = 5
LONGEST_TEXT = 6
HEADER = "def f(x):"


class OutsideGrammarError(Exception):
    """The program, or one of its values, is not part of the small language."""


class Operation(NamedTuple):
    """One expression of the language."""

    kind: type[Value]
    """What it is applied to."""
    word: str
    """Its name in the message of an induction task."""
    form: str
    """Source text; `{v}` is the variable, `{c}` the constant."""
    constants: tuple[str, ...]
    compute: Callable[[Value, str], Value]


@dataclass(frozen=True, slots=True)
class Statement:
    """`target=form(source)`, or `return form(source)`."""

    target: str
    source: str
    form: str
    constant: str

    @property
    def expression(self) -> str:
        return self.form.replace("{v}", self.source).replace("{c}", self.constant)

    @property
    def line(self) -> str:
        """` a=sorted(x)`, its newline in front."""
        return start(self.target) + self.expression


Program = tuple[Statement, ...]


def start(target: str) -> str:
    """How a line that gives `target` begins; the same text names it in the program and in the thoughts."""
    return "\n return " if target == "return" else f"\n {target}="


def source_text(program: Program) -> str:
    return HEADER + "".join(statement.line for statement in program)


def _lists(word: str, form: str, compute: Callable[[list[int], str], Value], constants: str = "") -> Operation:
    return Operation(list, word, form, tuple(constants.split()) or ("",), cast(Callable[[Value, str], Value], compute))


def _ints(word: str, form: str, compute: Callable[[int, str], Value], constants: str = "") -> Operation:
    return Operation(int, word, form, tuple(constants.split()) or ("",), cast(Callable[[Value, str], Value], compute))


def _texts(word: str, form: str, compute: Callable[[str, str], Value], constants: tuple[str, ...] = ("",)) -> Operation:
    return Operation(str, word, form, constants, cast(Callable[[Value, str], Value], compute))


def _replace(text: str, constant: str) -> str:
    old, replacement = constant.split("', '")
    return text.replace(old, replacement)


_LETTER = tuple(LETTERS)
_LETTER_PAIRS = tuple(f"{old}', '{letter}" for old in LETTERS for letter in LETTERS if old != letter)

OPERATIONS = (
    _lists("sort", "sorted({v})", lambda v, _: sorted(v)),
    _lists("reverse", "{v}[::-1]", lambda v, _: v[::-1]),
    _lists("cut", "{v}[1:]", lambda v, _: v[1:]),
    _lists("cut", "{v}[:-1]", lambda v, _: v[:-1]),
    _lists("cut", "{v}[:2]", lambda v, _: v[:2]),
    _lists("append", "{v}+[{c}]", lambda v, c: [*v, int(c)], "0 3 5 7 9"),
    _lists("add", "[i+{c} for i in {v}]", lambda v, c: [i + int(c) for i in v], "1 2 3"),
    _lists("multiply", "[i*{c} for i in {v}]", lambda v, c: [i * int(c) for i in v], "2 3"),
    _lists("filter", "[i for i in {v} if i>{c}]", lambda v, c: [i for i in v if i > int(c)], "2 4 6"),
    _lists("total", "sum({v})", lambda v, _: sum(v)),
    _lists("size", "len({v})", lambda v, _: len(v)),
    _lists("largest", "max({v})", lambda v, _: max(v)),
    _lists("least", "min({v})", lambda v, _: min(v)),
    _lists("pick", "{v}[0]", lambda v, _: v[0]),
    _lists("pick", "{v}[-1]", lambda v, _: v[-1]),
    _ints("add", "{v}+{c}", lambda v, c: v + int(c), "1 2 3 4"),
    _ints("subtract", "{v}-{c}", lambda v, c: v - int(c), "1 2 3"),
    _ints("multiply", "{v}*{c}", lambda v, c: v * int(c), "2 3"),
    _ints("modulo", "{v}%{c}", lambda v, c: v % int(c), "2 3 4"),
    _ints("pair", "[{v}, {c}]", lambda v, c: [v, int(c)], "0 3 5 7 9"),
    _ints("repeat", "'{c}'*{v}", lambda v, c: c * v, " ".join(LETTERS)),
    _texts("reverse", "{v}[::-1]", lambda v, _: v[::-1]),
    _texts("cut", "{v}[1:]", lambda v, _: v[1:]),
    _texts("cut", "{v}[:-1]", lambda v, _: v[:-1]),
    _texts("upper", "{v}.upper()", lambda v, _: v.upper()),
    _texts("append", "{v}+'{c}'", lambda v, c: v + c, _LETTER),
    _texts("prepend", "'{c}'+{v}", lambda v, c: c + v, _LETTER),
    _texts("replace", "{v}.replace('{c}')", _replace, _LETTER_PAIRS),
    _texts("size", "len({v})", lambda v, _: len(v)),
    _texts("count", "{v}.count('{c}')", lambda v, c: v.count(c), _LETTER),
)
_IDENTITY = (
    _lists("keep", "{v}", lambda v, _: v),
    _ints("keep", "{v}", lambda v, _: v),
    _texts("keep", "{v}", lambda v, _: v),
)
_BY_KIND = {kind: [o for o in OPERATIONS if o.kind is kind] for kind in (list, int, str)}
_WORDS = {operation.form: operation.word for operation in (*OPERATIONS, *_IDENTITY)}
_BY_FORM = {(o.form, o.kind): o for o in (*OPERATIONS, *_IDENTITY)}


def run(program: Program, value: Value) -> list[Value]:
    """The value of every statement, the returned one last.

    Raises:
        OutsideGrammarError: a statement does not fit its value, or the value grows beyond all use.
    """
    values: dict[str, Value] = {"x": value}
    trace: list[Value] = []
    for statement in program:
        source = values.get(statement.source)
        operation = None if source is None else _BY_FORM.get((statement.form, type(source)))
        if source is None or operation is None:
            raise OutsideGrammarError(statement.line)
        try:
            values[statement.target] = operation.compute(source, statement.constant)
        except (ArithmeticError, LookupError, ValueError) as error:
            raise OutsideGrammarError(statement.line) from error
        trace.append(values[statement.target])
        if size(trace[-1]) > 1000:
            raise OutsideGrammarError(statement.line)
    return trace


def size(value: Value) -> int:
    """The largest number in it: its magnitude, its length or one of its elements."""
    if isinstance(value, int):
        return abs(value)
    return max([len(value), *map(abs, value)]) if isinstance(value, list) else len(value)


def is_small(value: Value) -> bool:
    """Whether the value is within the bounds of what the base was trained on."""
    if isinstance(value, int):
        return 0 <= value <= LARGEST_INT
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT
    return len(value) <= LONGEST_LIST and all(0 <= element <= LARGEST_INT for element in value)


def draw_input(rng: Random, kind: type[Value]) -> Value:
    if kind is int:
        return rng.randint(0, 9)
    if kind is str:
        return "".join(rng.choice(LETTERS) for _ in range(rng.randint(2, 4)))
    return [rng.randint(0, 9) for _ in range(rng.randint(2, 4))]


def draw_program(rng: Random, num_statements: int) -> tuple[Program, Value]:
    """A program and an input on which every value is small and mostly changes."""
    while True:
        kind = rng.choices((list, int, str), (0.55, 0.15, 0.3))[0]
        value = draw_input(rng, kind)
        program = _draw_chain(rng, value, num_statements)
        if program is not None:
            return program, value


def _draw_chain(rng: Random, value: Value, num_statements: int) -> Program | None:
    statements: list[Statement] = []
    source = "x"
    for target in (*VARIABLES[: num_statements - 1], "return"):
        operation = rng.choice(_BY_KIND[type(value)])
        statement = Statement(target, source, operation.form, rng.choice(operation.constants))
        if isinstance(value, list) and not value:
            return None
        result = operation.compute(value, statement.constant)
        is_dull = result == value or result in ([], "")
        if not is_small(result) or (is_dull and rng.random() < 0.8):
            return None
        statements.append(statement)
        source, value = target, result
    return tuple(statements)


def draw_other_input(rng: Random, program: Program, kind: type[Value]) -> Value | None:
    """Another input on which the program stays small; None when forty draws found none."""
    for _ in range(40):
        value = draw_input(rng, kind)
        try:
            trace = run(program, value)
        except OutsideGrammarError:
            continue
        if all(map(is_small, trace)):
            return value
    return None


def message(program: Program) -> str:
    """The names of the operations, sorted and each once: the hint of an induction task."""
    return ", ".join(sorted({_WORDS[statement.form] for statement in program}))


def is_held_out(program: Program, value: Value) -> bool:
    """Whether pretraining must not see it: an eighth of all programs, and of the inputs of one-statement programs."""
    text = source_text(program) + (repr(value) if len(program) == 1 else "")
    return hashlib.sha256(text.encode()).digest()[0] % 8 == 0


def _pattern(operation: Operation) -> re.Pattern[str]:
    constant = operation.constants[0]
    kind = r"\d{1,3}" if constant.isdigit() else r"[A-Za-z]', '[A-Za-z]" if len(constant) > 1 else "[A-Za-z]"
    escaped = re.escape(operation.form).replace(r"\{v\}", "(?P<v>[a-z])")
    return re.compile(escaped.replace(r"\{c\}", f"(?P<c>{kind})"))


_PATTERNS = {operation.form: _pattern(operation) for operation in (*OPERATIONS, *_IDENTITY)}
_LINE = re.compile(r" (?:([a-z])=|return )([ -~]{1,40})")


def parse(text: str) -> Program:
    """The program that the text is.

    Raises:
        OutsideGrammarError: it is not a program of the small language.
    """
    header, *lines = text.strip("\n").split("\n")
    if header != HEADER or not 1 <= len(lines) <= 2 * MAX_STATEMENTS:
        raise OutsideGrammarError(header)
    program = tuple(_parse_line(line) for line in lines)
    targets = [statement.target for statement in program]
    if targets[-1] != "return" or "return" in targets[:-1]:
        raise OutsideGrammarError("one return, at the end")
    return program


def _parse_line(line: str) -> Statement:
    match = _LINE.fullmatch(line)
    if match is None:
        raise OutsideGrammarError(line)
    for form, pattern in _PATTERNS.items():
        found = pattern.fullmatch(match[2])
        if found is not None:
            return Statement(match[1] or "return", found["v"], form, found.groupdict().get("c") or "")
    raise OutsideGrammarError(line)


def parse_value(text: str) -> Value:
    """A value from its canonical text.

    Raises:
        OutsideGrammarError: it is not a small int, a string of letters or a list of ints.
    """
    text = text.strip("\n")
    if re.fullmatch(r"'[A-Za-z]{0,99}'", text):
        return text[1:-1]
    if re.fullmatch(r"-?\d{1,4}", text):
        return int(text)
    if re.fullmatch(r"\[(-?\d{1,4}(, -?\d{1,4}){0,99})?\]", text):
        return [int(element) for element in text[1:-1].split(", ") if element]
    raise OutsideGrammarError(text)
