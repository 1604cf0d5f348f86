"""Reads replies: the R1 tags, then fenced blocks. Pure text work; nothing here looks inside a program's meaning.

A reply continues a prompt that ends in `<think>`::

    the sum is 3</think> <answer>```output
    3
    ```</answer>

Only the first answer directly after the thought counts; what a model writes after it is ignored, so that many answers
in one reply buy nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from azr.errors import Malformed
from azr.tasks.source import parses

_REPLY = re.compile(r"\s*(?:<think>)?(?P<thought>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>", re.DOTALL)
_OPENING = re.compile(r"^[ \t]*(?P<marks>`{3,})(?P<tag>[A-Za-z]*)(?P<number>_\d+)?[ \t]*", re.MULTILINE)
MAX_CLOSINGS = 16
"""Closing fences tried for one block; a program with more fence lines inside its strings is cut at the first."""


class Reply(NamedTuple):
    """A reply in its two parts."""

    thought: str
    answer: str


class Block(NamedTuple):
    """One fenced block; `tag` is lower case and empty where the fence has none."""

    tag: str
    body: str


def read_reply(text: str) -> Reply:
    """Split a reply into thought and answer.

    Raises:
        Malformed: the tags are missing or out of order.
    """
    found = _REPLY.match(text)
    if found is None:
        raise Malformed("no answer tag" if "</think>" in text else "no think tag")
    return Reply(found["thought"].strip(), found["answer"].strip())


def has_thought(text: str) -> bool:
    """True when the reply says anything before `</think>`, whatever follows."""
    thought, closed, _ = text.removeprefix("<think>").partition("</think>")
    return bool(closed and thought.strip())


def blocks(text: str) -> list[Block]:
    """The fenced blocks of an answer, in order.

    A fence opens at the start of a line and is closed by as many backticks at the start of a line, or at the end of
    one where models forget the line break. A program may hold such lines in its strings: the first closing fence that
    leaves a program that parses is taken.
    """
    found: list[Block] = []
    position = 0
    while opening := _OPENING.search(text, position):
        tag = {"py": "python"}.get(opening["tag"].lower(), opening["tag"].lower())
        start = opening.end() + text.startswith("\n", opening.end())
        ends = list(_closings(text, start, marks=opening["marks"]))
        if not ends:
            break
        end, position = _choose(text, start, ends=ends, is_program=tag in ("python", ""))
        found.append(Block(tag, text[start:end].strip("\n").rstrip()))
    return found


def _closings(text: str, start: int, *, marks: str) -> Iterator[tuple[int, int]]:
    """(end of the body, end of the fence) of every place that may close the block."""
    closing = re.compile(rf"^[ \t]*{marks}`*[ \t]*$|(?<!`){marks}(?!`)[ \t]*$", re.MULTILINE)
    for count, found in enumerate(closing.finditer(text, start)):
        if count == MAX_CLOSINGS:
            return
        yield found.start(), found.end()


def _choose(text: str, start: int, *, ends: list[tuple[int, int]], is_program: bool) -> tuple[int, int]:
    if is_program and len(ends) > 1:
        for end in ends:
            if parses(text[start : end[0]]):
                return end
    return ends[0]


def only_block(answer: str, tag: str) -> str:
    """The last block of a kind; an answer without any fence is taken whole.

    Raises:
        Malformed: there are fences, but none of this kind, or the block is empty.
    """
    fenced = blocks(answer)
    wanted = [block.body for block in fenced if block.tag in _SYNONYMS.get(tag, (tag,))]
    body = wanted[-1] if wanted else answer if not fenced else ""
    if not body.strip():
        raise Malformed(f"no {tag} block")
    return body


_SYNONYMS = {"python": ("python", ""), "output": ("output", ""), "input": ("input", "")}


def block_bodies(answer: str, tag: str) -> list[str]:
    """The bodies of all blocks of a kind, in order; an untagged block is a program."""
    accepted = ("python", "") if tag == "python" else (tag,)
    return [block.body for block in blocks(answer) if block.tag in accepted]
