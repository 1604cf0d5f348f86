"""Makes model text safe for a terminal or a log line: one line, no control characters, no surrogates."""

from __future__ import annotations

import unicodedata

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Control, format (direction overrides), surrogate, private, unassigned, line and paragraph separators."""


def printable(text: str, max_chars: int = 2000) -> str:
    """The text with every character that could move the cursor or start a line escaped, cut to `max_chars`."""
    shown = "".join(_escape(char) for char in text[:max_chars])
    return shown if len(text) <= max_chars else f"{shown}... ({len(text) - max_chars} more characters)"


def _escape(char: str) -> str:
    if char.isascii() and char.isprintable():
        return char
    if unicodedata.category(char) in _UNSAFE:
        return char.encode("unicode_escape").decode("ascii")
    return char
