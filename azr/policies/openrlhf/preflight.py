"""Everything that can be known to go wrong is said before Ray starts, with its numbers and what works instead."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from azr.config import Config
from azr.configfile import place_of
from azr.errors import ConfigError, PolicyError
from azr.policies.openrlhf.flags import flags
from azr.policies.openrlhf.layout import require_layout
from azr.sizing.topology import flatten

OPENRLHF = "0.11.2"
"""Flags and internals move inside its patch releases."""
NEEDED = ("ray", "vllm", "deepspeed", "torch", "transformers", "flash_attn")


def check(config: Config, *, source: Path | None = None) -> None:
    """Refuse a run that cannot work; `source` is the config's file, whose lines the messages name.

    Raises:
        ConfigError: a key, a flag, a number that does not divide, or too little memory by calculation.
        PolicyError: OpenRLHF or what it needs is not installed, or of another version.
    """

    try:
        words = flags(config)
        require_layout(config)
        require_packages()
        from azr.policies.openrlhf.arguments import checked

        checked(words, dict(flatten(config.openrlhf)))
    except ConfigError as error:
        if source is None or not error.key:
            raise
        raise ConfigError(f"{place_of(source, error.key)}: {error}", key=error.key) from None


def require_packages() -> None:
    """Refuse another OpenRLHF than the one that the adapter was written against.

    Raises:
        PolicyError: with the line that installs the right one.
    """
    try:
        found = version("openrlhf")
    except PackageNotFoundError:
        found = ""
    if found != OPENRLHF:
        has = f"openrlhf {found} is installed" if found else "openrlhf is not installed"
        raise PolicyError(
            f'policy.kind = "openrlhf" needs openrlhf {OPENRLHF} exactly, but {has}: on a CUDA machine, '
            f"pip install 'azr[openrlhf]' (or openrlhf=={OPENRLHF}); docs/scaling.md has the rest"
        )
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise PolicyError(
            f"openrlhf {OPENRLHF} is installed without {', '.join(missing)}, which it needs: on a CUDA machine, "
            "pip install 'azr[openrlhf]' (flash-attn builds only there)"
        )
