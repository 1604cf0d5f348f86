"""Every file in examples/ runs as its first line says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"


def output_of(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_example_is_tested() -> None:
    source = Path(__file__).read_text()
    assert all(f'output_of("{path.name}"' in source for path in EXAMPLES.glob("*.py"))


@pytest.mark.docker
def test_programs_are_run_and_contained() -> None:
    lines = output_of("run_programs.py").splitlines()
    assert lines[0] == "a value: ok [1, 2, 3]"
    assert [line.split(": ")[1].split()[0] for line in lines[1:]] == ["error", "timeout", "error"]


@pytest.mark.docker
def test_a_step_is_played_by_a_script() -> None:
    shown = dict(line.rsplit(None, 1) for line in output_of("scripted_step.py").splitlines())
    assert shown["propose/deduction/valid_rate"] == "1"
    assert shown["propose/deduction/solve_rate"] == "1"
    assert shown["propose/deduction/learnable"] == "0"
    assert shown["solve/deduction/accuracy"] == "1"
    assert shown["tasks in the buffer:"] == "2"


def test_a_run_is_read(trained_run: Path) -> None:
    shown = output_of("read_run.py", str(trained_run))
    assert "step 0: held-out accuracy" in shown
    assert "3 steps," in shown
