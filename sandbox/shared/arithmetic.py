"""`+` and `*` between values, for answers like `[0] * 50`. The size of a result is bounded before it is computed."""

from __future__ import annotations

from typing import Any, cast

from sandbox.shared.constructors import MAX_BITS, NotCanonical

MAX_PRODUCED = 1_000_000
"""Items and characters that all operations in one text may produce together."""

_NUMBERS = (int, float, complex)
_SEQUENCES = (str, bytes, list, tuple)


class Arithmetic:
    """The operations in one text, which share one budget."""

    def __init__(self) -> None:
        self._produced = 0

    def add(self, left: Any, right: Any) -> Any:
        """`left + right`, of two numbers or two sequences of one type."""
        is_sequences = type(left) is type(right) and type(left) in _SEQUENCES
        if not is_sequences and not (type(left) in _NUMBERS and type(right) in _NUMBERS):
            raise NotCanonical("these values cannot be added")
        self._charge(_size(left) + _size(right))
        return left + right

    def multiply(self, left: Any, right: Any) -> Any:
        """`left * right`, of two numbers, or a sequence and a count on either side."""
        for sequence, count in ((left, right), (right, left)):
            if type(sequence) in _SEQUENCES and type(count) is int:
                self._charge(max(count, 0) * max(_size(sequence), 1))
                return sequence * count
        if type(left) not in _NUMBERS or type(right) not in _NUMBERS:
            raise NotCanonical("these values cannot be multiplied")
        if type(left) is int and type(right) is int and left.bit_length() + right.bit_length() > MAX_BITS:
            raise NotCanonical("the product is too large")
        return left * right

    def _charge(self, size: int) -> None:
        self._produced += size
        if self._produced > MAX_PRODUCED:
            raise NotCanonical(f"the arithmetic produces more than {MAX_PRODUCED} items and characters")


def _size(value: Any) -> int:
    """Items and characters in a value, counted through its containers."""
    if type(value) in (str, bytes):
        return len(value)
    if type(value) is dict:
        entries = cast(dict[Any, Any], value)
        return 1 + sum(_size(key) + _size(entry) for key, entry in entries.items())
    if type(value) in (list, tuple, set, frozenset):
        return 1 + sum(_size(member) for member in cast(list[Any], value))
    return 1
