"""A run as one picture: 1600 x 1000, readable as a screenshot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from azr.errors import RunError
from azr.runs import metrics
from azr.runs.directory import RunDirectory
from azr.runs.files import disk_faults
from azr.runs.history import History, last, series, stages, task_types

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""The palette of Okabe and Ito, which colour-blind readers can tell apart."""
_STAGE_COLOURS = ("#4E79A7", "#59A14F", "#F28E2B", "#EDC948", "#B07AA1", "#E15759", "#9C755F", "#BAB0AC")
_INK, _MUTED = "#222222", "#8a8a8a"


class Curve(NamedTuple):
    """One curve of a panel."""

    key: str
    colour: str
    style: str = "-"


def learning_curve(run_path: Path) -> Path:
    """Draw `learning_curve.png` into the run directory and return its path.

    Raises:
        RunError: there is no run, it has no steps yet, or matplotlib is not installed.
    """
    run = RunDirectory.open(run_path)
    history = metrics.read(run.metrics) if run.metrics.exists() else []
    if not history:
        raise RunError(f"{run_path} has no steps yet, so there is nothing to draw")
    path = run_path / "learning_curve.png"
    draw(history, path, title=run_path.resolve().name)
    return path


def draw(history: History, path: Path, *, title: str) -> None:
    """Draw six panels. A panel without data says so.

    Raises:
        RunError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RunError("drawing needs matplotlib, which is not installed: pip install 'azr[train]'") from error
    figure = Figure(figsize=(16, 10), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    panels: Sequence[Axes] = figure.subplots(2, 3).ravel()
    for panel in panels:
        _dress(panel, history)
    _held_out(panels[0], history)
    _cells(panels[1], history, key="solve/{}/accuracy", title="Solver: correct answers in training")
    _cells(panels[2], history, key="propose/{}/reward", title="Proposer: mean reward", is_share=False)
    _cells(panels[3], history, key="propose/{}/valid_rate", title="Proposer: valid proposals")
    _length(panels[4], history)
    _time(panels[5], history)
    figure.suptitle(title, x=0.035, y=0.975, ha="left", fontsize=20, fontweight="bold", color=_INK)
    figure.text(0.035, 0.92, _subtitle(history), ha="left", fontsize=13, color=_MUTED)
    _legend(figure, history)
    figure.subplots_adjust(left=0.045, right=0.97, top=0.855, bottom=0.06, hspace=0.3, wspace=0.36)
    with disk_faults(f"write {path}"):
        figure.savefig(path)


def moving_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean over a centred window that shrinks at both ends."""
    half = window // 2
    spans = (values[max(0, at - half) : at + half + 1] for at in range(len(values)))
    return [sum(span) / len(span) for span in spans]


def _subtitle(history: History) -> str:
    steps, means = series(history, "eval/mean")
    if not means:
        return f"{last(history, 'step') or 0:.0f} steps"
    change = f" → {means[-1]:.1%} ({100 * (means[-1] - means[0]):+.1f} points)" if len(means) > 1 else ""
    return f"held-out mean {means[0]:.1%}{change}, step {steps[0]:.0f} to {steps[-1]:.0f}"


def _dress(panel: Axes, history: History) -> None:
    from matplotlib.ticker import MaxNLocator

    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color("#bbbbbb")
    panel.tick_params(colors="#555555", labelsize=11, length=3)
    panel.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.set_xlim(history[0]["step"], max(history[-1]["step"], history[0]["step"] + 1))
    panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _title(panel: Axes, text: str) -> None:
    panel.set_title(text, loc="left", fontsize=13, fontweight="bold", color=_INK, pad=12)
    panel.set_xlabel("step", loc="right", fontsize=11, color="#555555")


def _lines(panel: Axes, history: History, lines: Sequence[Curve]) -> bool:
    """Draw the values faint and their moving mean strong; returns whether there were any."""
    drawn = False
    for line in lines:
        steps, values = series(history, line.key)
        if not values:
            continue
        window = max(1, len(values) // 15)
        if window > 1:
            panel.plot(steps, values, line.style, color=line.colour, alpha=0.22, linewidth=1)
        marker = "o" if len(values) <= 40 else ""
        panel.plot(
            steps, moving_mean(values, window), line.style, color=line.colour, linewidth=2.2, marker=marker, ms=4.5,
            clip_on=False,
        )  # fmt: skip
        drawn = True
    return drawn


def _say_when_empty(panel: Axes, drawn: bool) -> None:
    if not drawn:
        panel.text(0.5, 0.5, "no data", transform=panel.transAxes, ha="center", color=_MUTED, fontsize=12)
        panel.set(yticks=[])


def _percent(panel: Axes) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panel.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))


def _type_lines(history: History, key: str, style: str = "-") -> list[Curve]:
    names = task_types(history)
    return [Curve(key.format(name), COLOURS[at % len(COLOURS)], style) for at, name in enumerate(names)]


def _legend(figure: Figure, history: History) -> None:
    """One legend for all panels: a task type has the same colour everywhere."""
    from matplotlib.lines import Line2D

    named = [*zip(task_types(history), _type_lines(history, "{}"), strict=True), ("mean", Curve("eval/mean", _INK))]
    figure.legend(
        handles=[Line2D([], [], color=line.colour, linewidth=3, label=name) for name, line in named],
        loc="upper right", bbox_to_anchor=(0.975, 0.985), ncols=len(named), frameon=False, fontsize=13,
        labelcolor=_INK, handlelength=1.2,
    )  # fmt: skip


def _held_out(panel: Axes, history: History) -> None:
    """With the last value at the end of each curve."""
    _title(panel, "Held-out accuracy")
    lines = [*_type_lines(history, "eval/{}"), Curve("eval/mean", _INK)]
    drawn = _lines(panel, history, lines)
    ends = sorted((series(history, line.key)[1][-1], line) for line in lines if series(history, line.key)[1])
    at = -1.0
    low, high = panel.get_ylim()
    for value, line in ends:
        at = max(value, at + 0.045 * (high - low))  # labels of close lines must not cover each other
        panel.annotate(
            f"{100 * value:.1f}", (history[-1]["step"], at), xytext=(7, 0), textcoords="offset points",
            va="center", color=line.colour, fontsize=12, fontweight="bold", annotation_clip=False,
        )  # fmt: skip
    _percent(panel)
    _say_when_empty(panel, drawn)


def _cells(panel: Axes, history: History, *, key: str, title: str, is_share: bool = True) -> None:
    _title(panel, title)
    drawn = _lines(panel, history, _type_lines(history, key))
    if is_share:
        _percent(panel)
    _say_when_empty(panel, drawn)


def _length(panel: Axes, history: History) -> None:
    """Length on the left axis; the share of answers with a thought on the right one, dashed."""
    _title(panel, "Solver: tokens per answer")
    drawn = _lines(panel, history, _type_lines(history, "solve/{}/length"))
    thinking = _type_lines(history, "solve/{}/thinks", "--")
    if any(series(history, line.key)[1] for line in thinking):
        right = panel.twinx()
        _dress(right, history)
        right.grid(visible=False)
        _lines(right, history, thinking)
        right.set_ylim(0, 1)
        _percent(right)
        right.set_ylabel("dashed: share with a thought", fontsize=11, color="#555555")
        drawn = True
    _say_when_empty(panel, drawn)


def _time(panel: Axes, history: History) -> None:
    _title(panel, "Seconds per step")
    timed = [step for step in history if "time/step_s" in step]
    names = stages(timed)
    heights = [moving_mean([step.get(f"time/{name}_s", 0.0) for step in timed], 5) for name in names]
    if not names or len(timed) < 2:
        return _say_when_empty(panel, drawn=False)
    steps = [step["step"] for step in timed]
    panel.stackplot(steps, heights, labels=names, colors=_STAGE_COLOURS, alpha=0.9, linewidth=0)
    panel.set_ylim(0, 1.28 * max(map(sum, zip(*heights, strict=True))))
    panel.legend(loc="upper left", ncols=4, frameon=False, fontsize=11, handlelength=1, columnspacing=1.1)
    return None
