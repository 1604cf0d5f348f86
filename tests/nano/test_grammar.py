"""The small language computes what Python computes."""

from collections.abc import Callable
from random import Random
from typing import cast

import pytest

from azr.nano import grammar
from azr.nano.grammar import OutsideGrammarError, Program, Value, draw_program, parse, parse_value, run, source_text


def draws(count: int, seed: int = 0) -> list[tuple[Program, Value]]:
    rng = Random(seed)
    return [draw_program(rng, rng.randint(1, 4)) for _ in range(count)]


def python_value(program: Program, value: Value) -> Value:
    """What Python makes of a program that our own generator drew."""
    namespace: dict[str, object] = {}
    exec(source_text(program), namespace)
    return cast(Callable[[Value], Value], namespace["f"])(value)


def test_values_are_those_of_python() -> None:
    for program, value in draws(3000):
        assert run(program, value)[-1] == python_value(program, value), source_text(program)


def test_parsing_gives_the_drawn_program_back() -> None:
    for program, value in draws(1000, seed=1):
        assert parse(source_text(program)) == program
        assert parse_value(repr(value)) == value


def test_drawn_values_are_small() -> None:
    assert all(grammar.is_small(each) for program, value in draws(1000, seed=2) for each in run(program, value))


def test_programs_are_various() -> None:
    assert len({source_text(program) for program, _ in draws(1000, seed=3)}) > 600


def test_other_inputs_keep_the_program_small() -> None:
    rng = Random(4)
    for program, value in draws(200, seed=4):
        other = grammar.draw_other_input(rng, program, type(value))
        assert other is None or all(map(grammar.is_small, run(program, other)))


def test_the_identity_program_is_understood() -> None:
    assert run(parse("def f(x):\n return x"), "pq") == ["pq"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "def f(x):",
        "def f(x):\n a=sorted(x)",
        "def f(x):\n return x\n return x",
        "def f(x):\n return __import__('os')",
        "def f(x):\n return x.count('q'*9)",
        "def g(x):\n return x",
        "import os\ndef f(x):\n return x",
    ],
)
def test_other_python_is_outside(text: str) -> None:
    with pytest.raises(OutsideGrammarError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("def f(x):\n return max(x)", []), ("def f(x):\n return sum(x)", "pq"), ("def f(x):\n return a", 1)],
)
def test_what_python_refuses_is_outside(text: str, value: Value) -> None:
    with pytest.raises(OutsideGrammarError):
        run(parse(text), value)


def test_values_that_explode_are_outside() -> None:
    program = parse("def f(x):\n a='p'*x\n return len(a)")
    with pytest.raises(OutsideGrammarError):
        run(program, 9999)


@pytest.mark.parametrize("text", ["x", "[1,2]", "{}", "1+1", "'p", "[[1]]", "[1, ]"])
def test_other_values_are_outside(text: str) -> None:
    with pytest.raises(OutsideGrammarError):
        parse_value(text)


def test_the_message_names_each_operation_once() -> None:
    assert grammar.message(parse("def f(x):\n a=x[1:]\n b=a[:-1]\n return sum(b)")) == "cut, total"


def test_an_eighth_is_held_out() -> None:
    held_out = [grammar.is_held_out(program, value) for program, value in draws(2000, seed=5)]
    assert 0.09 < sum(held_out) / 2000 < 0.16
