"""`azr eval` on the nano base and on a run of it: few tasks, the real sandbox."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from tests.commands.test_cli import ROOT, azr

TYPES = ("deduction", "abduction", "induction")
SMALL = (
    "--set", "selfplay.proposals_per_type=1", "--set", "selfplay.group_size=2", "--set", "seeding.max_rounds=1",
    "--set", "seeding.tasks_per_type=1", "--steps", "1",
)  # fmt: skip


@pytest.fixture(scope="module")
def few_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two held-out tasks of each type."""
    rows = [json.loads(line) for line in (ROOT / "azr/nano/heldout.jsonl").read_text().splitlines()]
    chosen = [row for name in TYPES for row in [row for row in rows if row["task_type"] == name][:2]]
    path = tmp_path_factory.mktemp("tasks") / "tasks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in chosen))
    return path


def scores(*arguments: str) -> dict[str, Any]:
    shown = azr("eval", *arguments, "--json")
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)


@pytest.mark.docker
def test_every_type_is_scored_on_all_its_tasks(few_tasks: Path) -> None:
    found = scores("nano", "--tasks", str(few_tasks))
    assert {name: score["num_tasks"] for name, score in found.items()} == dict.fromkeys(TYPES, 2)
    assert all(0 <= score["accuracy"] <= 1 for score in found.values())


@pytest.mark.docker
def test_thinking_can_be_forced_and_switched_off(few_tasks: Path) -> None:
    forced = scores("nano", "--tasks", str(few_tasks), "--thinking", "forced", "--temperature", "1")
    off = scores("nano", "--tasks", str(few_tasks), "--thinking", "off", "--temperature", "1")
    assert {score["thinks"] for score in forced.values()} == {1.0}
    assert {score["thinks"] for score in off.values()} == {0.0}


@pytest.mark.docker
def test_a_run_is_scored_at_its_newest_checkpoint(tmp_path: Path, few_tasks: Path) -> None:
    run_dir = str(tmp_path / "run")
    tasks = ("--set", f'evaluation.tasks="{few_tasks}"')
    trained = azr("train", str(ROOT / "configs/nano.toml"), "--run-dir", run_dir, *SMALL, *tasks)
    assert trained.returncode == 0, trained.stderr
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    found = scores(run_dir)
    assert {name: score["accuracy"] for name, score in found.items()} == {name: last[f"eval/{name}"] for name in TYPES}


@pytest.mark.docker
def test_a_trained_policy_is_exported_for_transformers(tmp_path: Path, few_tasks: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

    run_dir = tmp_path / "run"
    arguments = ("--run-dir", str(run_dir), *SMALL, "--set", f'evaluation.tasks="{few_tasks}"')
    assert azr("train", str(ROOT / "configs/nano.toml"), *arguments).returncode == 0
    model: Any = AutoModelForCausalLM.from_pretrained(run_dir / "model")
    read_tokenizer = cast("Callable[[Path], PreTrainedTokenizerFast]", AutoTokenizer.from_pretrained)
    tokenizer = read_tokenizer(run_dir / "model")
    assert model.config.vocab_size >= len(tokenizer)
    assert (run_dir / "learning_curve.png").stat().st_size > 10_000


def test_a_model_without_config_says_what_is_missing(tmp_path: Path) -> None:
    shown = azr("eval", str(tmp_path))
    assert shown.returncode != 0
    assert "--config" in shown.stderr


def test_tasks_of_other_types_only_are_refused(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text('{"id": 1, "task_type": "riddle", "program": "def f(x): return x", "input": "1", "output": "1"}\n')
    shown = azr("eval", "nano", "--tasks", str(tasks))
    assert shown.returncode != 0
    assert "played" in shown.stderr
