"""Reads canonical values back from text: literals, displays, signed numbers and constructors of the value types.

Read `decode` first. The text is hostile (a model or a program wrote it), so nothing here evaluates: a bounded recursive
descent over our own tokens, every failure a `NotCanonical`. Runs in the guest too: standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from sandbox.shared import tokens
from sandbox.shared.arithmetic import Arithmetic
from sandbox.shared.constructors import (
    CONSTANTS,
    CONSTRUCTORS,
    MAX_BITS,
    MAX_INT_DIGITS,
    NotCanonical,
    check_hashes,
    construct,
)

MAX_TEXT = 256 * 1024
MAX_DEPTH = 136
"""Twice the depth that `encode` writes, because `Counter({...})` takes two levels here and one there."""

_T = TypeVar("_T")


class Arguments(NamedTuple):
    """What a program is called with: `[3, 1], b=2` is `Arguments(([3, 1],), {"b": 2})`."""

    positional: tuple[Any, ...]
    keywords: dict[str, Any]
    """In the order in which they are written."""


def decode(text: str, max_chars: int = MAX_TEXT) -> Any:
    """The value that the text writes out; a top-level `1, 2` is a tuple.

    Raises:
        NotCanonical: anything but a value written out, or more of it than the bounds allow.
    """
    values, has_comma = _read(text, max_chars, _Reader.sequence)
    if not values:
        raise NotCanonical("nothing is written here")
    return tuple(values) if has_comma else values[0]


def decode_arguments(text: str, arithmetic: bool = False, max_chars: int = MAX_TEXT) -> Arguments:
    """The arguments that the text lists, positional ones first; empty text is no argument.

    Args:
        arithmetic: also take `+` and `*` between values (`[0] * 50`), bounded before they are computed.

    Raises:
        NotCanonical: anything but values and `name=value`, a name twice, or more than the bounds allow.
    """
    return _read(text, max_chars, _Reader.arguments, Arithmetic() if arithmetic else None)


def _read(text: str, max_chars: int, read: Callable[[_Reader, str], _T], arithmetic: Arithmetic | None = None) -> _T:
    if len(text) > max_chars:
        raise NotCanonical(f"longer than {max_chars} characters")
    reader = _Reader(text.replace("\r\n", "\n").replace("\r", "\n"), arithmetic)
    try:
        return read(reader, "")
    except (ValueError, TypeError, ArithmeticError, MemoryError, RecursionError) as error:
        raise NotCanonical(str(error) or type(error).__name__) from None


class _Reader:
    """One pass over one text; `at` is always the next unread character."""

    def __init__(self, text: str, arithmetic: Arithmetic | None) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.arithmetic = arithmetic

    def sequence(self, end: str) -> tuple[list[Any], bool]:
        """Comma-separated values up to `end` (which is consumed), and whether there was a comma."""
        values: list[Any] = []
        has_comma = False
        while not self.accept(end):
            if values and not has_comma:
                raise self.wrong("expected a comma")
            values.append(self.value())
            if self.accept(end):
                return values, has_comma
            self.expect(",")
            has_comma = True
        return values, has_comma

    def value(self) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.wrong("nested too deeply")
        total = self.product()
        while (sign := self.accept_sign()) is not None:
            right = self.product()
            if sign == "-" or self.arithmetic is None:
                total = _complex_literal(total, right, sign)
            else:
                total = self.arithmetic.add(total, right)
        self.depth -= 1
        return total

    def product(self) -> Any:
        total = self.signed()
        while self.arithmetic is not None and self.accept("*"):
            total = self.arithmetic.multiply(total, self.signed())
        return total

    def signed(self) -> Any:
        sign = self.accept_sign()
        value = self.atom()
        if sign is None:
            return value
        if type(value) not in (int, float, complex):
            raise self.wrong("only numbers take a sign")
        return -value if sign == "-" else value

    def atom(self) -> Any:
        opening = self.next_char()
        if opening in _DISPLAYS:
            self.at += 1
            return _DISPLAYS[opening](self)
        if opening and opening in "0123456789.":
            return self.number()
        if tokens.STRING.match(self.text, self.at):
            return self.strings()
        return self.named()

    def round_display(self) -> Any:
        values, has_comma = self.sequence(")")
        return values[0] if values and not has_comma else tuple(values)

    def square_display(self) -> Any:
        return self.sequence("]")[0]

    def curly_display(self) -> Any:
        if self.accept("}"):
            return {}
        first = self.value()
        if not self.accept(":"):
            members = [first]
            if not self.accept("}"):
                self.expect(",")
                members += self.sequence("}")[0]
            check_hashes(members)
            return set(members)
        return self.dict_display(first)

    def dict_display(self, first_key: Any) -> dict[Any, Any]:
        pairs = [(first_key, self.value())]
        while not self.accept("}"):
            self.expect(",")
            if self.accept("}"):
                break
            key = self.value()
            self.expect(":")
            pairs.append((key, self.value()))
        check_hashes([key for key, _ in pairs])
        return dict(pairs)

    def number(self) -> int | float | complex:
        if (digits := self.match(tokens.PLAIN_INTEGER)) is not None:
            return int(digits)
        if (based := self.match(tokens.BASED)) is not None:
            if len(based) > MAX_BITS:
                raise self.wrong("the integer is too long")
            return self.finished(_bounded(int(based, 0)))
        if (digits := self.match(tokens.FLOAT)) is not None:
            value = float(digits)
            return self.finished(complex(0.0, value) if self.take("jJ") else value)
        whole = tokens.WHOLE.match(self.text, self.at)
        if whole and self.text[whole.end() : whole.end() + 1] in ("j", "J"):
            self.at = whole.end() + 1
            return self.finished(complex(0.0, float(whole.group())))
        if (digits := self.match(tokens.INTEGER)) is None or len(digits) > MAX_INT_DIGITS:
            raise self.wrong("not a number, or too long")
        return self.finished(int(digits))

    def finished(self, number: Any) -> Any:
        if re.match(r"[A-Za-z0-9_.]", self.text[self.at : self.at + 1]):
            raise self.wrong("a number runs into a name")
        return number

    def strings(self) -> str | bytes:
        """One string literal, or several that stand side by side."""
        parts: list[str | bytes] = []
        while (match := tokens.STRING.match(self.text, self.at)) is not None:
            self.at = match.end()
            body = next(group for group in match.groups()[1:] if group is not None)
            parts.append(tokens.unescape((match.group(1) or "").lower(), body))
            self.skip_space()
        if len({type(part) for part in parts}) > 1:
            raise self.wrong("bytes and text side by side")
        joined: Any = parts[0][:0]
        return joined.join(parts)

    def named(self) -> Any:
        name = self.match(tokens.NAME)
        if name in CONSTANTS:
            return CONSTANTS[name]
        if name is None or name not in CONSTRUCTORS:
            raise self.wrong("expected a value")
        self.expect("(")
        if name.endswith("defaultdict"):
            self.skip_factory()
        called = self.arguments(")")
        return construct(name, list(called.positional), called.keywords)

    def arguments(self, end: str) -> Arguments:
        """The arguments of a call up to `end` (which is consumed)."""
        values: list[Any] = []
        keywords: dict[str, Any] = {}
        while not self.accept(end):
            name = self.keyword()
            if name in keywords or (name is None and keywords):
                raise self.wrong("a keyword again, or a positional argument after one")
            if name is None:
                values.append(self.value())
            else:
                keywords[name] = self.value()
            if not self.accept(","):
                self.expect(end)
                break
        return Arguments(tuple(values), keywords)

    def keyword(self) -> str | None:
        """The name of a keyword argument and its `=`, both consumed, if they stand here."""
        match = tokens.KEYWORD.match(self.text, self.at)
        if match is None or not tokens.is_parameter_name(match.group(1)):
            return None
        self.at = match.end()
        return match.group(1)

    def skip_factory(self) -> None:
        """The factory of a defaultdict (`<class 'int'>`, `int`, `None`) is no part of its value."""
        self.skip_space()
        if self.match(tokens.CLASS) is None and self.match(tokens.NAME) is None:
            raise self.wrong("expected the factory of a defaultdict")
        if not self.accept(","):
            self.skip_space()
            if self.text[self.at : self.at + 1] != ")":
                raise self.wrong("expected a comma")

    def skip_space(self) -> None:
        match = tokens.SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def next_char(self) -> str:
        """The next character that is no space; empty at the end."""
        if self.text[self.at : self.at + 1] in tokens.SPACES:
            self.skip_space()
        return self.text[self.at : self.at + 1]

    def match(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self.text, self.at)
        if match is None:
            return None
        self.at = match.end()
        return match.group(1) if pattern is tokens.CLASS else match.group()

    def take(self, letters: str) -> bool:
        found = self.text[self.at : self.at + 1] in tuple(letters)
        self.at += found
        return found

    def accept(self, token: str) -> bool:
        if self.next_char() != token:
            return False
        self.at += len(token)
        return True

    def accept_sign(self) -> str | None:
        sign = self.next_char()
        if sign not in ("+", "-"):
            return None
        self.at += 1
        return sign

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise self.wrong(f"expected {token!r}")

    def wrong(self, why: str) -> NotCanonical:
        return NotCanonical(f"{why} at character {self.at}")


_DISPLAYS = {"(": _Reader.round_display, "[": _Reader.square_display, "{": _Reader.curly_display}


def _complex_literal(real: Any, imaginary: Any, sign: str) -> complex:
    if type(real) not in (int, float) or type(imaginary) is not complex:
        raise NotCanonical("operators are not part of a value")
    return real + imaginary if sign == "+" else real - imaginary


def _bounded(value: int) -> int:
    if value.bit_length() > MAX_BITS:
        raise NotCanonical("the integer is too long")
    return value
