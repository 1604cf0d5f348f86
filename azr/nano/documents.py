"""What the base model is pretrained on: an endless stream of `prompts/nano` prompts with correct replies.

A filled-in example, solving a deduction task with thoughts::

    <solve deduction>
    def f(x):
     a=sorted(x)
     return a[0]
    <input>
    [3, 1]
    <think>
     a=[1, 3]
     return 1</think><answer>```output
    1
    ```</answer>

A direct reply starts at `</think>`. The prompts are written here by hand, because that is faster; a test checks that
they equal the rendered templates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from azr.nano import grammar, tokenizer
from azr.nano.grammar import Program, Value, source_text

REFERENCE, INPUT, OUTPUT, MESSAGE = tokenizer.FIELDS
NUM_INPUTS = 6
"""N of `tasks.induction_inputs`: inputs in an induction proposal; the solver sees half of them."""
IDENTITIES = (("def f(x):\n return x", "[3, 1]"), ("def f(x):\n    return x", "'Hello World'"))
"""References that are never drawn, but from which self-play starts."""


class Turn(NamedTuple):
    """A prompt and its reply. In a document with several answers, later prompts are only a field such as the input."""

    prompt: str
    completion: str


class Mixture(NamedTuple):
    """How documents are drawn."""

    statements: tuple[float, ...]
    """Shares of programs with one, two, three and four statements."""
    thinking: float
    """Share of solver replies with thoughts."""
    answers: int
    """Largest number of answers about one program in a deduction or abduction document."""
    cells: tuple[float, ...] = (0.23, 0.23, 0.3, 0.08, 0.08, 0.08)
    """Shares of the cells: the solver's deduction, abduction and induction, then the proposer's."""


DEPTHS = (0.10, 0.30, 0.35, 0.25)
"""Shares of programs with one to four statements, unless the curriculum changes them."""


def solve_deduction_prompt(program: str, value: str) -> str:
    return f"<solve deduction>\n{program}{INPUT}{value}{tokenizer.THINK}"


def solve_abduction_prompt(program: str, output: str) -> str:
    return f"<solve abduction>\n{program}{OUTPUT}{output}{tokenizer.THINK}"


def solve_induction_prompt(examples: Sequence[tuple[str, str]], message: str) -> str:
    shown = "".join(f"{INPUT}{value}{OUTPUT}{output}" for value, output in examples)
    return f"<solve induction>{shown}{MESSAGE}{message}{tokenizer.THINK}"


def propose_prompt(task_type: str, references: Sequence[tuple[str, str]]) -> str:
    shown = "".join(f"{REFERENCE}{program}{INPUT}{value}" for program, value in references)
    return f"<propose {task_type}>{shown}{tokenizer.THINK}"


def propose_induction_prompt(program: str) -> str:
    return f"<propose induction>\n{program}{tokenizer.THINK}"


def reply(kind: str, block: str, thoughts: str = "") -> str:
    return thoughts + tokenizer.ANSWER[kind] + block + tokenizer.CLOSE


def deduction_thoughts(program: Program, value: Value) -> str:
    """The value of every line."""
    return "".join(grammar.start(s.target) + repr(v) for s, v in zip(program, grammar.run(program, value), strict=True))


def abduction_thoughts(program: Program, value: Value) -> str:
    """The value of every variable, from the last back to `x`."""
    targets = ["x", *(statement.target for statement in program[:-1])]
    values = [value, *grammar.run(program, value)[:-1]]
    return "".join(grammar.start(t) + repr(v) for t, v in zip(reversed(targets), reversed(values), strict=True))


def induction_thoughts(program: Program, value: Value) -> str:
    """Every line with its value on the first shown input, which helps to choose the next line."""
    trace = grammar.run(program, value)
    return "".join(f"{s.line}{tokenizer.ARROW}{v!r}" for s, v in zip(program, trace, strict=True))


def document(rng: Random, mixture: Mixture) -> list[Turn]:
    """The turns of one document; self-play only ever uses one turn."""
    cell = rng.choices(range(6), mixture.cells)[0]
    if cell == 2:
        return [_solve_induction(rng, mixture)]
    if cell == 5:
        return [_propose_induction(rng, mixture)]
    if cell > 2:
        return [_propose(rng, mixture, "deduction" if cell == 3 else "abduction")]
    return _solve(rng, mixture, _deduction if cell == 0 else _abduction)


def draw(rng: Random, mixture: Mixture) -> tuple[Program, Value]:
    """A program and an input that are not held out."""
    while True:
        program, value = grammar.draw_program(rng, rng.choices((1, 2, 3, 4), mixture.statements)[0])
        if not grammar.is_held_out(program, value):
            return program, value


def other_inputs(rng: Random, program: Program, value: Value, count: int) -> list[Value]:
    """`count` different inputs, the given one first; fewer if the program accepts only few."""
    values = [value]
    for _ in range(3 * count):
        other = grammar.draw_other_input(rng, program, type(value)) if len(values) < count else None
        if other is not None and other not in values and not grammar.is_held_out(program, other):
            values.append(other)
    return values


def _deduction(program: Program, value: Value, thinks: bool) -> Turn:
    output = repr(grammar.run(program, value)[-1])
    thoughts = deduction_thoughts(program, value) if thinks else ""
    return Turn(solve_deduction_prompt(source_text(program), repr(value)), reply("output", output, thoughts))


def _abduction(program: Program, value: Value, thinks: bool) -> Turn:
    output = repr(grammar.run(program, value)[-1])
    thoughts = abduction_thoughts(program, value) if thinks else ""
    return Turn(solve_abduction_prompt(source_text(program), output), reply("input", repr(value), thoughts))


def _solve(rng: Random, mixture: Mixture, turn: Callable[[Program, Value, bool], Turn]) -> list[Turn]:
    program, value = draw(rng, mixture)
    values = other_inputs(rng, program, value, rng.randint(1, mixture.answers))
    turns = [turn(program, each, rng.random() < mixture.thinking) for each in values]
    field = INPUT if turn is _deduction else OUTPUT
    return [turns[0], *(Turn(field + t.prompt.split(field)[1], t.completion) for t in turns[1:])]


def _solve_induction(rng: Random, mixture: Mixture) -> Turn:
    while True:
        program, value = draw(rng, mixture)
        values = other_inputs(rng, program, value, NUM_INPUTS // 2)
        if len(values) == NUM_INPUTS // 2:
            break
    examples = [(repr(each), repr(grammar.run(program, each)[-1])) for each in values]
    thoughts = induction_thoughts(program, value) if rng.random() < mixture.thinking else ""
    prompt = solve_induction_prompt(examples, grammar.message(program))
    return Turn(prompt, reply("python", source_text(program), thoughts))


def _propose(rng: Random, mixture: Mixture, task_type: str) -> Turn:
    references = [_reference(rng, mixture) for _ in range(rng.choice((0, 1, 2, 2, 2)))]
    program, value = draw(rng, mixture)
    block = source_text(program) + tokenizer.NEXT["input"] + repr(value)
    return Turn(propose_prompt(task_type, references), reply("python", block))


def _reference(rng: Random, mixture: Mixture) -> tuple[str, str]:
    if rng.random() < 0.05:
        return rng.choice(IDENTITIES)
    program, value = draw(rng, mixture)
    return source_text(program), repr(value)


def _propose_induction(rng: Random, mixture: Mixture) -> Turn:
    while True:
        program, value = draw(rng, mixture)
        values = other_inputs(rng, program, value, NUM_INPUTS)
        if len(values) == NUM_INPUTS:
            break
    block = tokenizer.NEXT["input"].join(map(repr, values)) + tokenizer.NEXT["message"] + grammar.message(program)
    return Turn(propose_induction_prompt(source_text(program)), reply("input", block))
