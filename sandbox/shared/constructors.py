"""The value types that are written as a call, `Fraction(1, 2)`, and what each may be called with.

The arguments are values already read; every constructor checks their types first, because some real ones compute
(`Fraction('1e999999999')`, `list(range(10**9))`) or unpickle (`datetime.date(b'...')`). Standard library only.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

MAX_INT_DIGITS = 4300
MAX_BITS = 14_284
"""Bits of the longest integer of so many digits."""
MAX_COLLISIONS = 100
"""Members of one set or dict that may share a hash: more is an attack on the time it takes to build."""


class NotCanonical(ValueError):
    """The text writes out no value."""


def check_hashes(members: Sequence[Any]) -> None:
    """Refuse members that cannot be hashed or that were chosen to collide."""
    hashes = collections.Counter(map(hash, members))
    if hashes and max(hashes.values()) > MAX_COLLISIONS:
        raise NotCanonical("too many members share a hash")


def _positional(
    make: Callable[..., Any], *types: tuple[type, ...], at_least: int = 0
) -> Callable[[list[Any], dict[str, Any]], Any]:
    """A constructor that takes one value of each of `types`, in order, and no keywords."""

    def call(values: list[Any], keywords: dict[str, Any]) -> Any:
        fits = at_least <= len(values) <= len(types) and not keywords
        if not fits or any(type(value) not in allowed for value, allowed in zip(values, types, strict=False)):
            raise NotCanonical(f"{make.__name__} does not take these arguments")
        return make(*values)

    return call


def _dated(
    make: Callable[..., Any], *types: type, keywords: tuple[str, ...] = ()
) -> Callable[[list[Any], dict[str, Any]], Any]:
    """A constructor of the datetime family: whole numbers, and whatever else `types` says."""

    def call(values: list[Any], named: dict[str, Any]) -> Any:
        parts = [*values, *named.values()]
        if any(type(part) not in (int, *types) for part in parts) or not set(named) <= set(keywords):
            raise NotCanonical(f"{make.__name__} does not take these arguments")
        return make(*values, **named)

    return call


def _members(make: Callable[..., Any]) -> Callable[[list[Any], dict[str, Any]], Any]:
    check = _positional(make, (list, tuple, set, frozenset))

    def call(values: list[Any], keywords: dict[str, Any]) -> Any:
        if make in (set, frozenset) and values and type(values[0]) in (list, tuple):
            check_hashes(values[0])
        return check(values, keywords)

    return call


def _mapping(make: Callable[..., Any]) -> Callable[[list[Any], dict[str, Any]], Any]:
    """`OrderedDict({...})` or `OrderedDict([(key, value), ...])`."""
    check = _positional(make, (dict,))

    def call(values: list[Any], keywords: dict[str, Any]) -> Any:
        if len(values) == 1 and type(values[0]) is list:
            pairs = cast(list[tuple[Any, Any]], values[0])
            check_hashes([key for key, _ in pairs])
            values = [dict(pairs)]
        return check(values, keywords)

    return call


def _float(value: Any = 0.0) -> float:
    if type(value) is str and value.strip().lstrip("+-").lower() not in ("nan", "inf", "infinity"):
        raise NotCanonical("float() takes only the names of nan and infinity")
    return float(value)


def _fraction(numerator: int = 0, denominator: int = 1) -> fractions.Fraction:
    return fractions.Fraction(numerator, denominator)


def _decimal(value: str | int) -> decimal.Decimal:
    number = decimal.Decimal(value)
    if number.is_snan() or (number.is_nan() and str(number).lstrip("-") != "NaN"):
        raise NotCanonical("a signalling nan, or one that carries a payload")
    return number


def _deque(values: list[Any], keywords: dict[str, Any]) -> collections.deque[Any]:
    members: Any = values[0] if values else []
    maxlen: Any = keywords.get("maxlen", values[1] if len(values) > 1 else None)
    fits = len(values) <= 2 and set(keywords) <= {"maxlen"} and type(maxlen) in (int, type(None))
    if not fits or type(members) not in (list, tuple):
        raise NotCanonical("deque takes a list and maxlen")
    return collections.deque(cast(list[Any], members), maxlen)


def _defaultdict(entries: dict[Any, Any] | None = None) -> collections.defaultdict[Any, Any]:
    return collections.defaultdict(None, entries or {})


_CLOCK = ("hour", "minute", "second", "microsecond", "tzinfo", "fold")
_CALENDAR = ("year", "month", "day")
_SPAN = ("days", "seconds", "microseconds", "milliseconds", "minutes", "hours", "weeks")
_ZONE = (datetime.timezone, type(None))

_BARE: dict[str, Callable[[list[Any], dict[str, Any]], Any]] = {
    "set": _members(set),
    "frozenset": _members(frozenset),
    "list": _members(list),
    "tuple": _members(tuple),
    "dict": _mapping(dict),
    "float": _positional(_float, (str, int, float)),
    "complex": _positional(complex, (int, float), (int, float)),
    "range": _positional(range, (int,), (int,), (int,), at_least=1),
}
_IN_MODULES: dict[str, Callable[[list[Any], dict[str, Any]], Any]] = {
    "collections.Counter": _mapping(collections.Counter),
    "collections.OrderedDict": _mapping(collections.OrderedDict),
    "collections.defaultdict": _positional(_defaultdict, (dict,)),
    "collections.deque": _deque,
    "fractions.Fraction": _positional(_fraction, (int,), (int,)),
    "decimal.Decimal": _positional(_decimal, (str, int), at_least=1),
    "datetime.date": _dated(datetime.date, keywords=_CALENDAR),
    "datetime.time": _dated(datetime.time, *_ZONE, keywords=_CLOCK),
    "datetime.datetime": _dated(datetime.datetime, *_ZONE, keywords=_CALENDAR + _CLOCK),
    "datetime.timedelta": _dated(datetime.timedelta, float, keywords=_SPAN),
    "datetime.timezone": _positional(datetime.timezone, (datetime.timedelta,), (str,), at_least=1),
}

CONSTRUCTORS = _BARE | _IN_MODULES | {name.partition(".")[2]: make for name, make in _IN_MODULES.items()}

CONSTANTS: dict[str, Any] = {
    "nan": math.nan,
    "inf": math.inf,
    "datetime.timezone.utc": datetime.timezone.utc,
    "timezone.utc": datetime.timezone.utc,
}
