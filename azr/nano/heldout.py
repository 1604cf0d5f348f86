"""The held-out tasks of the nano model: drawn like its documents, from programs that pretraining never sees.

A line of `heldout.jsonl` is a task in the form of `azr verify`; the solver sees the first half of an induction task's
examples.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from azr.nano import grammar
from azr.nano.documents import DEPTHS, NUM_INPUTS
from azr.nano.grammar import Program, Value

TASKS_PER_TYPE = 600
SEED = 20_260

HeldOutRow = dict[str, str | list[str]]


def rows(tasks_per_type: int = TASKS_PER_TYPE) -> list[HeldOutRow]:
    """The same tasks at every call; each program occurs once per type."""
    rng = Random(SEED)
    return [
        {"id": f"{task_type}-{number}", **row}
        for task_type in ("deduction", "abduction", "induction")
        for number, row in enumerate(_of_type(rng, task_type, tasks_per_type))
    ]


def write(path: Path) -> None:
    """Write the tasks; the packaged file `heldout.jsonl` was made this way."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")


def _of_type(rng: Random, task_type: str, count: int) -> list[HeldOutRow]:
    found: dict[str, HeldOutRow] = {}
    while len(found) < count:
        program, value = _draw_held_out(rng)
        row = _induction(rng, program, value) if task_type == "induction" else _single(task_type, program, value)
        if row is not None:
            found.setdefault(grammar.source_text(program), row)
    return list(found.values())


def _draw_held_out(rng: Random) -> tuple[Program, Value]:
    while True:
        program, value = grammar.draw_program(rng, rng.choices((1, 2, 3, 4), DEPTHS)[0])
        if grammar.is_held_out(program, value):
            return program, value


def _single(task_type: str, program: Program, value: Value) -> HeldOutRow:
    output = repr(grammar.run(program, value)[-1])
    text = grammar.source_text(program)
    return {"task_type": task_type, "program": text, "input": repr(value), "output": output, "message": ""}


def _induction(rng: Random, program: Program, value: Value) -> HeldOutRow | None:
    """None if too few inputs work for the program."""
    values: list[Value] = [value]
    for _ in range(5 * NUM_INPUTS):
        other = grammar.draw_other_input(rng, program, type(value)) if len(values) < NUM_INPUTS else None
        if other is not None and other not in values:
            values.append(other)
    if len(values) < NUM_INPUTS:
        return None
    return {
        "task_type": "induction",
        "program": grammar.source_text(program),
        "inputs": [repr(each) for each in values],
        "outputs": [repr(grammar.run(program, each)[-1]) for each in values],
        "message": grammar.message(program),
    }
