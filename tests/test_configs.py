"""Every file in configs/ loads and says what its name promises."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from azr.config import Config
from azr.configfile import known_keys, load

FOLDER = Path(__file__).parents[1] / "configs"
FILES = sorted(FOLDER.glob("*.toml"))
PUBLISHED = (
    "qwen2.5-7b", "qwen2.5-14b", "qwen2.5-coder-3b", "qwen2.5-coder-7b", "qwen2.5-coder-14b", "llama-3.1-8b",
    "qwen3-4b-base",
)  # fmt: skip
MAY_DIFFER = {"model.path", "learner.micro_batch_tokens", "sampling.batch_size", "seeding.tasks_per_type"}
"""Keys in which a published model's file may leave the paper's common values."""


def value_of(config: Config, key: str) -> object:
    value: object = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_loads(path: Path) -> None:
    assert isinstance(load(path), Config)


@pytest.mark.parametrize("path", [path for path in FILES if path.stem != "nano"], ids=lambda path: path.stem)
def test_a_language_model_s_file_states_only_what_differs(path: Path) -> None:
    config, default = load(path), Config()
    stated = {key for key in known_keys() if _states(tomllib.loads(path.read_text()), key)}
    assert {key for key in stated if value_of(config, key) == value_of(default, key)} == set()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_the_paper_s_values(name: str) -> None:
    config, default = load(FOLDER / f"{name}.toml"), Config()
    differing = {key for key in known_keys() if value_of(config, key) != value_of(default, key)}
    assert differing <= MAY_DIFFER
    assert config.model.path.split("/")[1].lower() == name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_longest_sample_fits_a_micro_batch(path: Path) -> None:
    config = load(path)
    assert config.sampling.max_prompt_tokens + config.sampling.max_new_tokens <= config.learner.micro_batch_tokens


def test_the_readme_names_every_file_and_no_other() -> None:
    text = (FOLDER / "README.md").read_text()
    named = set(re.findall(r"`([\w.-]+)\.toml`", text))
    named = {f"qwen2.5{name}" if name.startswith("-") else name for name in named}
    assert named == {path.stem for path in FILES}


def _states(table: object, key: str) -> bool:
    for name in key.split("."):
        if not isinstance(table, dict) or name not in table:
            return False
        table = table[name]  # pyright: ignore[reportUnknownVariableType]  # TOML
    return True
