"""OpenRLHF's own opinion of a command line: its parser and the checks that follow it, without a run.

The parser is made inside the main block of `openrlhf.cli.train_ppo_ray` and cannot be imported. So that block is run,
and stopped at the first thing that it does after its checks. Needs openrlhf, and seconds: it imports torch and vLLM.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import io
import logging
import re
import runpy
from collections.abc import Callable, Generator, Mapping, Sequence
from types import SimpleNamespace
from typing import NoReturn, cast

from azr.errors import ConfigError
from azr.policies.openrlhf.flags import Value

logger = logging.getLogger(__name__)
MAIN = "openrlhf.cli.train_ppo_ray"
TELLING_FLAG = "--actor.model_name_or_path"
"""Only the parser that knows it is the one that is meant; others may parse while modules are imported."""


class _CheckedError(BaseException):
    """Thrown where OpenRLHF would begin its run; carries its arguments. No `Exception`, so that nobody catches it."""

    def __init__(self, arguments: object) -> None:
        super().__init__()
        self.arguments = arguments


def checked(words: Sequence[str], given: Mapping[str, Value]) -> SimpleNamespace:
    """The arguments as OpenRLHF sees them, nested by the dots of their names; `given` is what `[openrlhf]` said.

    Raises:
        ConfigError: a flag that it does not know, a value that it does not take, or a combination that it refuses.
    """
    said = io.StringIO()
    try:
        with _parsing(words, given), _stopped_before_the_run(), contextlib.redirect_stdout(said):
            runpy.run_module(MAIN, run_name="__main__")
    except _CheckedError as reached:
        for line in said.getvalue().splitlines():
            if line.startswith(("[Warning]", "Recommend", "Set args")):
                logger.info("OpenRLHF: %s", line)
        return cast(SimpleNamespace, reached.arguments)
    except AssertionError as error:
        raise ConfigError(f"OpenRLHF refuses this combination of [openrlhf]: {error}") from error
    raise ConfigError(f"{MAIN} did not begin a run: is this openrlhf 0.11.2?")


@contextlib.contextmanager
def _parsing(words: Sequence[str], given: Mapping[str, Value]) -> Generator[None]:
    """The main block parses `words` instead of this process's own command line, and refuses in our words."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(parser: argparse.ArgumentParser, *rest: object) -> object:
        actions = cast("dict[str, argparse.Action]", vars(parser)["_option_string_actions"])
        if TELLING_FLAG not in actions:
            return cast("Callable[..., object]", original)(parser, *rest)
        _require_known(given, actions)
        parser.allow_abbrev = False
        parser.error = _refuse(given)
        return original(parser, list(words))

    with _replaced(argparse.ArgumentParser, "parse_args", parse_args):
        yield


@contextlib.contextmanager
def _stopped_before_the_run() -> Generator[None]:
    """A run begins with Ray and a strategy: Ray is said to be there, and the strategy is where it ends."""

    def stop(arguments: object) -> NoReturn:
        raise _CheckedError(arguments)

    ray, utils = importlib.import_module("ray"), importlib.import_module("openrlhf.utils")
    with _replaced(ray, "is_initialized", lambda: True), _replaced(utils, "get_strategy", stop):
        yield


@contextlib.contextmanager
def _replaced(owner: object, name: str, value: object) -> Generator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _require_known(given: Mapping[str, Value], actions: Mapping[str, argparse.Action]) -> None:
    for flag, value in given.items():
        key = f"openrlhf.{flag}"
        action = actions.get(f"--{flag}")
        if action is None:
            raise ConfigError(f"{key}: OpenRLHF 0.11.2 has no flag --{flag}{_nearest(flag, actions)}", key=key)
        is_switch = action.nargs == 0
        if is_switch != isinstance(value, bool):
            wants = "a switch, true or false" if is_switch else "a value, not a switch"
            raise ConfigError(f"{key} = {value!r}: --{flag} takes {wants}", key=key)
        if value is False and action.default is True:
            raise ConfigError(f"{key} = false: --{flag} is on and cannot be switched off", key=key)


def _nearest(flag: str, actions: Mapping[str, argparse.Action]) -> str:
    known = [name.removeprefix("--") for name in actions if name.startswith("--")]
    close = difflib.get_close_matches(flag, known, n=1, cutoff=0.6)
    if not close:
        by_last_name = {name.rsplit(".", 1)[-1]: name for name in known}
        close = [by_last_name[n] for n in difflib.get_close_matches(flag.rsplit(".", 1)[-1], by_last_name, n=1)]
    return f"; did you mean `openrlhf.{close[0]}`?" if close else ""


def _refuse(given: Mapping[str, Value]) -> Callable[..., NoReturn]:
    """argparse would print its usage, hundreds of lines, and exit."""

    def refuse(message: str) -> NoReturn:
        named = re.match(r"argument --(\S+): (.*)", message, re.DOTALL)
        if named is None:
            raise ConfigError(f"OpenRLHF cannot read its command line: {message}")
        flag, reason = named[1], named[2]
        key = f"openrlhf.{flag}" if flag in given else f"--{flag}"
        raise ConfigError(f"{key} = {given.get(flag)!r}: {reason}", key=key)

    return refuse
