"""The wheel holds what an installation needs, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The paths inside the wheel, built without a network."""
    pytest.importorskip("hatchling", reason="the build backend is in azr[dev]")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_both_packages_are_typed(contents: set[str]) -> None:
    assert {"azr/py.typed", "sandbox/py.typed"} <= contents


def test_every_prompt_and_config_is_inside(contents: set[str]) -> None:
    prompts = {f"azr/_prompts/{path.relative_to(ROOT / 'prompts')}" for path in (ROOT / "prompts").rglob("*.j2")}
    configs = {f"azr/_configs/{path.name}" for path in (ROOT / "configs").glob("*.toml")}
    assert prompts | configs <= contents


def test_the_nano_model_and_its_held_out_tasks_are_inside(contents: set[str]) -> None:
    weights = {f"azr/nano/weights/{path.name}" for path in (ROOT / "azr/nano/weights").iterdir()}
    assert weights | {"azr/nano/heldout.jsonl"} <= contents


def test_every_module_is_inside(contents: set[str]) -> None:
    modules = {str(path.relative_to(ROOT)) for name in ("azr", "sandbox") for path in (ROOT / name).rglob("*.py")}
    assert modules <= contents


def test_tests_benchmarks_and_scripts_stay_outside(contents: set[str]) -> None:
    assert {path.split("/")[0].removesuffix(".dist-info").partition("-")[0] for path in contents} == {"azr", "sandbox"}
    assert not any(path.split("/")[-1].startswith(("test_", "conftest")) or "__pycache__" in path for path in contents)
