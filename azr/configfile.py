"""Configs on disk: TOML in, TOML out, with errors that name the file, the line and the nearest key.

`load(path, overrides)` gives a `Config`; an unknown key is refused with its nearest neighbour, the file and the line.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from azr.config import Config
from azr.errors import ConfigError


def packaged(name: str) -> Path:
    """A ready-made config: beside the package in a checkout, inside it when installed."""
    inside = Path(__file__).parent / "_configs"
    return (inside if inside.is_dir() else Path(__file__).parent.parent / "configs") / name


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The config of a TOML file with `key.sub=value` overrides on top.

    Raises:
        ConfigError: no such file, no TOML, an unknown key or an unusable value; the message names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the config {path}: {error}. Ready-made ones lie in configs/.") from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return _build(table, overrides, path=path, text=text)


def defaults(overrides: Sequence[str] = ()) -> Config:
    """The paper's values with `key.sub=value` overrides on top.

    Raises:
        ConfigError: an unknown key or an unusable value.
    """
    return _build({}, overrides, path=Path("defaults"), text="")


def parse_override(override: str) -> tuple[str, Any]:
    """`learner.learning_rate=3e-4` -> its key and its value read as TOML, or as a string where that fails.

    Raises:
        ConfigError: there is no `=`.
    """
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}: write it as key.sub=value, for example --set learner.learning_rate=3e-4")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def dump(config: Config) -> str:
    """The resolved config as TOML; `load` gives the same config back."""
    return tomli_w.dumps(json.loads(config.model_dump_json()))


def placed(error: ConfigError, path: Path) -> ConfigError:
    """The same error with the file and the line that sets its key; as it is where it names none."""
    if not error.key:
        return error
    try:
        line = _line_of(path.read_text(encoding="utf-8"), error.key)
    except (OSError, UnicodeDecodeError):
        line = ""
    return ConfigError(f"{path}{line}: {error}", key=error.key)


def known_keys(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the tree."""
    for name, info in section.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from known_keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def _set(table: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        inner = table.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {key}: {parent} is a value, not a table")
        table = cast(dict[str, Any], inner)
    table[last] = value


def _build(table: dict[str, Any], overrides: Sequence[str], *, path: Path, text: str) -> Config:
    origins: dict[str, str] = {}
    for override in overrides:
        key, value = parse_override(override)
        _set(table, key, value)
        origins[key] = f"--set {override}"
    try:
        return Config.model_validate(table)
    except ValidationError as error:
        lines = [_explain(detail, path=path, text=text, origins=origins) for detail in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _explain(detail: ErrorDetails, *, path: Path, text: str, origins: dict[str, str]) -> str:
    key = ".".join(str(part) for part in detail["loc"] if isinstance(part, str))
    where = origins.get(key) or f"{path}{_line_of(text, key)}"
    if detail["type"] != "extra_forbidden":
        return f"{where}: {key} = {detail['input']!r}: {detail['msg']}"
    return f"{where}: there is no key `{key}`{_nearest(key)}"


def _nearest(key: str) -> str:
    """The known key that the wrong one most likely means: the same table first, then the same last name elsewhere."""
    keys = list(known_keys())
    close = difflib.get_close_matches(key, [*keys, *Config.model_fields], n=1, cutoff=0.75)
    if not close:
        last_names = {known.rsplit(".", 1)[-1]: known for known in keys}
        close = [last_names[n] for n in difflib.get_close_matches(key.rsplit(".", 1)[-1], last_names, n=1, cutoff=0.6)]
    if not close:
        return "; azr/config.py lists them all"
    return f"; did you mean `{close[0]}`?"


def _line_of(text: str, key: str) -> str:
    """`:12`, the line that sets the key; empty where it cannot be told."""
    *parents, last = key.split(".")
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\s*([^\]]+?)\s*\]", line)
        if header:
            table = header[1].split(".")
            if table == [*parents, last]:
                return f":{number}"
        assigned = re.match(r"\s*([\w.\-\"]+)\s*=", line)
        if assigned and [*table, *assigned[1].replace('"', "").split(".")] == [*parents, last]:
            return f":{number}"
    return ""
