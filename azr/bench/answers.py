"""Replies as a policy might write them, in known shares: right, in another form, wrong, repeated, malformed.

Everything is drawn from one `rng`, so a seed gives the same replies on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, cast

from azr.prompts import fence
from azr.types import Task
from sandbox.shared.values import Arguments, NotAValue, arguments_text, decode_arguments


class Kind(StrEnum):
    """What a reply was made to be; the judge says what it is."""

    RIGHT = "right"
    """The known answer itself: no run is needed."""
    OTHER = "other form"
    """Perhaps right and unlike the known answer, so that it must be run: another input, the program with a comment."""
    WRONG = "wrong"
    REPEATED = "repeated"
    """Word for word an earlier reply to the same task."""
    MALFORMED = "malformed"


MIX = {Kind.RIGHT: 0.25, Kind.OTHER: 0.15, Kind.WRONG: 0.30, Kind.REPEATED: 0.20, Kind.MALFORMED: 0.10}
"""Shares of a drawn kind; a repetition with nothing to repeat becomes a wrong answer."""
THOUGHT = "Let me go through it step by step.</think> "
MALFORMED = (
    THOUGHT + "The answer is 7.",
    THOUGHT + "<answer>```text\n7\n```</answer>",
    "<answer>7</answer>",
)


class Reply(NamedTuple):
    """One solver reply."""

    kind: Kind
    text: str


def replies(task: Task, others: Sequence[Task], count: int, rng: random.Random) -> list[Reply]:
    """`count` replies to a task; `others` lend their hidden parts as wrong answers."""
    made: list[Reply] = []
    for place in range(count):
        [kind] = rng.choices(list(MIX), weights=list(MIX.values()))
        if kind is Kind.REPEATED and made:
            made.append(Reply(kind, rng.choice(made).text))
            continue
        kind = Kind.WRONG if kind is Kind.REPEATED else kind
        made.append(Reply(kind, _text(kind, task, others, place=place, rng=rng)))
    return made


def _text(kind: Kind, task: Task, others: Sequence[Task], *, place: int, rng: random.Random) -> str:
    if kind is Kind.MALFORMED:
        return rng.choice(MALFORMED)
    write = {"deduction": _output, "abduction": _input, "induction": _program}[task.task_type]
    return write(kind, task, others, place, rng)


def answered(*blocks: str) -> str:
    """A reply around fenced blocks."""
    return f"{THOUGHT}<answer>{chr(10).join(blocks)}</answer>"


def _output(kind: Kind, task: Task, others: Sequence[Task], place: int, rng: random.Random) -> str:
    del place
    lent = task if kind in (Kind.RIGHT, Kind.OTHER) else rng.choice(others)
    space = " " if kind is Kind.OTHER else ""
    return answered(fence(space + lent.examples[0].output, "output"))


def _input(kind: Kind, task: Task, others: Sequence[Task], place: int, rng: random.Random) -> str:
    del others, place
    known = task.examples[0].input
    return answered(fence(known if kind is Kind.RIGHT else varied(known, rng), "input"))


def _program(kind: Kind, task: Task, others: Sequence[Task], place: int, rng: random.Random) -> str:
    if kind is Kind.RIGHT:
        return answered(fence(task.program, "python"))
    if kind is Kind.OTHER:
        return answered(fence(f"# written as attempt {place}\n{task.program}", "python"))
    if rng.random() < 0.5:
        return answered(fence(rng.choice(others).program, "python"))
    wrapped = f"{task.program}\n\n_given = f\n\ndef f(*inputs):\n    return [{place}, _given(*inputs)]"
    return answered(fence(wrapped, "python"))


def varied(text: str, rng: random.Random) -> str:
    """An argument list like the given one with one value changed a little."""
    given = decode_arguments(text)
    if not given.positional:
        return text
    positional = list(given.positional)
    place = rng.randrange(len(positional))
    positional[place] = _near(positional[place], rng)
    try:
        return arguments_text(Arguments(tuple(positional), given.keywords))
    except NotAValue:
        return text


def _near(value: object, rng: random.Random) -> object:
    """A value of the same type close by; the same one where there is none."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + rng.randint(1, 9)
    if isinstance(value, str):
        return value + rng.choice("abcxyz019 ")
    if type(value) in (list, tuple) and value:
        members = cast(Sequence[object], value)
        near = [*members[:-1], _near(members[-1], rng)]
        return near if type(value) is list else tuple(near)
    if type(value) is dict and value:
        table = cast(dict[object, object], value)
        last = list(table)[-1]
        return {**table, last: _near(table[last], rng)}
    return cast(object, value)
