"""Task types are found by name, here and in other packages."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from azr.errors import PluginError
from azr.tasks.registry import TASK_TYPES, make_task_types, task_type
from tests.fakes import rules

PLUGIN = """
from azr.tasks.deduction import Deduction
class Echo(Deduction):
    name = "echo"
class Nameless(Deduction):
    pass
class Unfinished(Deduction):
    name = "unfinished"
    from abc import abstractmethod
    @abstractmethod
    def judge(self): ...
number = 3
"""
ENTRIES = """[azr.task_types]
echo = fake_plugin:Echo
no_module = fake_plugin_that_is_not_there:Echo
no_class = fake_plugin:Nobody
broken = fake_plugin_broken:Echo
number = fake_plugin:number
text = fake_plugin:__name__
misnamed = fake_plugin:Nameless
unfinished = fake_plugin:Unfinished
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution that registers task types, good and bad ones."""
    info = tmp_path / "fake_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    (tmp_path / "fake_plugin.py").write_text(PLUGIN)
    (tmp_path / "fake_plugin_broken.py").write_text("raise RuntimeError('not today')")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()


def test_the_three_types_are_there_in_order() -> None:
    assert list(make_task_types(["induction", "deduction", "abduction"], rules())) == [
        "induction",
        "deduction",
        "abduction",
    ]
    assert all(found.name == name for name, found in TASK_TYPES.items())


@pytest.mark.parametrize(
    ("name", "hint"), [("deducton", "'deduction'"), ("Induction", "'induction'"), ("zzz", "abduction")]
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(PluginError, match=hint):
        task_type(name)


@pytest.mark.usefixtures("plugins")
def test_a_task_type_of_another_package_is_found() -> None:
    assert make_task_types(["echo"], rules())["echo"].name == "echo"


@pytest.mark.usefixtures("plugins")
def test_task_types_of_other_packages_are_suggested_too() -> None:
    with pytest.raises(PluginError, match="did you mean 'echo'"):
        task_type("ecko")


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_module", "cannot be imported: No module named"),
        ("no_class", "cannot be imported: .*Nobody"),
        ("broken", "cannot be imported: not today"),
        ("number", "is not a subclass"),
        ("text", "is not a subclass"),
        ("misnamed", "set its `name` to 'misnamed'"),
        ("unfinished", "define every abstract method"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_a_plugin_error(name: str, why: str) -> None:
    with pytest.raises(PluginError, match=why):
        task_type(name)
