"""The held-out tasks are fixed, fair and unseen."""

from collections import Counter
from typing import cast

from azr.nano import evaluate, grammar, heldout
from azr.nano.documents import reply
from azr.nano.heldout import Row

ROWS = heldout.read()


def first_input(row: Row) -> str:
    return cast(str, row["input"]) if "input" in row else row["inputs"][0]


def test_the_file_is_what_is_drawn() -> None:
    assert heldout.rows() == ROWS


def test_there_are_enough_tasks_a_type() -> None:
    counts = Counter(str(row["task_type"]) for row in ROWS)
    assert set(counts) == set(evaluate.TASK_TYPES)
    assert min(counts.values()) >= 500


def test_no_program_comes_twice_within_a_type() -> None:
    assert len({(str(row["task_type"]), str(row["program"])) for row in ROWS}) == len(ROWS)


def test_every_program_is_held_out_from_pretraining() -> None:
    for row in ROWS:
        assert grammar.is_held_out(grammar.parse(str(row["program"])), grammar.parse_value(first_input(row)))


def test_the_true_answer_is_judged_correct_and_another_wrong() -> None:
    for row in ROWS:
        kind = evaluate.KIND[str(row["task_type"])]
        truth = str(row["program"] if kind == "python" else row[kind])
        assert evaluate.is_correct(row, reply(kind, truth))
        assert not evaluate.is_correct(row, reply(kind, truth).removesuffix("</answer>"))


def test_an_induction_answer_is_judged_on_the_hidden_runs() -> None:
    row: Row = {"task_type": "induction", "inputs": list("111345"), "outputs": list("111987")}
    assert not evaluate.is_correct(row, reply("python", "def f(x):\n return x"))
