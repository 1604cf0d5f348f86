"""A cache for functions of a text: equal short texts come again and again, long ones would only fill the memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
TEXTS = 4096
LONGEST = 1024
"""Characters; so a cache holds a few megabytes at most."""


def remembers_short_texts(function: Callable[P, R]) -> Callable[P, R]:
    """Remember what `function` gave for its latest short texts; the text is its first argument."""
    remembering = functools.lru_cache(maxsize=TEXTS)(function)

    @functools.wraps(function)
    def asked(*arguments: P.args, **named: P.kwargs) -> R:
        is_short = len(str(arguments[0])) <= LONGEST
        return remembering(*arguments, **named) if is_short else function(*arguments, **named)

    return asked
