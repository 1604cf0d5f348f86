"""`azr bench rollouts`: measures with `azr.policies.bench`, shows a table or JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from azr.errors import InputError

if TYPE_CHECKING:
    from azr.policies.bench import Rate

console = Console()
errors = Console(stderr=True, highlight=False)


def run_rollouts(models: Sequence[str], threads: Sequence[int], *, as_json: bool) -> None:
    """Measure, then print a table or one JSON object.

    Raises:
        InputError: there is no such model.
    """
    from azr.policies.bench import SIZES, run, to_json  # torch is needed from here on

    known = [size.name for size in SIZES]
    unknown = [name for name in models if name not in known]
    if unknown:
        raise InputError(f"there is no model {unknown[0]!r} to measure with: {', '.join(known)}")
    rates = run(errors.print, sizes=models, threads=threads)
    if as_json:
        sys.stdout.write(to_json(rates) + "\n")
    else:
        console.print(table(rates))


def table(rates: Sequence[Rate]) -> Table:
    """A row a measurement."""
    drawn = Table("model", "parameters", "engine", "threads", "tokens/s", "low to high", "start", "load")
    for rate in rates:
        parameters = f"{rate.parameters / 1e6:.1f} M"
        spread = f"{rate.low:.0f} to {rate.high:.0f}"
        figures = (f"{rate.tokens_per_s:.0f}", spread, f"{rate.start_s:.0f} s", f"{rate.load_1min:.1f}")
        drawn.add_row(rate.model, parameters, rate.engine, str(rate.threads), *figures)
    return drawn
