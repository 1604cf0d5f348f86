"""The house rules that a reader relies on: who may import whom, what stays light, how large a piece may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path for room in ("azr", "sandbox") for path in (ROOT / room).rglob("*.py"))

NOUNS = {"types", "errors", "policies.base"}
"""What any room may know: data and protocols."""
MAY_IMPORT = {
    "types": set[str](),
    "errors": set[str](),
    "config": {"sandbox"},
    "configfile": {"config", "errors"},
    "prompts": {"errors", "types", "config"},
    "tasks": {"prompts", "config", "sandbox"},
    "selfplay": {"tasks", "config", "sandbox"},
    "rl": {"config"},
    "sizing": {"config"},
    "policies": {"rl", "config", "configfile", "sizing", "sandbox"},
    "nano": {"tasks", "config", "prompts", "rl"},
    "runs": {"config", "configfile"},
    "evaluation": {"tasks", "config", "sandbox"},
    "cluster": {"config", "sandbox"},
    "bench": {"prompts", "selfplay", "tasks", "config", "sandbox"},
}
"""By room of azr; NOUNS come on top for all but the first three. Rooms of the composition roots are not listed."""
ROOTS = {"__main__", "cli", "build", "commands", "training", "audit"}
"""They join the rooms and may import all of them; no room may import them."""
HEAVY = {"torch", "transformers", "peft", "safetensors", "accelerate"}
HEAVY_ROOMS = {"rl", "policies", "nano"}
DISTRIBUTED = {"ray", "vllm", "openrlhf"}
DISTRIBUTED_ROOMS = {"policies", "cluster"}

MAX_MODULE_LINES = 350
MAX_FUNCTION_LINES = 50
MAX_BRANCHES = 15


class Import(NamedTuple):
    """One imported module, by whom and where."""

    importer: Path
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.importer.relative_to(ROOT)}:{self.line} imports {self.name}"


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of the file, also those inside functions; `from azr import config` counts as `azr.config`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(path, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            for alias in node.names:
                yield Import(path, node.lineno, _module_or_package(node.module or "", alias.name))


def _module_or_package(package: str, name: str) -> str:
    inner = ROOT / package.replace(".", "/") / name
    return f"{package}.{name}" if inner.with_suffix(".py").exists() or inner.is_dir() else package


ALL_IMPORTS = [found for path in MODULES for found in imports_of(path)]


def room_of(path: Path) -> str:
    """`azr/tasks/base.py` -> tasks; `azr/config.py` -> config; `azr/__init__.py` and all of sandbox -> their house."""
    house, *inside = path.relative_to(ROOT).with_suffix("").parts
    return house if house == "sandbox" or inside == ["__init__"] else inside[0]


def target_room(name: str) -> str:
    """The room that an import leads to; empty for other people's packages."""
    house, *inside = name.split(".")
    if house not in ("azr", "sandbox"):
        return ""
    return house if house == "sandbox" or not inside else inside[0]


def is_noun(name: str) -> bool:
    return name.removeprefix("azr.") in NOUNS


def may_import(room: str, found: Import) -> bool:
    target = target_room(found.name)
    if target in ("", room, "azr") or room in ROOTS:
        return True
    if room in ("types", "errors", "azr"):
        return False
    return target in MAY_IMPORT[room] or (is_noun(found.name) and room != "config")


def test_every_room_has_its_rule() -> None:
    assert {room_of(path) for path in MODULES} <= MAY_IMPORT.keys() | ROOTS | {"azr", "sandbox"}


def test_the_sandbox_knows_nothing_of_ours() -> None:
    offending = [str(i) for i in ALL_IMPORTS if room_of(i.importer) == "sandbox" and i.name.split(".")[0] == "azr"]
    assert offending == []


def test_the_guest_is_standard_library_only() -> None:
    in_guest = [i for i in ALL_IMPORTS if (ROOT / "sandbox" / "guest") in i.importer.parents]
    known = sys.stdlib_module_names | {"sandbox", "guest"}
    assert [str(i) for i in in_guest if i.name.split(".")[0] not in known] == []


def test_rooms_import_only_whom_they_may() -> None:
    azr = [i for i in ALL_IMPORTS if room_of(i.importer) != "sandbox"]
    assert [str(i) for i in azr if not may_import(room_of(i.importer), i)] == []


def test_no_room_imports_what_joins_the_rooms() -> None:
    inner = [i for i in ALL_IMPORTS if room_of(i.importer) not in ROOTS]
    assert [str(i) for i in inner if target_room(i.name) in ROOTS] == []


def test_rooms_make_no_ring() -> None:
    edges = {(room_of(i.importer), target_room(i.name)) for i in ALL_IMPORTS if not is_noun(i.name)}
    left = {(source, target) for source, target in edges if target not in ("", source, "azr")}
    while leaves := {target for _, target in left} - {source for source, _ in left}:
        left = {(source, target) for source, target in left if target not in leaves}
    assert left == set(), "these import each other in a ring"


@pytest.mark.parametrize(("packages", "rooms"), [(HEAVY, HEAVY_ROOMS), (DISTRIBUTED, DISTRIBUTED_ROOMS)])
def test_heavy_packages_stay_in_their_rooms(packages: set[str], rooms: set[str]) -> None:
    heavy = [i for i in ALL_IMPORTS if i.name.split(".")[0] in packages]
    assert [str(i) for i in heavy if room_of(i.importer) not in rooms] == []


BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError("blocked: " + name)
sys.meta_path.insert(0, Blocker())
"""
BLOCKED = HEAVY | DISTRIBUTED | {"matplotlib", "tensorboard", "wandb"}


def run_without_heavy_packages(program: str) -> str:
    """What the program prints where none of the heavy packages is installed."""
    source = BLOCKER.format(blocked=BLOCKED) + program
    done = subprocess.run([sys.executable, "-c", source], check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def light_modules() -> list[str]:
    """Everything outside the heavy rooms and that is no border to Ray, and the protocol that all policies share."""
    borders = {i.importer for i in ALL_IMPORTS if i.name.split(".")[0] in DISTRIBUTED}
    light = [path for path in MODULES if room_of(path) not in HEAVY_ROOMS and path not in borders]
    light = [path for path in light if path.name != "__main__.py"]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in light]
    return [name for name in names if not name.startswith("sandbox.guest")] + ["azr.policies.base"]


def test_every_module_outside_the_heavy_rooms_imports_without_torch() -> None:
    run_without_heavy_packages(f"import importlib\nfor name in {light_modules()!r}: importlib.import_module(name)")


def test_help_works_without_torch() -> None:
    program = "sys.argv = ['azr', '--help']; import azr.cli; azr.cli.app(standalone_mode=False)"
    assert "train" in run_without_heavy_packages(program)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_fit_a_reader(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MAX_MODULE_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"
            assert branches(node) <= MAX_BRANCHES, f"{node.name} has {branches(node)} branches"


def branches(function: ast.AST) -> int:
    """Places where control may go two ways."""
    ways = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.comprehension, ast.match_case)
    operators = sum(len(node.values) - 1 for node in ast.walk(function) if isinstance(node, ast.BoolOp))
    return sum(isinstance(node, ways) for node in ast.walk(function)) + operators


def test_no_folder_is_exempt_from_the_type_checker() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert 'typeCheckingMode = "strict"' in text
    assert 'include = ["azr", "sandbox", "tests"]' in text
    assert not any(word in text for word in ("\nexclude =", '\nignore = ["azr', "reportGeneralTypeIssues = false"))
