"""Scripted replies for whole steps of the game, told apart by the prompt's cell."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from azr.types import Cell, Role
from tests.fakes import ScriptedGenerate, block, induction_proposal, proposal, reply

Reply = Callable[[str, int], str]
"""(prompt, number of the sample) -> reply."""

MARKS = {
    "must predict the output without": Cell(Role.PROPOSER, "deduction"),
    "must find an input that gives": Cell(Role.PROPOSER, "abduction"),
    "## Invent inputs and a message": Cell(Role.PROPOSER, "induction"),
    "## Predict the output": Cell(Role.SOLVER, "deduction"),
    "## Find an input": Cell(Role.SOLVER, "abduction"),
    "## Work out the program": Cell(Role.SOLVER, "induction"),
}


def cell_of(prompt: str) -> Cell:
    """Which cell of the prompt set `azr` a prompt belongs to."""
    [cell] = [cell for mark, cell in MARKS.items() if mark in prompt]
    return cell


def program(number: int) -> str:
    """One of many different programs that give 7 for every true input."""
    return f"def f(x):\n    return 7 if x else {number}"


def player(**replies: Reply | str) -> ScriptedGenerate:
    """A policy that proposes another program each time and solves everything right, but for `replies`.

    Keys are `propose_deduction`, `solve_induction`, ...; `propose` and `solve` stand for all types.
    """
    numbers = count(100)
    usual: dict[str, Reply] = {
        "propose_deduction": lambda _, __: proposal(program(next(numbers)), "1"),
        "propose_abduction": lambda _, __: proposal(program(next(numbers)), "1"),
        "propose_induction": lambda _, __: induction_proposal(["1", "2", "3", str(next(numbers))]),
        "solve_deduction": lambda prompt, _: right_output(prompt),
        "solve_abduction": lambda prompt, _: right_input(prompt),
        "solve_induction": lambda prompt, _: reply(
            block("python", "def f(x):\n    return " + identity_or_seven(prompt))
        ),
    }

    def reply_to(prompt: str, sample: int) -> str:
        cell = cell_of(prompt)
        name = f"{cell.role.verb}_{cell.task_type}"
        chosen = replies.get(name, replies.get(cell.role.verb, usual[name]))
        return chosen if isinstance(chosen, str) else chosen(prompt, sample)

    return ScriptedGenerate(reply_to)


def right_output(prompt: str) -> str:
    return reply(block("output", "7" if "7 if " in prompt else "'hello'"))


def right_input(prompt: str) -> str:
    return reply(block("input", "5" if "7 if " in prompt else "'hello'"))


def identity_or_seven(prompt: str) -> str:
    return "7" if "```output_1\n7\n" in prompt else "x"


WRONG_OUTPUT = reply(block("output", "'no'"))
NO_TAGS = "I would rather not"


def right_for_the_first(num_right: int) -> Reply:
    """Solves a deduction task in the first samples of a group only."""
    return lambda prompt, sample: right_output(prompt) if sample < num_right else WRONG_OUTPUT
