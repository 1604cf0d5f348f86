"""`azr doctor --attacks`: the attack matrix of this host, as a table or as JSON. Read `run_attacks` first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from azr import configfile
from azr.build import make_executor, make_rules
from azr.commands.hostile_texts import run_texts
from azr.config import PAPER_FORBIDDEN, Config
from azr.runs.printable import printable
from sandbox.doctor.attacks import CASES, FAMILIES, Case, Outcome, Verdict
from sandbox.doctor.attacks.matrix import counts, run_matrix
from sandbox.doctor.attacks.texts import TEXTS

SUCCESSES = tuple(outcome for outcome in Outcome if outcome is not Outcome.HELD)
SUCCEEDED = 1


@dataclass(frozen=True, slots=True)
class Column:
    """The matrix under one isolation, with the screen off or on."""

    title: str
    verdicts: tuple[Verdict, ...]


def run_attacks(*, backend: str, runtime: str, overrides: Sequence[str], as_json: bool) -> int:
    """Run all hostile programs and texts; returns 0 when our sandbox held every one, else 1.

    Raises:
        SandboxError: the isolation cannot be had, or did not survive.
        ConfigError: there is no such backend.
    """
    named = [f'sandbox.backend="{backend}"', f'sandbox.runtime="{runtime}"', "sandbox.workers=1"]
    columns = asyncio.run(_columns(configfile.defaults([*named, *overrides])))
    if as_json:
        print(json.dumps(as_plain(columns), indent=2))
    else:
        show(columns, Console())
    return SUCCEEDED if any(_succeeded(column) for column in columns) else 0


async def _columns(config: Config) -> list[Column]:
    columns: list[Column] = []
    num_runs = 2 * len(CASES) + len(TEXTS)
    parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*parts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("attacks", total=num_runs)

        def seen(verdict: Verdict) -> None:
            bar.update(task, advance=1, description=printable(verdict.case.title, 60))

        async with make_executor(config.sandbox) as executor:
            texts = await run_texts(executor, TEXTS, rules=make_rules(config.tasks, config.sandbox), progress=seen)
            isolation = f"{executor.isolation.backend}/{executor.isolation.runtime}"
            for name, forbidden in (("screen off", ()), ("screen on", PAPER_FORBIDDEN)):
                found = await run_matrix(executor, CASES, forbidden=forbidden, progress=seen)
                columns.append(Column(f"{isolation}, {name}", verdicts=(*found, *texts)))
    return columns


def show(columns: Sequence[Column], console: Console) -> None:
    """How many attacks of each family succeeded, then which ones did in our sandbox."""
    table = Table(box=SIMPLE_HEAD, title="attacks that succeed, of all")
    table.add_column("family", no_wrap=True)
    for column in columns:
        table.add_column(column.title.replace(", ", "\n").replace(": ", "\n"), justify="right")
    for letter, name in FAMILIES.items():
        table.add_row(f"{letter}  {name}", *[_share(column, letter) for column in columns])
    table.add_section()
    for outcome in SUCCESSES:
        table.add_row(outcome.replace("_", " "), *[_number(column, outcome) for column in columns])
    table.add_row("in all", *[f"{len(_succeeded(column))} of {len(column.verdicts)}" for column in columns])
    console.print(table)
    for column in columns:
        for verdict in _succeeded(column):
            console.print(Text(f"{column.title}: {_told(verdict)}", style="bold red"), soft_wrap=True)


def as_plain(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """The matrix as JSON takes it: counts, and every case."""
    return [
        {
            "title": column.title,
            "attacks": len(column.verdicts),
            "succeeded": len(_succeeded(column)),
            "families": {
                family: {str(outcome): number for outcome, number in found.items()}
                for family, found in counts(column.verdicts).items()
            },
            "cases": [_plain(verdict) for verdict in column.verdicts],
        }
        for column in columns
    ]


def _plain(verdict: Verdict) -> dict[str, Any]:
    case: Case = verdict.case
    return {
        "number": case.number,
        "family": case.family,
        "name": case.name,
        "outcome": str(verdict.outcome),
        "status": verdict.status,
        "is_expected": verdict.is_expected,
        "detail": printable(verdict.detail, 300),
    }


def _succeeded(column: Column) -> list[Verdict]:
    return [verdict for verdict in column.verdicts if verdict.outcome is not Outcome.HELD]


def _share(column: Column, family: str) -> str:
    those = [verdict for verdict in column.verdicts if verdict.case.family == family]
    succeeded = sum(verdict.outcome is not Outcome.HELD for verdict in those)
    return f"{succeeded} of {len(those)}" if those else "-"


def _number(column: Column, outcome: Outcome) -> str:
    return str(sum(verdict.outcome is outcome for verdict in column.verdicts))


def _told(verdict: Verdict) -> str:
    return printable(f"{verdict.case.title}: {verdict.outcome} ({verdict.status}) {verdict.detail}", 200)
