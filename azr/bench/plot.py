"""The benchmark as one picture: verdicts a second by way of running, and how long single verdicts take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from azr.bench.report import Report
from azr.errors import RunError
from sandbox.bench import comparison as ways

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, OTHERS, FLOOR = "#0072B2", "#B0B0B0", "#D55E00"
LINES = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
INK, MUTED = "#222222", "#6b6b6b"


class Bar(NamedTuple):
    """One way of running programs."""

    label: str
    per_s: float
    colour: str


def bars(report: Report) -> list[Bar]:
    """Slowest first: the old ways, then ours."""
    rates = report.comparison.rates
    found: list[Bar] = []
    if report.docker_run_s is not None:
        found.append(Bar("docker run\nper program", 1 / report.docker_run_s.median, OTHERS))
    if ways.FRESH_ONE in rates:
        found.append(Bar("fresh Python\nin a container,\none core", rates[ways.FRESH_ONE].median, OTHERS))
    found += [Bar(f"{one.name},\nall cores", one.per_s.median, OURS) for one in report.asides if one.per_s is not None]
    name = f"{report.isolation.backend}/{report.isolation.runtime}"
    found.append(Bar(f"{name},\none core", rates[ways.ONE_CORE].median, OURS))
    found.append(Bar(f"{name},\nall cores", rates[ways.ALL_CORES].median, OURS))
    return found


def draw(report: Report, path: Path) -> None:
    """Write the picture, 1600 x 800.

    Raises:
        RunError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RunError("the picture needs matplotlib: pip install 'azr[train]'") from error
    figure = Figure(figsize=(16, 8), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _rates(left, report)
    _latencies(right, report)
    figure.suptitle("Verdicts on small programs", x=0.05, y=0.97, ha="left", fontsize=20, fontweight="bold", color=INK)
    about = report.machine
    subtitle = f"{report.comparison.num_samples} programs, {about.cores} cores, {about.cpu}, kernel {about.kernel}"
    figure.text(0.05, 0.895, subtitle, ha="left", va="top", fontsize=13, color=MUTED)
    figure.text(0.05, 0.865, about.warning, ha="left", va="top", fontsize=13, color=FLOOR)
    figure.subplots_adjust(left=0.05, right=0.975, top=0.77, bottom=0.24, wspace=0.16)
    figure.savefig(path)


def _rates(panel: Axes, report: Report) -> None:
    shown = bars(report)
    _dress(panel, "Programs per second (log scale)")
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter(_plain)
    panel.yaxis.set_minor_formatter("")
    drawn = panel.bar(range(len(shown)), [bar.per_s for bar in shown], color=[bar.colour for bar in shown], width=0.62)
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    panel.bar_label(drawn, [_rounded(bar.per_s) for bar in shown], padding=4, fontsize=14, color=INK, bbox=behind)
    panel.set_xticks(range(len(shown)), [bar.label for bar in shown], fontsize=12, color=INK)
    for way, style in ((ways.FLOOR_ONE, ":"), (ways.FLOOR_ALL, "--")):
        if way in report.comparison.rates:
            per_s = report.comparison.rates[way].median
            panel.axhline(per_s, color=FLOOR, linestyle=style, linewidth=1.8)
            panel.annotate(
                f"{way}: {_rounded(per_s)}", (0.01, per_s), xycoords=("axes fraction", "data"), xytext=(0, 5),
                textcoords="offset points", color=FLOOR, fontsize=12,
            )  # fmt: skip
    highest = max([bar.per_s for bar in shown] + [one.median for one in _floors(report)])
    panel.set_ylim(min(bar.per_s for bar in shown) / 2, highest * 2.2)


def _floors(report: Report) -> list[ways.Spread]:
    return [spread for way, spread in report.comparison.rates.items() if way in (ways.FLOOR_ONE, ways.FLOOR_ALL)]


def _latencies(panel: Axes, report: Report) -> None:
    from matplotlib.ticker import LogLocator

    _dress(panel, "Share of verdicts that are there in time")
    curves = dict(report.comparison.latencies)
    curves.update({f"{one.name}, one in flight": one.latency for one in report.asides if one.latency is not None})
    for place, (name, latency) in enumerate(curves.items()):
        shares = [at / (len(latency.quantiles_ms) - 1) for at in range(len(latency.quantiles_ms))]
        label = f"{name} (p50 {latency.p50_ms:.1f}, p99 {latency.p99_ms:.1f} ms)"
        style = "--" if "bare" in name else "-"
        panel.plot(latency.quantiles_ms, shares, style, color=LINES[place % len(LINES)], linewidth=2.4, label=label)
    panel.axvline(20, color=MUTED, linewidth=1.2, linestyle=":")
    panel.annotate(
        "target for p99", (20, 0.02), xytext=(-5, 0), textcoords="offset points", ha="right", color=MUTED, fontsize=11
    )
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(_plain)
    panel.xaxis.set_minor_formatter("")
    panel.set_xlabel("ms, log scale", loc="right", fontsize=12, color=MUTED)
    panel.set_ylim(0, 1.02)
    panel.legend(loc="upper left", fontsize=12, frameon=False, labelcolor=INK, bbox_to_anchor=(-0.02, -0.1), ncols=1)


def _dress(panel: Axes, title: str) -> None:
    panel.set_title(title, loc="left", fontsize=14, fontweight="bold", color=INK, pad=12)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color("#bbbbbb")
    panel.tick_params(colors=MUTED, labelsize=12, length=3)
    panel.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    panel.set_axisbelow(True)


def _plain(value: float, position: float | None = None) -> str:
    """A power of ten written out."""
    del position
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
