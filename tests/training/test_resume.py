"""The real thing from the command line: nano, the Docker sandbox, a kill, a resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = (
    "selfplay.proposals_per_type=2", "selfplay.group_size=2", "seeding.tasks_per_type=3", "seeding.max_rounds=3",
    "evaluation.tasks_per_type=2", "evaluation.every=2", "checkpoint.every=1", "sampling.max_new_tokens=48",
)  # fmt: skip
pytestmark = pytest.mark.docker


def command(run_dir: Path, tasks: Path, *extra: str, steps: int) -> list[str]:
    overrides = [part for setting in (*SMALL, f'evaluation.tasks="{tasks}"') for part in ("--set", setting)]
    config = str(ROOT / "configs" / "nano.toml")
    steps_flag = ["--steps", str(steps), "--run-dir", str(run_dir)]
    return [sys.executable, "-m", "azr.cli", "train", config, *steps_flag, *overrides, *extra]


def metrics_without_times(run_dir: Path) -> list[dict[str, float]]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("time/")} for line in lines]


@pytest.fixture(scope="module")
def few_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three held-out tasks of each type, so that an evaluation takes no time."""
    rows = (ROOT / "azr" / "nano" / "heldout.jsonl").read_text().splitlines()
    kept = [row for kind in ("deduction", "abduction", "induction") for row in rows if f'"{kind}"' in row]
    by_type = [[row for row in kept if f'"{kind}"' in row][:3] for kind in ("deduction", "abduction", "induction")]
    path = tmp_path_factory.mktemp("tasks") / "tasks.jsonl"
    path.write_text("\n".join(row for rows in by_type for row in rows) + "\n")
    return path


def kill_after_step(process: subprocess.Popen[bytes], run_dir: Path, *, step: int) -> None:
    """Kill -9 as soon as the checkpoint of the step is there, in the middle of the next one."""
    deadline = time.monotonic() + 120
    while not (run_dir / "checkpoints" / f"step-{step:06d}").is_dir():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_a_killed_run_resumes_to_the_same_metrics_line_for_line(tmp_path: Path, few_tasks: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(command(whole, few_tasks, steps=4), cwd=tmp_path, check=True, capture_output=True)
    with subprocess.Popen(command(broken, few_tasks, steps=4), cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        kill_after_step(process, broken, step=2)
    subprocess.run(command(broken, few_tasks, "--resume", steps=4), cwd=tmp_path, check=True, capture_output=True)
    assert metrics_without_times(broken) == metrics_without_times(whole)


def test_ctrl_c_finishes_the_step_and_says_how_to_go_on(tmp_path: Path, few_tasks: Path) -> None:
    run_dir = tmp_path / "run"
    with subprocess.Popen(
        command(run_dir, few_tasks, steps=500), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        while not (run_dir / "checkpoints" / "step-000001").is_dir():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"--resume" in output
    last = metrics_without_times(run_dir)[-1]["step"]
    assert (run_dir / "checkpoints" / f"step-{int(last):06d}").is_dir()


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path: Path, few_tasks: Path) -> None:
    run_dir = tmp_path / "run"
    subprocess.run(command(run_dir, few_tasks, steps=2), cwd=tmp_path, check=True, capture_output=True)
    weights = next((run_dir / "checkpoints" / "step-000002" / "policy").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    resumed = subprocess.run(
        command(run_dir, few_tasks, "--resume", steps=3), cwd=tmp_path, capture_output=True, check=False
    )
    assert resumed.returncode == 0
    assert f"skipping the damaged checkpoint {run_dir}/checkpoints/step-000002".encode() in resumed.stderr
    assert [line["step"] for line in metrics_without_times(run_dir)] == [0, 1, 2, 3]
