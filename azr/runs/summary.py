"""What a run came to: printed at its end, and by whoever opens it later."""

from __future__ import annotations

from collections.abc import Callable

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from azr.runs.cells import accuracy, duration, held_out, share, time_split, tokens
from azr.runs.history import ENDS, History, first, last, seconds, series, task_types
from azr.runs.printable import printable

_MOVEMENTS = (
    ("proposer\nvalid", "propose/{}/valid_rate", share),
    ("\nlearnable", "propose/{}/learnable", share),
    ("\ndistinct", "propose/{}/distinct", share),
    ("solver\nlength", "solve/{}/length", tokens),
    ("\nthinks", "solve/{}/thinks", share),
)


def summary(history: History) -> Table:
    """First and last evaluation of each task type, how answers and proposals moved, and where the time went."""
    table = Table(
        box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, caption=_caption(history), caption_justify="left"
    )
    table.add_column("\ntask type", no_wrap=True)
    for header in ("held-out\naccuracy", "\nchange", *(header for header, _, _ in _MOVEMENTS)):
        table.add_column(header, justify="right", no_wrap=True)
    for name in task_types(history):
        moved = [_moved(history, key.format(name), show) for _, key, show in _MOVEMENTS]
        table.add_row(Text(printable(name), style="bold"), *_evaluation(history, name), *moved)
    table.add_section()
    table.add_row(Text("mean", style="bold"), *_evaluation(history, "mean"))
    return table


def _evaluation(history: History, name: str) -> tuple[str, Text]:
    return _moved(history, f"eval/{name}", accuracy, num_values=1), held_out(history, name)[1]


def _moved(history: History, key: str, show: Callable[[float | None], str], num_values: int = ENDS) -> str:
    """`20→93%`: first and last value, each a mean over some steps; empty when the run has none."""
    begun, now = first(history, key, num_values), last(history, key, num_values)
    return "" if begun is None else f"{show(begun).removesuffix('%')}→{show(now)}"


def _caption(history: History) -> Text:
    durations = series(history, "time/step_s")[1]
    spent = seconds(history, "step")
    lines = [f"{len(durations)} steps in {duration(spent)}"]
    if durations:
        generated = sum(series(history, "tokens/generated")[1])
        lines[0] += f", {spent / len(durations):.1f} s a step, {generated:,.0f} tokens generated"
    split = time_split(history)
    if split:
        lines.append(f"time: {split}")
    thinking = _moved(history, "eval/thinks", share, num_values=1)
    if thinking:
        lines.append(f"held-out answers that think: {thinking}")
    lines.append(f"a→b: first and last evaluation; means of the first and of the last {ENDS} steps")
    return Text("\n".join(lines), style="dim")
