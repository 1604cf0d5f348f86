"""The picture of `azr bench cluster`: jobs a second by number of nodes, measured and played out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
INK, MUTED = "#222222", "#6b6b6b"


def draw(
    target: Path, simulated: Mapping[str, Mapping[int, float]], measured: Mapping[int, float], load_average: float
) -> None:
    """Two panels: the simulated cluster, and the workers that were measured on one host, whose load is told."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(12, 5), layout="constrained")
    wide, narrow = figure.subplots(1, 2, width_ratios=(3, 1))
    for (name, rates), colour in zip(simulated.items(), LINES, strict=False):
        wide.plot(list(rates), list(rates.values()), "o-", color=colour, label=name, linewidth=2)
    first = next(iter(simulated.values()))
    one = first[min(first)]
    wide.plot(list(first), [one * nodes for nodes in first], ":", color=MUTED, label="as many times one node")
    wide.set_xscale("log", base=2)
    wide.set_yscale("log")
    wide.set_xticks(list(first))
    wide.xaxis.set_major_formatter(ScalarFormatter())
    wide.set_xlabel("nodes (simulated, from measured times)", color=INK)
    wide.set_ylabel("jobs a second", color=INK)
    wide.legend(frameon=False)
    narrow.bar([str(workers) for workers in measured], list(measured.values()), color=LINES[0], width=0.6)
    for place, each in enumerate(measured.values()):
        narrow.text(place, each, f"{each:.0f}", ha="center", va="bottom", color=INK)
    narrow.set_xlabel(f"workers on one host (measured,\nload average before: {load_average:.1f})", color=INK)
    for panel in (wide, narrow):
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_ylim(bottom=0 if panel is narrow else None)
    figure.savefig(target, dpi=110)
