"""The report for a terminal: a table of figures, and what one must know to read it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from azr.bench.report import CLOCK, NOT_MEASURED, Figure, Judgement, Report, figures, middle
from azr.bench.step import StepFigures

COLOURS = {Judgement.MET: "green", Judgement.MISSED: "red", Judgement.OPEN: ""}


def show(report: Report, console: Console) -> None:
    """The table, the step's parts, and the circumstances."""
    console.print(table(report))
    if report.steps:
        console.print(step_table(report.steps))
    for line in circumstances(report):
        console.print(line, markup=False, highlight=False)


def table(report: Report) -> Table:
    """A row a figure, targets first."""
    drawn = Table(highlight=False, box=SIMPLE_HEAD)
    for name in ("what", "measured", "low to high", "n", "target", "verdict", "remark"):
        drawn.add_column(name, justify="right" if name in ("measured", "n", "target") else "left")
    for row in figures(report):
        spread = row.measured
        drawn.add_row(
            row.name,
            _number(spread.median, row.unit) if spread else NOT_MEASURED,
            _range(row),
            str(spread.repeats) if spread else "",
            _bound(row),
            Text(str(row.judgement), style=COLOURS[row.judgement]),
            Text(row.remark),
        )
    return drawn


def step_table(steps: Sequence[StepFigures]) -> Table:
    """What the paper-size step was made of."""
    step = middle(steps)
    cpu = f"host {step.host_cpu_s:.2f}, guests {step.guest_cpu_s:.2f}, engine and others {step.other_cpu_s:.2f}"
    mix = ", ".join(f"{count} {kind}" for kind, count in sorted(step.mix.items()))
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(step.verdicts.items()))
    drawn = Table(
        "stage", "seconds", "completions", "runs", "needed no run",
        title="The paper-size step of median length", title_justify="left", caption_justify="left", box=SIMPLE_HEAD,
        caption=f"CPU seconds: {cpu}\nreplies: {mix}\nverdicts: {verdicts}",
    )  # fmt: skip
    for name, stage in step.stages.items():
        counts = (stage.completions, stage.runs, stage.needed_no_run)
        drawn.add_row(name, f"{stage.wall_s:.2f}", *map(str, counts))
    return drawn


def circumstances(report: Report) -> list[str]:
    """Machine, isolation, programs and notes, a line each."""
    about, how = report.machine, report.isolation
    return [
        f"{about.cpu}, {about.cores} cores, kernel {about.kernel}, Python {how.python}, {about.engine}",
        f"load {about.load_1min:.2f} and {about.busy:.0%} busy at the start, {report.busy_at_end:.0%} at the end",
        f"took {report.wall_s:.0f} s",
        f"{report.programs}; {how.backend}/{how.runtime}, workers a seed slot: {report.workers}",
        CLOCK,
        *(f"note: {note}" for note in report.notes),
    ]


def _range(row: Figure) -> str:
    spread = row.measured
    if spread is None or spread.low == spread.high:
        return ""
    return f"{_number(spread.low, '%' if row.unit == '%' else '')} to {_number(spread.high, row.unit)}"


def _bound(row: Figure) -> str:
    if row.target is None:
        return ""
    return f"{'<=' if row.target.is_ceiling else '>='} {_number(row.target.bound, row.unit)}"


def _number(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.1f} %"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f} {unit}".strip()
