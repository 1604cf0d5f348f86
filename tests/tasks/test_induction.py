"""Induction: the answer is a program, verified on runs that the solver was not shown."""

from __future__ import annotations

import pytest

from azr.errors import Malformed
from azr.tasks.induction import Induction, hidden, shown
from azr.types import Outcome, Verdict
from sandbox.types import SandboxBroken
from tests.fakes import PLUS_ONE, InProcessExecutor, block, reply, rules, task

INDUCTION = Induction(rules())
PUZZLE = task(
    PLUS_ONE,
    runs=[("11", "12"), ("22", "23"), ("33", "34"), ("44", "45")],
    task_type="induction",
    message="one step further",
)


async def verdict(answer: str, executor: InProcessExecutor | None = None) -> str:
    outcome = await INDUCTION.verify(PUZZLE, answer, executor or InProcessExecutor())
    return outcome.reason or str(outcome.verdict)


def test_the_first_half_is_shown_and_the_second_hidden() -> None:
    assert [example.input for example in shown(PUZZLE)] == ["11", "22"]
    assert [example.input for example in hidden(PUZZLE)] == ["33", "44"]


@pytest.mark.parametrize(
    "answer",
    [
        PLUS_ONE,
        "def solve(x):\n    return x - -1",
        "def solve(n):\r\n    return n + 1\r\n",
        "def f(x):\n    return x + 1.0",
        "def helper(x):\n    return x + 1\n\ndef solve(x):\n    return helper(x)",
        "f = lambda x: x + 1",
    ],
)
async def test_a_program_that_does_the_same_is_right(answer: str) -> None:
    assert await verdict(answer) == "correct"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("def f(x):\n    return {11: 12, 22: 23}.get(x)", "different"),
        ("def f(x):\n    return {11: 12, 22: 23}[x]", "error"),
        ("def f(x):\n    return 34", "different"),
        ("def f(x):\n    return x + 1 if x < 40 else x", "different"),
        ("def f(x):\n    raise TimeoutError", "timeout"),
        ("def f(x) return x", "syntax_error"),
        ("I do not know", "syntax_error"),
        ("x = 1", "no function"),
        ("", "no function"),
    ],
)
async def test_a_program_is_verified_on_hidden_runs_only(answer: str, reason: str) -> None:
    assert await verdict(answer) == reason


async def test_right_on_hidden_runs_is_right_whatever_it_does_on_shown_ones() -> None:
    assert await verdict("def f(x):\n    return x + 1 if x > 30 else 0") == "correct"


@pytest.mark.parametrize(
    "answer",
    [
        "class Same:\n    def __eq__(self, other):\n        return True\n\ndef f(x):\n    return Same()",
        "class Same(int):\n    def __eq__(self, other):\n        return True\n\ndef f(x):\n    return Same()",
        "class Same:\n    def __repr__(self):\n        return '34'\n\ndef f(x):\n    return [Same()]",
    ],
)
async def test_an_object_that_claims_to_be_equal_is_no_value(answer: str) -> None:
    assert await verdict(answer) == "not_a_value"


async def test_hidden_inputs_enter_the_sandbox_one_by_one_and_never_an_output() -> None:
    executor = InProcessExecutor()
    assert await verdict("def f(x):\n    return x - -1", executor) == "correct"
    assert [job.inputs for job in executor.jobs] == [("33",), ("44",)]
    assert not any(output in repr(executor.jobs) for output in ("12", "23", "34", "45"))


async def test_verification_ends_at_the_first_wrong_run() -> None:
    executor = InProcessExecutor()
    assert await verdict("def f(x):\n    return x", executor) == "different"
    assert [job.inputs for job in executor.jobs] == [("33",)]


async def test_the_program_itself_needs_no_run() -> None:
    executor = InProcessExecutor()
    assert await verdict(f"{PLUS_ONE}\n", executor) == "correct"
    assert executor.jobs == []


async def test_the_program_in_other_names_is_run_because_inputs_may_be_keywords() -> None:
    puzzle = task(PLUS_ONE, runs=[("x=1", "2"), ("x=3", "4")], task_type="induction", message="one step further")
    outcome = await INDUCTION.verify(puzzle, "def f(y):\n    return y + 1", InProcessExecutor())
    assert outcome.reason == "error"


async def test_answers_are_held_to_types_only_when_equality_is_strict() -> None:
    strict = Induction(rules(is_strict=True))
    outcome = await strict.verify(PUZZLE, "def f(x):\n    return x + 1.0", InProcessExecutor())
    assert outcome == Outcome(Verdict.WRONG, "different")


async def test_a_program_that_gives_another_value_when_called_again_is_wrong() -> None:
    counting = "seen = []\ndef f(x):\n    seen.append(x)\n    return x + len(seen)"
    assert await verdict(counting) == "nondeterministic"


async def test_a_broken_sandbox_is_no_wrong_answer() -> None:
    with pytest.raises(SandboxBroken):
        await verdict("def f(x):\n    return x - -1", InProcessExecutor(SandboxBroken("it died")))


@pytest.mark.parametrize(
    "answer", [block("python", PLUS_ONE), block("", PLUS_ONE), PLUS_ONE, f"Like so:\n{block('py', PLUS_ONE)}"]
)
def test_program_is_read_from_its_block(answer: str) -> None:
    assert INDUCTION.parse_answer(reply(answer)) == PLUS_ONE


def test_an_answer_in_the_wrong_block_is_malformed() -> None:
    with pytest.raises(Malformed, match="no python block"):
        INDUCTION.parse_answer(reply(block("output", PLUS_ONE)))


def test_prompt_shows_half_of_the_runs_and_the_message_but_no_program() -> None:
    prompt = INDUCTION.solve_prompt(PUZZLE)
    assert all(text in prompt for text in ("11", "12", "22", "23", "one step further"))
    assert not any(text in prompt for text in ("33", "34", "44", "45", "x + 1"))
