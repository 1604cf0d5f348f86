"""The value types that are written as a call, such as `Fraction(1, 2)`, and the arguments that each accepts.

The arguments have been read. Each constructor checks their types before it calls Python's, because those may compute
for ever (`Fraction('1e999999999')`, `list(range(10**9))`) or unpickle (`datetime.date(b'...')`).
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
"""Length of the largest integer of that many digits."""
MAX_COLLISIONS = 100
"""Members of one set or dict that may share a hash; more would make building it slow."""


Constructor = Callable[[list[Any], dict[str, Any]], Any]
"""Takes positional and keyword arguments; raises `NotCanonical` if their types do not fit."""


class NotCanonical(ValueError):
    """The text does not write out a value."""


def check_hashes(members: Sequence[Any]) -> None:
    """Refuse members that cannot be hashed, or that were chosen to collide."""
    hashes = collections.Counter(map(hash, members))
    if hashes and max(hashes.values()) > MAX_COLLISIONS:
        raise NotCanonical(f"more than {MAX_COLLISIONS} members share a hash")


def _positional(make: Callable[..., Any], *types: tuple[type, ...], at_least: int = 0) -> Constructor:
    """A constructor that takes one value per entry of `types`, in order, and no keywords."""

    def call(values: list[Any], keywords: dict[str, Any]) -> Any:
        fits = at_least <= len(values) <= len(types) and not keywords
        if not fits or any(type(value) not in allowed for value, allowed in zip(values, types, strict=False)):
            raise NotCanonical(f"{make.__name__} does not take these arguments")
        return make(*values)

    return call


def _dated(make: Callable[..., Any], *types: type, keywords: tuple[str, ...] = ()) -> Constructor:
    """A constructor of the datetime family: takes integers and values of `types`, positional or named."""

    def call(values: list[Any], named: dict[str, Any]) -> Any:
        parts = [*values, *named.values()]
        if any(type(part) not in (int, *types) for part in parts) or not set(named) <= set(keywords):
            raise NotCanonical(f"{make.__name__} does not take these arguments")
        return make(*values, **named)

    return call


def _members(make: Callable[..., Any]) -> Constructor:
    check = _positional(make, (list, tuple, set, frozenset))

    def call(values: list[Any], keywords: dict[str, Any]) -> Any:
        if make in (set, frozenset) and values and type(values[0]) in (list, tuple):
            check_hashes(values[0])
        return check(values, keywords)

    return call


def _mapping(make: Callable[..., Any]) -> Constructor:
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
        raise NotCanonical("float() takes only 'nan' and 'inf'")
    return float(value)


def _decimal(value: str | int) -> decimal.Decimal:
    number = decimal.Decimal(value)
    if number.is_snan() or (number.is_nan() and str(number).lstrip("-") != "NaN"):
        raise NotCanonical("a Decimal nan that is signalling or carries a payload")
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

_BARE: dict[str, Constructor] = {
    "set": _members(set),
    "frozenset": _members(frozenset),
    "list": _members(list),
    "tuple": _members(tuple),
    "dict": _mapping(dict),
    "float": _positional(_float, (str, int, float)),
    "complex": _positional(complex, (int, float), (int, float)),
    "range": _positional(range, (int,), (int,), (int,), at_least=1),
}
_IN_MODULES: dict[str, Constructor] = {
    "collections.Counter": _mapping(collections.Counter),
    "collections.OrderedDict": _mapping(collections.OrderedDict),
    "collections.defaultdict": _positional(_defaultdict, (dict,)),
    "collections.deque": _deque,
    "fractions.Fraction": _positional(fractions.Fraction, (int,), (int,)),
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
