"""Every document is right, and its prompts are those of self-play."""

from random import Random

import pytest

from azr.nano import documents, evaluate, grammar, tokenizer
from azr.nano.documents import DEPTHS, Mixture, Turn, document
from azr.nano.heldout import Row
from azr.prompts import PromptSet
from azr.types import Example, Role, Task

PROGRAM = "def f(x):\n a=sorted(x)\n return a[0]"
TASK = Task("deduction", PROGRAM, (Example("[3, 1]", "1"), Example("[7]", "7")), "pick, sort")


def turns(cell: int, thinking: float, count: int = 200) -> list[Turn]:
    rng = Random(cell)
    cells = tuple(float(number == cell) for number in range(6))
    return [turn for _ in range(count) for turn in document(rng, Mixture(DEPTHS, thinking, 1, cells))]


def fields(prompt: str, tag: str) -> list[str]:
    """What stands after each of the tags."""
    return [part.split("\n<")[0] for part in prompt.split(f"<{tag}>\n")[1:]]


def row_of(task_type: str, prompt: str) -> Row:
    program = prompt.split(">\n")[1].split("\n<")[0]
    return {
        "task_type": task_type,
        "program": program,
        "input": "".join(fields(prompt, "input")[:1]),
        "output": "".join(fields(prompt, "output")[:1]),
    }


def test_a_filled_in_example() -> None:
    program = grammar.parse(PROGRAM)
    assert documents.deduction_thoughts(program, [3, 1]) == "\n a=[1, 3]\n return 1"
    assert documents.abduction_thoughts(program, [3, 1]) == "\n a=[1, 3]\n x=[3, 1]"
    assert documents.induction_thoughts(program, [3, 1]) == "\n a=sorted(x) -> [1, 3]\n return a[0] -> 1"
    assert documents.reply("output", "1") == "</think><answer>```output\n1\n```</answer>"


@pytest.mark.parametrize("thinking", [0.0, 1.0])
def test_deduction_replies_are_right(thinking: float) -> None:
    for turn in turns(0, thinking):
        row = row_of("deduction", turn.prompt)
        program = grammar.parse(str(row["program"]))
        row["output"] = repr(grammar.run(program, grammar.parse_value(str(row["input"])))[-1])
        assert evaluate.is_correct(row, turn.completion)
        assert turn.completion.startswith("</think>") == (thinking == 0)


@pytest.mark.parametrize("thinking", [0.0, 1.0])
def test_abduction_replies_are_right(thinking: float) -> None:
    for turn in turns(1, thinking):
        assert evaluate.is_correct(row_of("abduction", turn.prompt), turn.completion)


@pytest.mark.parametrize("thinking", [0.0, 1.0])
def test_induction_replies_reproduce_the_shown_runs(thinking: float) -> None:
    for turn in turns(2, thinking):
        inputs, outputs = fields(turn.prompt, "input"), fields(turn.prompt, "output")
        row: Row = {"task_type": "induction", "inputs": [""] * 3 + inputs, "outputs": [""] * 3 + outputs}
        assert len(inputs) == 3
        assert evaluate.is_correct(row, turn.completion)


@pytest.mark.parametrize("cell", [3, 4])
def test_proposals_are_valid(cell: int) -> None:
    assert all(evaluate.proposed_program(turn.completion) for turn in turns(cell, 0.0))


def test_induction_proposals_are_valid() -> None:
    for turn in turns(5, 0.0):
        program = turn.prompt.removeprefix("<propose induction>\n").removesuffix(tokenizer.THINK)
        assert evaluate.is_valid_induction(program, turn.completion)


def test_later_answers_about_one_program_have_only_a_field_as_prompt() -> None:
    rng = Random(0)
    many = [document(rng, Mixture(DEPTHS, 0.5, 4, (1, 0, 0, 0, 0, 0))) for _ in range(50)]
    assert max(map(len, many)) > 1
    assert all(turn.prompt.startswith("\n<input>\n") for several in many for turn in several[1:])


def test_no_document_holds_a_held_out_program() -> None:
    for turn in turns(0, 0.0, count=500):
        row = row_of("deduction", turn.prompt)
        program = grammar.parse(str(row["program"]))
        assert not grammar.is_held_out(program, grammar.parse_value(str(row["input"])))


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("task_type", ["deduction", "abduction"])
def test_proposer_prompts_are_the_templates(task_type: str, count: int) -> None:
    variables = {"references": [TASK] * count, "forbidden": ()}
    rendered = PromptSet("nano").render(Role.PROPOSER, task_type, variables)
    assert rendered == documents.propose_prompt(task_type, [(PROGRAM, "[3, 1]")] * count)


def test_the_induction_proposers_prompt_is_the_template() -> None:
    variables: dict[str, object] = {"references": (), "program": PROGRAM, "num_inputs": 6, "forbidden": ()}
    rendered = PromptSet("nano").render(Role.PROPOSER, "induction", variables)
    assert rendered == documents.propose_induction_prompt(PROGRAM)


def test_solver_prompts_are_the_templates() -> None:
    prompts = PromptSet("nano")
    deduction = prompts.render(Role.SOLVER, "deduction", {"program": PROGRAM, "input": "[3, 1]"})
    abduction = prompts.render(Role.SOLVER, "abduction", {"program": PROGRAM, "output": "1"})
    induction = prompts.render(Role.SOLVER, "induction", {"examples": TASK.examples, "message": TASK.message})
    assert deduction == documents.solve_deduction_prompt(PROGRAM, "[3, 1]")
    assert abduction == documents.solve_abduction_prompt(PROGRAM, "1")
    assert induction == documents.solve_induction_prompt([("[3, 1]", "1"), ("[7]", "7")], "pick, sort")
