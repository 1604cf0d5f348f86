"""The spellings of Python's literals: patterns of numbers, strings and names, and what an escape stands for."""

from __future__ import annotations

import keyword
import re
import unicodedata

from sandbox.shared.constructors import NotCanonical

SPACES = frozenset(" \t\n\f")
SPACE = re.compile(r"[ \t\n\f]*")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
CLASS = re.compile(r"<class '([a-z]+)'>")
KEYWORD = re.compile(r"([^\W\d]\w*)[ \t\n\f]*=")
STRING = re.compile(
    r"([rRbBuU]|[rR][bB]|[bB][rR])?"
    r"(?:'''((?:[^\\]|\\.)*?)'''|\"\"\"((?:[^\\]|\\.)*?)\"\"\""
    r"|'([^'\\\n]*(?:\\.[^'\\\n]*)*)'|\"([^\"\\\n]*(?:\\.[^\"\\\n]*)*)\")",
    re.DOTALL,
)
ESCAPE = re.compile(r"\\(\n|[0-7]{1,3}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_PLAIN_ESCAPES = dict(
    zip("\\'\"abfnrtv\n", ["\\", "'", '"', "\a", "\b", "\f", "\n", "\r", "\t", "\v", ""], strict=True)
)
DIGITS = r"[0-9](?:_?[0-9])*"
BASED = re.compile(r"0(?:[xX](?:_?[0-9a-fA-F])+|[bB](?:_?[01])+|[oO](?:_?[0-7])+)")
FLOAT = re.compile(rf"(?:(?:{DIGITS}\.(?:{DIGITS})?|\.{DIGITS})(?:[eE][-+]?{DIGITS})?|{DIGITS}[eE][-+]?{DIGITS})")
INTEGER = re.compile(r"(?:0(?:_?0)*|[1-9](?:_?[0-9])*)(?![0-9_])")
WHOLE = re.compile(DIGITS)
PLAIN_INTEGER = re.compile(r"(?:0|[1-9][0-9]{0,17})(?![\w.])")
"""What nearly every number is."""


def is_parameter_name(name: str) -> bool:
    """Whether a keyword argument may have this name, spelled as Python keeps it (NFKC)."""
    return name.isidentifier() and not keyword.iskeyword(name) and unicodedata.is_normalized("NFKC", name)


def unescape(prefix: str, body: str) -> str | bytes:
    """What a string literal with this prefix (`b`, `r`, ...) and this body stands for."""
    if "b" not in prefix:
        return body if "r" in prefix else ESCAPE.sub(lambda match: _escaped(match, is_bytes=False), body)
    if not body.isascii():
        raise NotCanonical("bytes take ASCII characters only")
    text = body if "r" in prefix else ESCAPE.sub(lambda match: _escaped(match, is_bytes=True), body)
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
