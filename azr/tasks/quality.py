"""Figures that show whether proposed tasks are trivial, copies, or given away by their message.

They are for the metrics only: no reward depends on them.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Sequence

from azr.errors import Malformed
from azr.tasks.source import entry_node, normal_form, parse
from azr.types import Task

_TOKEN = re.compile(r"\w+|[^\w\s]")
_GRAM = 3


def is_trivial(task: Task) -> bool:
    """True for the identity, a constant, or a program that never reads its input."""
    if all(example.input == example.output for example in task.examples):
        return True
    outputs = {example.output for example in task.examples}
    inputs = {example.input for example in task.examples}
    if len(inputs) > 1 and len(outputs) == 1:
        return True
    return ignores_input(task.program)


def ignores_input(program: str) -> bool:
    """True when no parameter of the entry function is read anywhere in it."""
    entry = entry_node(parse(program))
    if entry is None:
        return False
    arguments = entry.args
    several = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    names = {a.arg for a in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *several]}
    read = {n.id for n in ast.walk(entry) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return not (names & read)


def num_statements(program: str) -> int:
    """Number of statements inside the program's functions: a size that does not depend on layout."""
    tree = parse(program)
    statements = sum(isinstance(node, ast.stmt) for node in ast.walk(tree))
    return statements - sum(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in ast.walk(tree)
    )


def message_leak(task: Task) -> float:
    """Share of the program's token triples that also occur in the message: 0 gives nothing away, 1 everything."""
    program = _grams(task.program)
    return len(program & _grams(task.message)) / len(program) if program else 0.0


def _grams(text: str) -> set[tuple[str, ...]]:
    tokens = _TOKEN.findall(text)
    return {tuple(tokens[start : start + _GRAM]) for start in range(len(tokens) - _GRAM + 1)}


def novelty(program: str, references: Sequence[Task]) -> float:
    """Mean edit distance to the references' programs, between 0 (a copy) and 1, on tokens of the normal forms.

    The distance is 1 - difflib's ratio, as in the official intrinsic reward `mean_edit_distance`; 1 without references.
    """
    if not references:
        return 1.0
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(_normal_tokens(program))
    total = 0.0
    for reference in references:
        matcher.set_seq1(_normal_tokens(reference.program))
        total += 1.0 - matcher.ratio()
    return total / len(references)


def _normal_tokens(program: str) -> list[str]:
    try:
        return _TOKEN.findall(normal_form(program))[:400]
    except Malformed:
        return _TOKEN.findall(program)[:400]
