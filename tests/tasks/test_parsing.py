"""Replies are text that a model wrote: every form that models really write is read, everything else is Malformed."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from azr.errors import Malformed
from azr.prompts import fence
from azr.tasks.parsing import Block, block_bodies, blocks, has_thought, only_block, read_reply
from tests.fakes import block

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))
TAGGED_TEXT = st.lists(
    st.sampled_from(
        ["```", "````", "python", "input", "\n", "\r\n", " ", "x = '''", "</think>", "<answer>", "</answer>"]
    )
    | st.text(max_size=3)
).map("".join)


def test_thought_and_answer_are_told_apart() -> None:
    assert read_reply(" add them </think>\n <answer> 3 </answer>") == ("add them", "3")


def test_think_tag_of_the_prompt_may_be_repeated() -> None:
    assert read_reply("<think>add them</think><answer>3</answer>").thought == "add them"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no think tag"),
        ("just 3", "no think tag"),
        ("<answer>3</answer>", "no think tag"),
        ("<answer>3</answer></think>", "no answer tag"),
        ("so</think> 3", "no answer tag"),
        ("so</think> <answer>3", "no answer tag"),
        ("so</think> </answer><answer>3", "no answer tag"),
        ("so</think> well, <answer>3</answer>", "no answer tag"),
    ],
)
def test_missing_or_disordered_tags_are_malformed(text: str, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        read_reply(text)


def test_only_the_first_answer_counts() -> None:
    assert read_reply("so</think><answer>1</answer><answer>2</answer></think><answer>3</answer>").answer == "1"


def test_text_after_the_answer_is_ignored() -> None:
    assert read_reply("so</think><answer>1</answer> or is it ```output\n2\n```?").answer == "1"


def test_an_answer_inside_the_thought_does_not_count() -> None:
    assert read_reply("<answer>1</answer> no</think><answer>2</answer>").answer == "2"


def test_speaker_names_inside_a_reply_are_plain_text() -> None:
    found = read_reply("User: hm\nAssistant: <think>so</think><answer>'Assistant: <think>'</answer>")
    assert found.answer == "'Assistant: <think>'"


@pytest.mark.parametrize(
    ("text", "thinks"),
    [
        ("so</think>", True),
        ("<think>so</think>", True),
        ("</think>", False),
        ("<think> \n</think>", False),
        ("so", False),
    ],
)
def test_thought_is_there_when_something_is_said_before_its_end(text: str, thinks: bool) -> None:
    assert has_thought(text) is thinks


PROGRAMS = {
    "nested definitions": "def f(x):\n    def g(y):\n        return y\n    return g(x)",
    "methods": "class A:\n    def f(self):\n        return 1\n\ndef f(x):\n    return A().f()",
    "async and decorators": "@staticmethod\ndef f(x):\n    async def g():\n        pass\n    return x",
    "fences in a docstring": 'def f(x):\n    """Like so:\n\n```python\nf(1)\n```\n    done.\n    """\n    return x',
    "a fence in a string": "def f(x):\n    return '''\n```\n''' + x",
    "backticks in a line": "def f(x):\n    return x + '```'  # ``` not a fence",
    "blank lines and comments": "# first\n\n\ndef f(x):\n\n    return x  # same",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=list(PROGRAMS))
def test_program_survives_its_fence(program: str) -> None:
    answer = f"Here it is:\n{block('python', program)}\nand\n{block('input', '1')}"
    assert blocks(answer) == [Block("python", program), Block("input", "1")]


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=list(PROGRAMS))
def test_input_may_come_before_the_program(program: str) -> None:
    answer = f"{block('input', '1')}\n{block('python', program)}"
    assert (block_bodies(answer, "python"), block_bodies(answer, "input")) == ([program], ["1"])


@pytest.mark.parametrize(
    "answer",
    [
        "```python\nx = 1\n```",
        "```py\nx = 1\n```",
        "```PYTHON\nx = 1\n```",
        "```python3\nx = 1\n```",
        "```\nx = 1\n```",
        "``` \nx = 1\n```  ",
        "````python\nx = 1\n````",
        "  ```python\nx = 1\n  ```",
        "```python\nx = 1```",
        "```python\r\nx = 1\r\n```\r\nDone.",
        "```python x = 1\n```",
    ],
)
def test_program_is_found_in_every_fence_that_models_write(answer: str) -> None:
    assert block_bodies(answer, "python") == ["x = 1"]


@pytest.mark.parametrize("tag", ["input", "input_1", "input_12", "Input", "input1"])
def test_numbered_blocks_are_blocks_of_their_kind(tag: str) -> None:
    assert block_bodies(block(tag, "[1], 'a'"), "input") == ["[1], 'a'"]


def test_blocks_in_lines_with_carriage_returns_are_told_apart() -> None:
    answer = "```python\r\ndef f(x):\r\n    return x\r\n```\r\n```input\r\n1\r\n```"
    assert blocks(answer) == [Block("python", "def f(x):\n    return x"), Block("input", "1")]


def test_a_line_inside_a_longer_fence_does_not_close_it() -> None:
    assert blocks("````output\n'''\n```\n'''\n````") == [Block("output", "'''\n```\n'''")]


def test_a_fence_that_is_never_closed_is_no_block() -> None:
    assert blocks("```python\nx = 1") == []


def test_tildes_and_fences_inside_a_line_open_nothing() -> None:
    assert blocks("~~~python\nx = 1\n~~~\nuse ```x``` here") == []


def test_an_answer_without_any_fence_is_taken_whole() -> None:
    assert only_block("[1, 2]", "output") == "[1, 2]"


def test_last_block_of_the_kind_is_the_answer() -> None:
    assert only_block(f"{block('output', '1')}\n{block('output', '2')}\n{block('python', 'x')}", "output") == "2"


@pytest.mark.parametrize("answer", ["", "  ", "```output\n```", "```output\n\n\n```", block("input", "1")])
def test_an_empty_or_missing_block_is_malformed(answer: str) -> None:
    with pytest.raises(Malformed, match="no output block"):
        only_block(answer, "output")


@given(ANY_TEXT | TAGGED_TEXT)
@example("so</think><answer>```python\n'''\n```\n'''\n```</answer>")
def test_any_reply_is_read_or_malformed(text: str) -> None:
    with suppress(Malformed):
        only_block(read_reply(text).answer, "python")
    with suppress(Malformed):
        block_bodies(text, "python")


@given(st.text(st.characters(exclude_characters="\r")), st.sampled_from(["input", "output", "message"]))
def test_what_a_prompt_fences_is_read_back(text: str, tag: str) -> None:
    assert blocks(fence(text, tag)) == [Block(tag, text.strip("\n").rstrip())]


HIDDEN_FENCES = ("```\n" + "a=1\n" * 250 + '"""\n```\n"""\n(\n') * 100


@pytest.mark.parametrize(
    "text",
    [
        "`" * 100_000,
        "```python\n" * 5_000,
        "```\n" * 5_000,
        " " * 100_000,
        "\n" * 100_000,
        "</think>" * 12_000,
        "</think><answer>" * 6_000,
        "</think>" + " " * 100_000,
        "``` " * 25_000,
        "```" + " " * 100_000 + "x",
        HIDDEN_FENCES,
        "\n".join("`" * size + "\n" + "`" * size for size in range(300, 3, -1)),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_reading_takes_linear_time(text: str) -> None:
    start = time.process_time()
    blocks(text)
    with pytest.raises(Malformed):
        read_reply(text)
    assert time.process_time() - start < 1.0
