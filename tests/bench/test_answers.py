"""The mix of replies: its shares, its determinism, and that each kind is what it is called."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from azr.bench.answers import MIX, Kind, Reply, replies, varied
from azr.errors import Malformed
from azr.tasks.base import TaskType
from azr.tasks.registry import TASK_TYPES
from azr.types import Example, Task, Verdict
from tests.fakes import InProcessExecutor, rules

RUNS = tuple(Example(str(n), str(n + 1)) for n in range(10))
PLUS_ONE = "def f(x):\n    return x + 1"
OTHER = "def f(x):\n    return [x, x]"


def task(name: str, program: str = PLUS_ONE) -> Task:
    runs = RUNS if name == "induction" else RUNS[3:4]
    return Task(name, program, runs, message="adds one")


def made(name: str, count: int = 2000, seed: int = 5) -> list[Reply]:
    lent = Task(name, OTHER, (Example("7", "'seven'"),) * 10, message="")
    return replies(task(name), [lent], count, random.Random(seed))


@pytest.mark.parametrize("name", TASK_TYPES)
def test_a_seed_gives_the_same_replies_every_time(name: str) -> None:
    assert made(name, seed=1) == made(name, seed=1)
    assert made(name, seed=1) != made(name, seed=2)


@pytest.mark.parametrize("name", TASK_TYPES)
def test_the_kinds_come_in_their_shares(name: str) -> None:
    found = Counter(reply.kind for reply in made(name))
    assert sum(MIX.values()) == pytest.approx(1.0)
    for kind, share in MIX.items():
        assert found[kind] / 2000 == pytest.approx(share, abs=0.04)


def test_the_first_reply_repeats_nothing() -> None:
    for seed in range(50):
        [reply] = made("deduction", count=1, seed=seed)
        assert reply.kind is not Kind.REPEATED


@pytest.mark.parametrize("name", TASK_TYPES)
def test_a_repeated_reply_is_word_for_word_an_earlier_one(name: str) -> None:
    group = made(name, count=60)
    for place, reply in enumerate(group):
        if reply.kind is Kind.REPEATED:
            assert reply.text in [earlier.text for earlier in group[:place]]


async def judged(task_type: TaskType, reply: Reply, executor: InProcessExecutor) -> Verdict:
    try:
        answer = task_type.parse_answer(reply.text)
    except Malformed:
        return Verdict.MALFORMED
    return (await task_type.verify(task(task_type.name), answer, executor)).verdict


@pytest.mark.parametrize("name", TASK_TYPES)
async def test_each_kind_is_judged_as_what_it_is_called(name: str) -> None:
    task_type = TASK_TYPES[name](rules())
    wanted = {Kind.RIGHT: Verdict.CORRECT, Kind.WRONG: Verdict.WRONG, Kind.MALFORMED: Verdict.MALFORMED}
    for reply in made(name, count=60):
        if reply.kind in wanted:
            assert await judged(task_type, reply, InProcessExecutor()) is wanted[reply.kind], reply


@pytest.mark.parametrize("name", ["abduction", "induction"])
async def test_right_answers_need_no_run_and_other_forms_do(name: str) -> None:
    task_type = TASK_TYPES[name](rules())
    for reply in made(name, count=60):
        executor = InProcessExecutor()
        await judged(task_type, reply, executor)
        if reply.kind in (Kind.RIGHT, Kind.OTHER):
            assert bool(executor.jobs) is (reply.kind is Kind.OTHER), reply


@pytest.mark.parametrize(
    "text", ["1", "'a', 2", "[1, [2, 'x']]", "{'a': {'b': 1}}", "True", "(1, 2.5)", "Counter({'a': 1})", "", "b=2"]
)
def test_a_varied_input_is_an_argument_list_again(text: str) -> None:
    once = varied(text, random.Random(1))
    assert varied(once, random.Random(2)) is not None
    assert once == varied(text, random.Random(1))
