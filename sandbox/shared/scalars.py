"""The text of values that hold no other values: numbers, strings, ranges, dates.

Each function receives an object of exactly its type, so no method of a hostile class is called.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import math
from collections.abc import Callable
from typing import Any

from sandbox.shared.constructors import MAX_BITS, MAX_INT_DIGITS


class NotAValue(ValueError):
    """The object is not a canonical value, or contains itself."""


class TooLarge(NotAValue):
    """A canonical value whose text is longer than allowed."""


def _int_text(value: Any) -> str:
    if value.bit_length() > MAX_BITS:
        raise TooLarge(f"an integer of more than {MAX_INT_DIGITS} digits")
    try:
        return int.__repr__(value)
    except ValueError as error:
        raise TooLarge(str(error)) from None


def _complex_text(value: Any) -> str:
    """`repr`, if Python reads it back as the same number (it loses the signs of zeros, and nan)."""
    text = complex.__repr__(value)
    is_exact = math.isfinite(value.real) and math.isfinite(value.imag) and math.copysign(1, value.imag) * value.imag > 0
    if is_exact and (value.real != 0 or (value.imag > 0 and math.copysign(1, value.real) > 0)):
        return text
    return f"complex({float.__repr__(value.real)}, {float.__repr__(value.imag)})"


def _fraction_text(value: Any) -> str:
    numerator, denominator = value._numerator, value._denominator
    if type(numerator) is not int or type(denominator) is not int:
        raise NotAValue("a Fraction of objects that are not integers")
    return f"Fraction({_int_text(numerator)}, {_int_text(denominator)})"


def _decimal_text(value: Any) -> str:
    if decimal.Decimal.is_snan(value) or (decimal.Decimal.is_nan(value) and str(value).lstrip("-") != "NaN"):
        raise NotAValue("a Decimal nan that is signalling or carries a payload")
    return decimal.Decimal.__repr__(value)


def _range_text(value: Any) -> str:
    parts = (value.start, value.stop) if value.step == 1 else (value.start, value.stop, value.step)
    return f"range({', '.join(_int_text(part) for part in parts)})"


def _zoned_text(value: Any) -> str:
    if value.tzinfo is not None and type(value.tzinfo) is not datetime.timezone:
        raise NotAValue("a time zone that is not a datetime.timezone")
    return repr(value)


SCALARS: dict[type, Callable[[Any], str]] = {
    type(None): lambda _: "None",
    bool: bool.__repr__,
    int: _int_text,
    float: float.__repr__,
    complex: _complex_text,
    str: str.__repr__,
    bytes: bytes.__repr__,
    fractions.Fraction: _fraction_text,
    decimal.Decimal: _decimal_text,
    range: _range_text,
    datetime.date: datetime.date.__repr__,
    datetime.timedelta: datetime.timedelta.__repr__,
    datetime.timezone: datetime.timezone.__repr__,
    datetime.time: _zoned_text,
    datetime.datetime: _zoned_text,
}
