"""Seeding: the first tasks come from the identity task or from files, and are validated like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from azr.errors import InputError
from azr.selfplay.absolute_zero import Game
from azr.selfplay.buffer import task_key
from azr.selfplay.seeding import read_seed_file, seed_from_files, seed_from_identity
from azr.tasks.base import Proposal
from sandbox.types import SandboxBroken
from tests.fakes import InProcessExecutor, game, proposal, task
from tests.selfplay.players import NO_TAGS, player, program

ROW: dict[str, Any] = {"snippet": program(100), "input": "1", "output": "cut off...", "imports": []}
INDUCTION_ROW: dict[str, Any] = {
    "snippet": "def f(a):\n    return a * 2",
    "inputs": ["1", "2", "3", "4"],
    "outputs": ["", "", "", ""],
    "message": "twice",
    "imports": [],
}


def sizes(playing: Game) -> dict[str, int]:
    return {name: len(pool) for name, pool in playing.buffer.pools.items()}


def written(tmp_path: Path, *rows: object) -> Path:
    file = tmp_path / "seeds.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


async def test_policy_proposes_until_every_type_has_its_tasks() -> None:
    playing, rounds = game(player()), list[dict[str, int]]()
    await seed_from_identity(playing, tasks_per_type=6, max_rounds=40, on_round=rounds.append)
    assert sizes(playing) == {"deduction": 6, "abduction": 6, "induction": 6}
    assert rounds[0] == {"deduction": 1, "abduction": 1, "induction": 1}
    assert rounds[-1] == sizes(playing)


async def test_a_type_that_has_enough_is_not_asked_again() -> None:
    policy = player(propose_abduction=NO_TAGS)
    playing = game(policy, types=["deduction", "abduction"])
    await seed_from_identity(playing, tasks_per_type=3, max_rounds=5, on_round=lambda _: None)
    assert sum("must predict the output without" in prompt for prompt in policy.prompts) == 2
    assert sizes(playing) == {"deduction": 3, "abduction": 1}


@pytest.mark.parametrize(
    "text", [NO_TAGS, proposal("def f(x):\n    return x / 0"), proposal("def f(y):\n    return y", "'hello'")]
)
async def test_seeding_stops_when_nothing_new_comes(text: str) -> None:
    policy = player(propose=text)
    playing = game(policy, types=["deduction"])
    await seed_from_identity(playing, tasks_per_type=50, max_rounds=6, on_round=lambda _: None)
    assert len(policy.prompts) == 6 * 2
    assert sizes(playing) == {"deduction": 1}


async def test_files_are_validated_and_outputs_are_computed_again(tmp_path: Path) -> None:
    playing = game(player())
    refused = await seed_from_files(playing, [written(tmp_path, ROW, INDUCTION_ROW)], on_round=lambda _: None)
    assert (refused, sizes(playing)) == ({}, {"deduction": 2, "abduction": 2, "induction": 2})
    newest = [list(pool)[-1].task for pool in playing.buffer.pools.values()]
    assert [example.output for example in newest[0].examples] == ["7"]
    assert [example.output for example in newest[2].examples] == ["2", "4", "6", "8"]
    assert newest[2].message == "twice"


async def test_imports_stand_in_front_of_the_program(tmp_path: Path) -> None:
    row = {"snippet": "def f(x):\n    return math.floor(x)", "input": "1.5", "imports": ["import math"]}
    playing = game(player(), types=["deduction"])
    await seed_from_files(playing, [written(tmp_path, row)], on_round=lambda _: None)
    assert list(playing.buffer.pools["deduction"])[-1].task.program.startswith("import math\ndef f")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"snippet": "def f(x):\n    return SEED_SLOT", "input": "1"}, "nondeterministic"),
        ({"snippet": "def f(x):\n    return (i for i in x)", "input": "[1]"}, "not_a_value"),
        ({"snippet": "def f(x):\n    raise StopIteration", "input": "1", "output": ""}, "error"),
        ({"snippet": "def f(x) return", "input": "1"}, "syntax_error"),
        ({"snippet": "def f():\n    return 1", "input": ""}, "no parameter"),
        ({"snippet": program(666), "input": "1"}, "held_out"),
        ({"snippet": f"def f(x):\n    return '{'long' * 1000}'", "input": "1"}, "prompt_too_long"),
    ],
)
async def test_seeds_that_are_no_fair_tasks_are_counted_by_reason(row: object, reason: str, tmp_path: Path) -> None:
    held_out = frozenset([task_key(task(program(666), output="7"))])
    playing = game(player(), types=["deduction"], held_out=held_out, fits=lambda text: len(text) < 3500)
    refused = await seed_from_files(playing, [written(tmp_path, row, ROW)], on_round=lambda _: None)
    assert (refused, sizes(playing)) == ({reason: 1}, {"deduction": 2})


async def test_an_odd_seed_does_not_stop_the_run(tmp_path: Path) -> None:
    rows = [
        {"snippet": f"def f(x):\n    return {text}", "input": "1"}
        for text in ("x" + "+1" * 800, "0x" + "f" * 4999 + " - x")
    ]
    playing = game(player(), types=["deduction"])
    await seed_from_files(playing, [written(tmp_path, *rows)], on_round=lambda _: None)
    assert sizes(playing)["deduction"] >= 2


async def test_a_broken_sandbox_stops_the_seeding(tmp_path: Path) -> None:
    playing = game(player(), executor=InProcessExecutor(SandboxBroken("it died")))
    with pytest.raises(SandboxBroken):
        await seed_from_files(playing, [written(tmp_path, ROW)], on_round=lambda _: None)


def test_rows_are_read_as_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "seeds.jsonl"
    file.write_text(json.dumps({"snippet": "a\u2028b", "input": "\x85"}, ensure_ascii=False) + "\n\n", encoding="utf-8")
    assert read_seed_file(file) == [Proposal("a\u2028b", ("\x85",), message="")]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "3",
        "null",
        '"text"',
        "{}",
        '{"snippet": "x"}',
        '{"input": "1"}',
        '{"snippet": 3, "input": "1"}',
        '{"snippet": "x", "input": 1}',
        '{"snippet": "x", "inputs": []}',
        '{"snippet": "x", "inputs": "123"}',
        '{"snippet": "x", "inputs": [1, 2]}',
        '{"snippet": "x", "input": "1", "imports": "import math"}',
        '{"snippet": "x", "input": "1", "imports": [1]}',
        '{"snippet": "x", "input": "1", "message": 3}',
    ],
)
def test_a_bad_row_is_named_by_file_and_line(line: str, tmp_path: Path) -> None:
    file = tmp_path / "seeds.jsonl"
    file.write_text(json.dumps(ROW) + "\n\n" + line + "\n")
    with pytest.raises(InputError, match=r"seeds\.jsonl:3 is not a seed triplet"):
        read_seed_file(file)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "seeds.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read the seed triplets in .*seeds\.jsonl"):
        read_seed_file(file)
