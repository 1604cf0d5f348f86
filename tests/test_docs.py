"""What the docs show works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from azr.config import Config
from azr.configfile import load
from azr.sizing.architecture import architecture_of
from azr.sizing.hardware import ASSUMED, GIB, GPUS
from azr.sizing.memory import PHASES, Need, needs
from azr.sizing.step import Step, plan
from azr.sizing.topology import topology_for
from azr.tasks.base import TaskType
from azr.types import Verdict
from tests.fakes import InProcessExecutor, rules

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SANDBOX_BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "sandbox" / "README.md").read_text(), re.DOTALL)


def rows_after(page: str, mark: str) -> list[list[str]]:
    """The cells of the table that follows a mark, without its two heading lines."""
    lines = page.split(f"<!-- {mark} -->\n")[1].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def planned(config: Config, gpu: str, completion: int) -> tuple[Need, Step]:
    shape = architecture_of(config.model.path)
    assert shape is not None
    topology, kind = topology_for(config), GPUS[gpu]
    [need] = needs(config, shape, topology, gpu_gib=kind.memory_gib)
    return need, plan(config, shape, topology, kind, assumed=replace(ASSUMED, completion=completion))


@pytest.fixture
def same_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[TaskType]:
    """The task type of docs/task-types.md, written to disk as the page says."""
    page = (DOCS / "task-types.md").read_text()
    program = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    templates = re.findall(r"```jinja\n(.*?)```", page, re.DOTALL)
    for folder, template in zip(("propose", "solve"), templates, strict=True):
        (tmp_path / "prompts" / folder).mkdir(parents=True)
        (tmp_path / "prompts" / folder / "same_output.j2").write_text(template)
    (tmp_path / "same_output.py").write_text(program)
    spec = spec_from_file_location("same_output", tmp_path / "same_output.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "same_output", module)
    spec.loader.exec_module(module)
    return module.SameOutput


async def test_the_task_type_of_the_docs_plays_from_prompt_to_verdict(same_output: type[TaskType]) -> None:
    task_type, executor = same_output(rules()), InProcessExecutor()
    assert "def f(x)" in task_type.propose_prompt([task_type.seed_task()])
    reply = "</think><answer>```python\ndef f(x):\n return x % 3\n```\n```input\n4\n```\n```input\n7\n```</answer>"
    task = await task_type.validate(task_type.parse_proposal(reply, []), executor)
    assert "```input\n7\n```" in task_type.solve_prompt(task)
    answers = [task_type.parse_answer(f"</think><answer>```output\n{text}\n```</answer>") for text in ("True", "False")]
    verdicts = [(await task_type.verify(task, answer, executor)).verdict for answer in answers]
    assert verdicts == [Verdict.CORRECT, Verdict.WRONG]


@pytest.mark.parametrize("block", SANDBOX_BLOCKS, ids=["asynchronous", "blocking"])
def test_the_blocks_of_the_sandbox_readme_run_as_they_stand(block: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("row", rows_after((DOCS / "scaling.md").read_text(), "memory"), ids=lambda row: row[0])
def test_the_memory_of_the_scaling_page_is_what_azr_plan_calculates(row: list[str]) -> None:
    need, _ = planned(load(ROOT / "configs" / row[0].strip("`")), "a100-80gb", 500)
    phases = [f"{need.phase(phase) / GIB:.1f}" for phase in PHASES]
    assert row[1:] == [str(need.num_gpus), *phases, f"{need.cache_tokens:,}"]


@pytest.mark.parametrize(
    "row", rows_after((DOCS / "scaling.md").read_text(), "time"), ids=lambda row: f"{row[0]} {row[1]}"
)
def test_the_seconds_of_the_scaling_page_are_what_azr_plan_calculates(row: list[str]) -> None:
    size, gpu = row[0].split(", ")
    _, step = planned(load(ROOT / "configs" / f"openrlhf-{size}.toml"), gpu, int(row[1].replace(",", "")))
    seconds = [f"{time.seconds:.{1 if time.name in ('sandbox', 'weight sync') else 0}f}" for time in step.times]
    assert row[2:] == [*seconds, f"{step.seconds:.0f}", step.bottleneck]
