"""Reads canonical values back from text: literals, displays, signed numbers and constructors of the value types.

Read `decode` first. The text is hostile (a model or a program wrote it), so nothing here evaluates: a bounded recursive
descent over our own tokens, every failure a `NotCanonical`. Runs in the guest too: standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sandbox.constructors import CONSTANTS, CONSTRUCTORS, MAX_INT_DIGITS, NotCanonical, check_hashes, construct

MAX_TEXT = 256 * 1024
MAX_DEPTH = 136
"""Twice the depth that `encode` writes, because `Counter({...})` takes two levels here and one there."""
MAX_PRODUCED = 1_000_000
"""Items and characters that all `+` and `*` of one argument list may produce together."""
MAX_BITS = 14_284

_SPACE = re.compile(r"[ \t\n\f]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_CLASS = re.compile(r"<class '([a-z]+)'>")
_STRING = re.compile(
    r"([rRbBuU]|[rR][bB]|[bB][rR])?"
    r"(?:'''((?:[^\\]|\\.)*?)'''|\"\"\"((?:[^\\]|\\.)*?)\"\"\"|'((?:[^'\\\n]|\\.)*)'|\"((?:[^\"\\\n]|\\.)*)\")",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(\n|[0-7]{1,3}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_PLAIN_ESCAPES = dict(
    zip("\\'\"abfnrtv\n", ["\\", "'", '"', "\a", "\b", "\f", "\n", "\r", "\t", "\v", ""], strict=True)
)
_DIGITS = r"[0-9](?:_?[0-9])*"
_BASED = re.compile(r"0(?:[xX](?:_?[0-9a-fA-F])+|[bB](?:_?[01])+|[oO](?:_?[0-7])+)")
_FLOAT = re.compile(
    rf"(?:(?:{_DIGITS}\.(?:{_DIGITS})?|\.{_DIGITS})(?:[eE][-+]?{_DIGITS})?|{_DIGITS}[eE][-+]?{_DIGITS})"
)
_INTEGER = re.compile(r"(?:0(?:_?0)*|[1-9](?:_?[0-9])*)(?![0-9_])")
_WHOLE = re.compile(_DIGITS)


def decode(text: str, max_chars: int = MAX_TEXT) -> Any:
    """The value that the text writes out; a top-level `1, 2` is a tuple.

    Raises:
        NotCanonical: anything but a value written out, or more of it than the bounds allow.
    """
    values, has_comma = _read(text, max_chars, arithmetic=False)
    if not values:
        raise NotCanonical("nothing is written here")
    return values if has_comma else values[0]


def decode_arguments(text: str, arithmetic: bool = False, max_chars: int = MAX_TEXT) -> tuple[Any, ...]:
    """The positional arguments that the text lists; empty text is no argument.

    Args:
        arithmetic: also take `+` and `*` between values (`[0] * 50`), bounded before they are computed.

    Raises:
        NotCanonical: anything but values written out, or more of them than the bounds allow.
    """
    return _read(text, max_chars, arithmetic=arithmetic)[0]


def _read(text: str, max_chars: int, *, arithmetic: bool) -> tuple[tuple[Any, ...], bool]:
    if len(text) > max_chars:
        raise NotCanonical(f"longer than {max_chars} characters")
    reader = _Reader(text.replace("\r\n", "\n").replace("\r", "\n"), arithmetic=arithmetic)
    try:
        values, has_comma = reader.sequence("")
    except (ValueError, TypeError, ArithmeticError, MemoryError, RecursionError) as error:
        raise NotCanonical(str(error) or type(error).__name__) from None
    return tuple(values), has_comma


class _Reader:
    """One pass over one text; `at` is always the next unread character."""

    def __init__(self, text: str, *, arithmetic: bool) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.arithmetic = arithmetic
        self.produced = 0

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
        while (sign := self.accept_any("+-")) is not None:
            right = self.product()
            if sign == "-" or not self.arithmetic:
                total = _complex_literal(total, right, sign)
            else:
                total = self.bounded_sum(total, right)
        self.depth -= 1
        return total

    def product(self) -> Any:
        total = self.signed()
        while self.arithmetic and self.accept("*"):
            total = self.bounded_product(total, self.signed())
        return total

    def signed(self) -> Any:
        sign = self.accept_any("+-")
        value = self.atom()
        if sign is None:
            return value
        if type(value) not in (int, float, complex):
            raise self.wrong("only numbers take a sign")
        return -value if sign == "-" else value

    def atom(self) -> Any:
        self.skip_space()
        opening = self.text[self.at : self.at + 1]
        if opening in _DISPLAYS and opening:
            self.at += 1
            return _DISPLAYS[opening](self)
        if opening in "0123456789." and opening:
            return self.number()
        if _STRING.match(self.text, self.at):
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
        if (based := self.match(_BASED)) is not None:
            return self.finished(_bounded_int(int(based, 0)))
        if (digits := self.match(_FLOAT)) is not None:
            value = float(digits)
            return self.finished(complex(0.0, value) if self.take("jJ") else value)
        whole = _WHOLE.match(self.text, self.at)
        if whole and self.text[whole.end() : whole.end() + 1] in ("j", "J"):
            self.at = whole.end() + 1
            return self.finished(complex(0.0, float(whole.group())))
        if (digits := self.match(_INTEGER)) is None or len(digits) > MAX_INT_DIGITS:
            raise self.wrong("not a number, or too long")
        return self.finished(int(digits))

    def finished(self, number: Any) -> Any:
        if re.match(r"[A-Za-z0-9_.]", self.text[self.at : self.at + 1]):
            raise self.wrong("a number runs into a name")
        return number

    def strings(self) -> str | bytes:
        """One string literal, or several that stand side by side."""
        parts: list[str | bytes] = []
        while (match := _STRING.match(self.text, self.at)) is not None:
            self.at = match.end()
            body = next(group for group in match.groups()[1:] if group is not None)
            parts.append(_unescape((match.group(1) or "").lower(), body))
            self.skip_space()
        if len({type(part) for part in parts}) > 1:
            raise self.wrong("bytes and text side by side")
        return parts[0][:0].join(parts)  # type: ignore[arg-type]  # all of one type, checked above

    def named(self) -> Any:
        name = self.match(_NAME)
        if name in CONSTANTS:
            return CONSTANTS[name]
        if name is None or name not in CONSTRUCTORS:
            raise self.wrong("expected a value")
        self.expect("(")
        return construct(name, *self.call_arguments(is_defaultdict=name.endswith("defaultdict")))

    def call_arguments(self, *, is_defaultdict: bool) -> tuple[list[Any], dict[str, Any]]:
        values: list[Any] = []
        keywords: dict[str, Any] = {}
        if is_defaultdict:
            self.skip_factory()
        while not self.accept(")"):
            name = re.compile(r"\s*([a-z]+)\s*=").match(self.text, self.at)
            if name:
                self.at = name.end()
                keywords[name.group(1)] = self.value()
            elif keywords:
                raise self.wrong("a positional argument after a keyword")
            else:
                values.append(self.value())
            if not self.accept(","):
                self.expect(")")
                break
        return values, keywords

    def skip_factory(self) -> None:
        """The factory of a defaultdict (`<class 'int'>`, `int`, `None`) is no part of its value."""
        self.skip_space()
        if self.match(_CLASS) is None and self.match(_NAME) is None:
            raise self.wrong("expected the factory of a defaultdict")
        if not self.accept(","):
            self.skip_space()
            if self.text[self.at : self.at + 1] != ")":
                raise self.wrong("expected a comma")

    def bounded_sum(self, left: Any, right: Any) -> Any:
        self.charge(_size(left) + _size(right))
        _check_operands(left, right)
        return _bounded_int(left + right)

    def bounded_product(self, left: Any, right: Any) -> Any:
        if type(left) is int and type(right) is int:
            if left.bit_length() + right.bit_length() > MAX_BITS:
                raise self.wrong("the product is too large")
            return left * right
        for sequence, count in ((left, right), (right, left)):
            if type(sequence) in (str, bytes, list, tuple) and type(count) is int:
                self.charge(max(count, 0) * max(_size(sequence), 1))
                return sequence * count
        _check_operands(left, right)
        return left * right

    def charge(self, size: int) -> None:
        self.produced += size
        if self.produced > MAX_PRODUCED:
            raise self.wrong("the arithmetic produces too much")

    def skip_space(self) -> None:
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def match(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self.text, self.at)
        if match is None:
            return None
        self.at = match.end()
        return match.group(1) if pattern is _CLASS else match.group()

    def take(self, letters: str) -> bool:
        found = self.text[self.at : self.at + 1] in tuple(letters)
        self.at += found
        return found

    def accept(self, token: str) -> bool:
        self.skip_space()
        if not token:
            return self.at == len(self.text)
        found = self.text.startswith(token, self.at)
        self.at += len(token) if found else 0
        return found

    def accept_any(self, tokens: str) -> str | None:
        return next((token for token in tokens if self.accept(token)), None)

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


def _check_operands(left: Any, right: Any) -> None:
    numbers = (int, float, complex)
    is_sequences = type(left) is type(right) and type(left) in (str, bytes, list, tuple)
    if not is_sequences and not (type(left) in numbers and type(right) in numbers):
        raise NotCanonical("these values cannot be added or multiplied")


def _bounded_int(value: Any) -> Any:
    if type(value) is int and value.bit_length() > MAX_BITS:
        raise NotCanonical("the integer is too long")
    return value


def _size(value: Any) -> int:
    """Items and characters in a value, counted through its containers."""
    if type(value) in (str, bytes):
        return len(value)
    if type(value) is dict:
        return 1 + sum(_size(key) + _size(entry) for key, entry in value.items())
    if type(value) in (list, tuple, set, frozenset):
        members: Iterable[Any] = value
        return 1 + sum(_size(member) for member in members)
    return 1


def _unescape(prefix: str, body: str) -> str | bytes:
    if "b" not in prefix:
        return body if "r" in prefix else _ESCAPE.sub(lambda match: _escaped(match, is_bytes=False), body)
    if not body.isascii():
        raise NotCanonical("bytes take ASCII characters only")
    text = body if "r" in prefix else _ESCAPE.sub(lambda match: _escaped(match, is_bytes=True), body)
    return text.encode("latin-1")


def _escaped(match: re.Match[str], *, is_bytes: bool) -> str:
    code = match.group(1)
    if code in _PLAIN_ESCAPES:
        return _PLAIN_ESCAPES[code]
    if code[0] in "01234567":
        return chr(int(code, 8) & 0xFF if is_bytes else int(code, 8))
    if code[0] == "x" and len(code) == 3:
        return chr(int(code[1:], 16))
    if code[0] in "uU" and not is_bytes and len(code) > 1:
        return chr(int(code[1:], 16))
    if code[0] in "xuUN" and not (is_bytes and code[0] in "uUN"):
        raise NotCanonical("a broken or unsupported escape")
    return "\\" + code
