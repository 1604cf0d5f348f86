"""Runs that are killed, interrupted or damaged, from the command line: nano and the Docker sandbox."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import TRAINED_STEPS, train_command

pytestmark = [pytest.mark.docker, pytest.mark.slow]


def metrics_without_times(run_dir: Path) -> list[dict[str, float]]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("time/")} for line in lines]


@contextmanager
def running_past(step: int, run_dir: Path, tasks: Path, *, steps: int) -> Generator[subprocess.Popen[bytes]]:
    """A run that has just written the checkpoint of this step and is in the middle of the next one."""
    command = train_command(run_dir, tasks, steps=steps)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=run_dir.parent, stdout=pipe, stderr=pipe) as process:
        deadline = time.monotonic() + 120
        while not (run_dir / "checkpoints" / f"step-{step:06d}").is_dir():
            assert process.poll() is None, "the run ended before it could be disturbed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process


def resume(run_dir: Path, tasks: Path) -> str:
    """Finish the run; what it printed on standard error, on one line."""
    command = train_command(run_dir, tasks, "--resume")
    done = subprocess.run(command, cwd=run_dir.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return " ".join(done.stderr.split())


def test_a_killed_run_resumes_to_the_same_metrics_line_for_line(
    tmp_path: Path, few_tasks: Path, trained_run: Path
) -> None:
    with running_past(1, tmp_path / "run", few_tasks, steps=TRAINED_STEPS) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    resume(tmp_path / "run", few_tasks)
    assert metrics_without_times(tmp_path / "run") == metrics_without_times(trained_run)


def test_ctrl_c_finishes_the_step_and_says_how_to_continue(tmp_path: Path, few_tasks: Path) -> None:
    run_dir = tmp_path / "run"
    with running_past(1, run_dir, few_tasks, steps=500) as process:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"--resume" in output
    last = metrics_without_times(run_dir)[-1]["step"]
    assert (run_dir / "checkpoints" / f"step-{int(last):06d}").is_dir()


def test_a_damaged_checkpoint_is_named_and_the_one_before_gives_the_same_metrics(
    tmp_path: Path, few_tasks: Path, trained_run: Path
) -> None:
    run_dir = shutil.copytree(trained_run, tmp_path / "run")
    newest = f"step-{TRAINED_STEPS:06d}"
    weights = next((run_dir / "checkpoints" / newest / "policy").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    assert f"skipping the damaged checkpoint {run_dir}/checkpoints/{newest}" in resume(run_dir, few_tasks)
    assert metrics_without_times(run_dir) == metrics_without_times(trained_run)
