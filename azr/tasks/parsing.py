"""Reads replies: the R1 tags, then the fenced blocks.

A reply continues a prompt that ends in `<think>`::

    the sum is 3</think> <answer>```output
    3
    ```</answer>

Only the first answer directly after the thought counts. Later text is ignored, so several answers in one reply gain
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from azr.errors import Malformed
from azr.tasks.source import parses

_TURN = re.compile(r"</think>\s*<answer>")
_OPENING = re.compile(r"^[ \t]*(?P<marks>`{3,})(?P<tag>[A-Za-z]*)(?:(?<=[A-Za-z])_?\d+(?=\s))?[ \t]*", re.MULTILINE)
_CLOSING = re.compile(r"(?P<own_line>^[ \t]*)?(?<!`)(?P<marks>`{3,})[ \t]*$", re.MULTILINE)
MAX_CLOSINGS = 16
"""Closing fences tried for one block; a program with more fence lines inside its strings is cut at the first."""
MAX_PARSED_CHARS = 262_144
"""Limit on the text parsed for one answer; beyond it, every block ends at its first closing fence."""
_PARSE_COST_CHARS = 256
"""Fixed cost of one trial, added to its length."""


class Reply(NamedTuple):
    """A reply, split into its two parts."""

    thought: str
    answer: str


class Block(NamedTuple):
    """One fenced block; `tag` is lower case, and empty if the fence has none."""

    tag: str
    body: str


def read_reply(text: str) -> Reply:
    """Split a reply into thought and answer, in time linear in its length.

    Raises:
        Malformed: the tags are missing or out of order.
    """
    turn = _TURN.search(text)
    end = text.find("</answer>", turn.end()) if turn is not None else -1
    if turn is None or end < 0:
        raise Malformed("no answer tag" if "</think>" in text else "no think tag")
    thought = text[: turn.start()].strip().removeprefix("<think>")
    return Reply(thought.strip(), text[turn.end() : end].strip())


def has_thought(text: str) -> bool:
    """True if the reply has any text before `</think>`."""
    thought, closed, _ = text.removeprefix("<think>").partition("</think>")
    return bool(closed and thought.strip())


def blocks(text: str) -> list[Block]:
    """The fenced blocks of an answer, in order.

    A fence opens at the start of a line. As many backticks close it, at the start of a line, or at the end of one where
    the model forgot the line break. Strings in a program may contain such lines, so the first closing fence that leaves
    a program that parses is taken.
    """
    text = text.replace("\r\n", "\n")
    closings = list(_CLOSING.finditer(text))
    found: list[Block] = []
    position = index = 0
    budget = MAX_PARSED_CHARS
    while opening := _OPENING.search(text, position):
        tag = {"py": "python"}.get(opening["tag"].lower(), opening["tag"].lower())
        start = opening.end() + text.startswith("\n", opening.end())
        while index < len(closings) and closings[index].start() < start:
            index += 1
        later = (closings[place] for place in range(index, len(closings)))
        ends = list(islice((one for one in later if _closes(one, opening["marks"])), MAX_CLOSINGS))
        if not ends:
            break
        end = ends[0]
        if tag in ("python", "") and len(ends) > 1:
            end, budget = _first_program(text, start, ends=ends, budget=budget)
        found.append(Block(tag, text[start : end.start()].strip("\n").rstrip()))
        position = end.end()
    return found


def _closes(closing: re.Match[str], marks: str) -> bool:
    """On its own line a longer fence closes too; at the end of a line only one of equal length."""
    length = len(closing["marks"])
    return length == len(marks) or (closing["own_line"] is not None and length > len(marks))


def _first_program(text: str, start: int, *, ends: Sequence[re.Match[str]], budget: int) -> tuple[re.Match[str], int]:
    """The first closing fence that leaves a program that parses, or the first of all; and the rest of the budget."""
    for end in ends:
        budget -= end.start() - start + _PARSE_COST_CHARS
        if budget < 0:
            break
        if parses(text[start : end.start()]):
            return end, budget
    return ends[0], budget


def only_block(answer: str, tag: str) -> str:
    """The last block with this tag; the whole answer if it has no fences.

    Raises:
        Malformed: there are fences but none with this tag, or the block is empty.
    """
    fenced = blocks(answer)
    wanted = [block.body for block in fenced if block.tag in _SYNONYMS.get(tag, (tag,))]
    body = wanted[-1] if wanted else answer if not fenced else ""
    if not body.strip():
        raise Malformed(f"no {tag} block")
    return body


_SYNONYMS = {"python": ("python", ""), "output": ("output", ""), "input": ("input", "")}


def block_bodies(answer: str, tag: str) -> list[str]:
    """The bodies of all blocks with this tag, in order; an untagged block is a program."""
    accepted = ("python", "") if tag == "python" else (tag,)
    return [block.body for block in blocks(answer) if block.tag in accepted]
