"""Rows of JSON lines: what a field may hold, and what an unusable line is told."""

from __future__ import annotations

import pytest

from azr.tasks.rows import BadRow, Row, inputs_field, message_field, parse_row, read_task, text_field, texts_field

TASK: Row = {"task_type": "deduction", "program": "def f(x): return x", "input": "1", "output": "1"}


@pytest.mark.parametrize(
    ("row", "why"), [({}, "`a` is missing"), ({"a": None}, "must be text"), ({"a": 3}, "must be text")]
)
def test_a_text_field_is_text(row: Row, why: str) -> None:
    assert text_field({"a": ""}, "a") == ""
    with pytest.raises(BadRow, match=why):
        text_field(row, "a")


@pytest.mark.parametrize(
    ("row", "why"), [({}, "`a` is missing"), ({"a": "12"}, "list of texts"), ({"a": ["1", 2]}, "list of texts")]
)
def test_a_texts_field_is_a_list_of_texts(row: Row, why: str) -> None:
    assert texts_field({"a": []}, "a") == ()
    assert texts_field({"a": ["1", ""]}, "a") == ("1", "")
    with pytest.raises(BadRow, match=why):
        texts_field(row, "a")


@pytest.mark.parametrize("line", ["{", "nul", "[" * 100_000, '{"n": ' + "9" * 5000 + "}", '"text"', "3", "NaN", "[1]"])
def test_a_line_that_is_not_an_object_says_so(line: str) -> None:
    with pytest.raises(BadRow, match=r"not (JSON|a JSON object)"):
        parse_row(line)


def test_inputs_are_one_or_several_but_never_none() -> None:
    assert inputs_field({"input": "1, 2"}) == ("1, 2",)
    assert inputs_field({"inputs": ["1", "2"]}) == ("1", "2")
    with pytest.raises(BadRow, match="`inputs` is empty"):
        inputs_field({"inputs": []})


@pytest.mark.parametrize("row", [{}, {"message": None}, {"message": ""}])
def test_a_message_may_be_missing(row: Row) -> None:
    assert message_field(row) == ""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"output": "f(1)"}, "the output 'f(1)' is not a value in canonical form"),
        ({"outputs": ["1", "2"]}, "1 inputs but 2 outputs"),
        ({"message": 3}, "`message` must be text"),
        ({"program": None}, "`program` must be text"),
    ],
)
def test_a_row_that_is_not_a_task_says_why(changes: Row, why: str) -> None:
    assert read_task(TASK).examples[0].output == "1"
    with pytest.raises(BadRow) as caught:
        read_task({**TASK, **changes})
    assert why in str(caught.value)
