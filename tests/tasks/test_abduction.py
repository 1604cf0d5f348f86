"""Abduction: any input that gives the output is right; the answer is a list of values, never code."""

from __future__ import annotations

import pytest

from azr.errors import Malformed
from azr.tasks.abduction import Abduction
from azr.types import Task
from sandbox.types import Limits, SandboxBroken
from tests.fakes import InProcessExecutor, block, reply, rules, task

ABDUCTION = Abduction(rules())
UNTOUCHED = InProcessExecutor(SandboxBroken("this answer must not be run"))
SQUARE = task("def f(x):\n    return x * x", input="3", output="9", task_type="abduction")
LENGTH = task("def f(x):\n    return len(x)", input="[1, 2]", output="2", task_type="abduction")


async def verdict(task: Task, answer: str, executor: InProcessExecutor | None = None) -> str:
    outcome = await ABDUCTION.verify(task, answer, executor or InProcessExecutor())
    return outcome.reason or str(outcome.verdict)


PAIR = task("def f(a, b=1):\n    return a - b", input="5, b=2", output="3", task_type="abduction")


@pytest.mark.parametrize("answer", ["5, b=2", "5,b = 2", "5, 2", "4", "a=4", "b=0, a=3", "a=1 + 2, b=0", "b=2,\na=5,"])
async def test_arguments_may_be_named(answer: str) -> None:
    assert await verdict(PAIR, answer) == "correct"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("5, b=3", "different"),
        ("b=5, a=2", "different"),
        ("5, c=2", "error"),
        ("5, a=2", "error"),
        ("b=2", "error"),
        ("a=5, 2", "not_a_value"),
        ("a=5, a=5, b=2", "not_a_value"),
        ("a=4) or (a=4", "not_a_value"),
        ("a=4 # b", "not_a_value"),
        ("**{'a': 4}", "not_a_value"),
    ],
)
async def test_named_arguments_that_do_not_give_it_are_wrong(answer: str, reason: str) -> None:
    assert await verdict(PAIR, answer) == reason


@pytest.mark.parametrize("answer", ["[1, 2]", " [1,2] ", "[1,\n2,\n]", "[1] + [2]", "[1, 2],"])
async def test_the_known_input_is_right_without_a_run(answer: str) -> None:
    assert await verdict(LENGTH, answer, UNTOUCHED) == "correct"


@pytest.mark.parametrize(
    ("puzzle", "answer"),
    [
        (SQUARE, "-3"),
        (SQUARE, "3.0"),
        (SQUARE, "1 + 2"),
        (LENGTH, "'ab'"),
        (LENGTH, "[0] * 2"),
        (LENGTH, "{\n    'a': 1,\n    'b': 2,\n}"),
        (LENGTH, "'''\n\n'''"),
        (LENGTH, "'é€'"),
        (task("def f(a, b):\n    return a + b", input="1, 2", output="3"), "0,\n3"),
        (
            task("def f(x):\n    return x", input="Counter({'a': 1})", output="Counter({'a': 1})"),
            "Counter({'a': 1, 'b': 0})",
        ),
        (task("def f(x):\n    return x / 2", input="inf", output="inf"), "float('inf')"),
        (task("def f(x):\n    return x + 1", input="Fraction(1, 2)", output="Fraction(3, 2)"), "0.5"),
    ],
)
async def test_every_input_that_gives_the_output_is_right(puzzle: Task, answer: str) -> None:
    assert await verdict(puzzle, answer) == "correct"


@pytest.mark.parametrize(
    ("puzzle", "answer", "reason"),
    [(SQUARE, "4", "different"), (SQUARE, "'a'", "error"), (SQUARE, "3, 3", "error"), (SQUARE, "", "error")],
)
async def test_an_input_that_does_not_give_it_is_wrong(puzzle: Task, answer: str, reason: str) -> None:
    assert await verdict(puzzle, answer) == reason


@pytest.mark.parametrize(
    "answer",
    [
        "0) or (True",
        "x=abs(-3)",
        "x=3); import os; (",
        "*[3]",
        "**{'x': 3}",
        "abs(-3)",
        "f(3)",
        "3 - 0",
        "9 ** 0.5",
        "[3 for _ in '1'][0]",
        "type('A', (), {'__eq__': lambda a, b: True})()",
        "__import__('os')",
        "print(3)",
        "3; import os",
        "def f(x): return 9",
    ],
)
async def test_code_is_no_answer_and_is_never_run(answer: str) -> None:
    assert await verdict(SQUARE, answer, UNTOUCHED) == "not_a_value"


@pytest.mark.parametrize(
    "answer",
    ["[0] * 50_000", "'a' * 100_000", "'a' * 1_000_000_000", "[[0] * 999] * 999", "[" * 100 + "]" * 100, "9" * 5000],
)
async def test_an_oversized_answer_is_wrong_and_is_never_run(answer: str) -> None:
    assert await verdict(SQUARE, answer, UNTOUCHED) == "not_a_value"


async def test_only_the_canonical_answer_enters_the_sandbox() -> None:
    executor = InProcessExecutor()
    held = Abduction(rules(limits=Limits(wall_s=7.0)))
    await held.verify(SQUARE, "[4] * 2  \n + [5]", executor)
    [job] = executor.jobs
    assert (job.program, job.inputs, job.limits.wall_s) == (SQUARE.program, ("[4, 4, 5]",), 7.0)


@pytest.mark.parametrize("statement", ["raise Exception('fine')", "raise StopIteration", "raise SystemExit"])
async def test_a_run_that_raises_is_wrong_whatever_it_says(statement: str) -> None:
    puzzle = task(f"def f(x):\n    if x != 1:\n        {statement}\n    return ''", input="1", output="''")
    assert await verdict(puzzle, "2") == "error"


async def test_strict_equality_compares_types() -> None:
    strict = Abduction(rules(is_strict=True))
    assert (await strict.verify(SQUARE, "3.0", InProcessExecutor())).reason == "different"


async def test_a_run_that_disagrees_with_itself_is_wrong() -> None:
    counting = task("seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)", input="0", output="1")
    assert await verdict(counting, "5") == "nondeterministic"


async def test_a_broken_sandbox_is_no_wrong_answer() -> None:
    with pytest.raises(SandboxBroken):
        await verdict(SQUARE, "4", InProcessExecutor(SandboxBroken("it died")))


def test_multi_line_answer_is_read_whole() -> None:
    assert ABDUCTION.parse_answer(reply(block("input", "{\n'a': 1,\n}"))) == "{\n'a': 1,\n}"


def test_an_answer_in_the_wrong_block_is_malformed() -> None:
    with pytest.raises(Malformed, match="no input block"):
        ABDUCTION.parse_answer(reply(block("output", "9")))


def test_prompt_shows_program_and_output_but_not_the_input() -> None:
    prompt = ABDUCTION.solve_prompt(task(input="'secret'", output="[71]"))
    assert "x + 1" in prompt
    assert "[71]" in prompt
    assert "secret" not in prompt
