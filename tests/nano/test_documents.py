"""Every document is right, and its prompts are those of self-play."""

from random import Random

import pytest

from azr.build import make_types
from azr.configfile import load, packaged
from azr.nano import documents, grammar, tokenizer
from azr.nano.documents import DEPTHS, Mixture, Turn, document
from azr.prompts import PromptSet
from azr.types import Example, Role, Task, Verdict
from tests.fakes import InProcessExecutor

TYPES = make_types(load(packaged("nano")))

PROGRAM = "def f(x):\n a=sorted(x)\n return a[0]"
TASK = Task("deduction", PROGRAM, (Example("[3, 1]", "1"), Example("[7]", "7")), "pick, sort")


def turns(cell: int, thinking: float, count: int = 200) -> list[Turn]:
    rng = Random(cell)
    cells = tuple(float(number == cell) for number in range(6))
    return [turn for _ in range(count) for turn in document(rng, Mixture(DEPTHS, thinking, 1, cells))]


def fields(prompt: str, tag: str) -> list[str]:
    """What stands after each of the tags."""
    return [part.split("\n<")[0] for part in prompt.split(f"<{tag}>\n")[1:]]


def field(prompt: str, tag: str) -> str:
    return fields(prompt, tag)[0]


def program_of(prompt: str) -> str:
    return prompt.split(">\n")[1].split("\n<")[0]


async def solves(task: Task, turn: Turn) -> bool:
    """Whether the reply solves the task, by the task type of a nano run."""
    task_type = TYPES[task.task_type]
    outcome = await task_type.verify(task, task_type.parse_answer(turn.completion), InProcessExecutor())
    return outcome.verdict is Verdict.CORRECT


async def proposed(task_type: str, turn: Turn, program: str) -> Task:
    """The task that the reply proposes; raises where it is not a fair one."""
    reference = Task("deduction", program, (), "")
    proposal = TYPES[task_type].parse_proposal(turn.completion, [reference])
    return await TYPES[task_type].validate(proposal, InProcessExecutor())


def test_a_filled_in_example() -> None:
    program = grammar.parse(PROGRAM)
    assert documents.deduction_thoughts(program, [3, 1]) == "\n a=[1, 3]\n return 1"
    assert documents.abduction_thoughts(program, [3, 1]) == "\n a=[1, 3]\n x=[3, 1]"
    assert documents.induction_thoughts(program, [3, 1]) == "\n a=sorted(x) -> [1, 3]\n return a[0] -> 1"
    assert documents.reply("output", "1") == "</think><answer>```output\n1\n```</answer>"


@pytest.mark.parametrize("thinking", [0.0, 1.0])
async def test_deduction_replies_are_right(thinking: float) -> None:
    for turn in turns(0, thinking):
        program, value = program_of(turn.prompt), field(turn.prompt, "input")
        output = repr(grammar.run(grammar.parse(program), grammar.parse_value(value))[-1])
        assert await solves(Task("deduction", program, (Example(value, output),), ""), turn)
        assert turn.completion.startswith("</think>") == (thinking == 0)


@pytest.mark.parametrize("thinking", [0.0, 1.0])
async def test_abduction_replies_are_right(thinking: float) -> None:
    for turn in turns(1, thinking):
        example = Example("", field(turn.prompt, "output"))
        assert await solves(Task("abduction", program_of(turn.prompt), (example,), ""), turn)


@pytest.mark.parametrize("thinking", [0.0, 1.0])
async def test_induction_replies_reproduce_the_shown_runs(thinking: float) -> None:
    for turn in turns(2, thinking):
        shown = tuple(map(Example, fields(turn.prompt, "input"), fields(turn.prompt, "output")))
        assert len(shown) == 3
        assert await solves(Task("induction", "", (*shown, *shown), ""), turn)


@pytest.mark.parametrize(("cell", "task_type"), [(3, "deduction"), (4, "abduction")])
async def test_proposals_are_valid(cell: int, task_type: str) -> None:
    for turn in turns(cell, 0.0):
        await proposed(task_type, turn, PROGRAM)


async def test_induction_proposals_are_valid() -> None:
    for turn in turns(5, 0.0):
        program = turn.prompt.removeprefix("<propose induction>\n").removesuffix(tokenizer.THINK)
        assert (await proposed("induction", turn, program)).message


def test_later_answers_about_one_program_have_only_a_field_as_prompt() -> None:
    rng = Random(0)
    many = [document(rng, Mixture(DEPTHS, 0.5, 4, (1, 0, 0, 0, 0, 0))) for _ in range(50)]
    assert max(map(len, many)) > 1
    assert all(turn.prompt.startswith("\n<input>\n") for several in many for turn in several[1:])


def test_no_document_holds_a_held_out_program() -> None:
    for turn in turns(0, 0.0, count=500):
        program = grammar.parse(program_of(turn.prompt))
        assert not grammar.is_held_out(program, grammar.parse_value(field(turn.prompt, "input")))


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
