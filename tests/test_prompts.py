"""Prompts: every cell has one, what models wrote stays text, and what is missing is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr.errors import ConfigError
from azr.prompts import PromptSet, fence
from azr.tasks.base import TaskType
from azr.tasks.registry import make_task_types
from azr.types import Role, Task
from tests.fakes import rules, task

TYPES = list(
    make_task_types(["deduction", "abduction", "induction"], rules(forbidden=("secretmodule", "os.path"))).values()
)
PUZZLE = task(
    "def f(x):\n    return ['<&>', x]",
    runs=[("'in one'", "'out one'"), ("'in two'", "'out two'")],
    message="think twice",
)
NEEDED = {
    "propose deduction": ["def f(x):\n    return ['<&>', x]", "'in one'", "'out one'", "secretmodule, os.path"],
    "propose abduction": ["def f(x):\n    return ['<&>', x]", "'in one'", "'out one'", "secretmodule, os.path"],
    "propose induction": ["def f(x):\n    return ['<&>', x]", "give 4 inputs", "secretmodule, os.path"],
    "solve deduction": ["def f(x):\n    return ['<&>', x]", "'in one'"],
    "solve abduction": ["def f(x):\n    return ['<&>', x]", "'out one'"],
    "solve induction": ["'in one'", "'out one'", "think twice"],
}


def rendered(task_type: TaskType, role: Role, puzzle: Task = PUZZLE) -> str:
    return task_type.propose_prompt([puzzle]) if role is Role.PROPOSER else task_type.solve_prompt(puzzle)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("task_type", TYPES, ids=lambda one: one.name)
def test_every_cell_has_a_whole_prompt(task_type: TaskType, role: Role) -> None:
    prompt = rendered(task_type, role)
    assert all(text in prompt for text in NEEDED[f"{role.verb} {task_type.name}"])
    assert prompt.endswith("<think>")
    assert not re.search(r"\{\{|\}\}|\{%|%\}|Undefined", prompt)


@pytest.mark.parametrize("task_type", TYPES[:2], ids=lambda one: one.name)
def test_a_first_proposal_is_asked_without_references(task_type: TaskType) -> None:
    assert "eference task" not in task_type.propose_prompt([]).split("Plan in your reasoning")[1]
    assert "<reference_1>" not in task_type.propose_prompt([])
    assert "<reference_2>" in task_type.propose_prompt([PUZZLE, PUZZLE])


@pytest.mark.parametrize("task_type", TYPES, ids=lambda one: one.name)
def test_nothing_is_forbidden_where_nothing_is(task_type: TaskType) -> None:
    free = type(task_type)(rules(forbidden=()))
    assert "not be used" not in free.propose_prompt([PUZZLE])
    assert "must not use" not in free.propose_prompt([PUZZLE])


@pytest.mark.parametrize(("name", "asked"), [("abduction", "find an INPUT"), ("deduction", "predict the OUTPUT")])
def test_difficulty_is_asked_for_what_the_solver_must_find(name: str, asked: str) -> None:
    [prompt] = [one.propose_prompt([]) for one in TYPES if one.name == name]
    [criterion] = [line for line in prompt.splitlines() if line.startswith("- Difficulty")]
    assert asked in criterion


HOSTILE = "{{ 7*7 }} {% raw %} {# gone #} {{ program }} {% include 'frame.j2' %}"


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("task_type", TYPES, ids=lambda one: one.name)
def test_template_text_of_a_model_is_only_text(task_type: TaskType, role: Role) -> None:
    hostile = task(HOSTILE, runs=[(HOSTILE, HOSTILE)] * 2, message=HOSTILE)
    prompt = rendered(task_type, role, hostile)
    assert HOSTILE in prompt
    assert "49" not in prompt


@given(st.text() | st.text("`~\n a"), st.sampled_from(["python", "input", ""]))
def test_a_fence_is_longer_than_any_in_its_text(text: str, tag: str) -> None:
    marks = re.match("`+", fence(text, tag))
    assert marks is not None
    assert len(marks[0]) >= 3
    assert marks[0] not in text
    assert fence(text, tag) == f"{marks[0]}{tag}\n{text}\n{marks[0]}"


def test_an_ordinary_text_gets_an_ordinary_fence() -> None:
    assert fence("x ` ``", "python") == "```python\nx ` ``\n```"


@pytest.mark.parametrize("name", ["nobody", "../prompts/nobody", "/nowhere/at/all"])
def test_an_unknown_set_is_answered_with_those_that_there_are(name: str) -> None:
    with pytest.raises(ConfigError, match=r"there is no folder .*Packaged prompt sets: azr"):
        PromptSet(name)


def own_set(tmp_path: Path, template: str) -> PromptSet:
    (tmp_path / "solve").mkdir()
    (tmp_path / "solve" / "deduction.j2").write_bytes(template.encode("latin-1"))
    return PromptSet(str(tmp_path))


def test_a_folder_of_ones_own_is_a_set(tmp_path: Path) -> None:
    prompt = own_set(tmp_path, "{{ program }} on {{ input }}").render(
        Role.SOLVER, "deduction", {"program": "p", "input": "i"}
    )
    assert prompt == "p on i"


def test_a_missing_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no solve/abduction\.j2"):
        own_set(tmp_path, "").render(Role.SOLVER, "abduction", {})


@pytest.mark.parametrize(
    "template",
    [
        "{{ nobody }}",
        "{{ nobody | fence('python') }}",
        "{{ program.nobody }}",
        "{{ program",
        "{{ program | nofilter }}",
        "\xff",
    ],
)
def test_a_template_that_does_not_render_is_named(template: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot render the prompt .*deduction\.j2"):
        own_set(tmp_path, template).render(Role.SOLVER, "deduction", {"program": "p"})
