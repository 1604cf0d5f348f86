"""`azr doctor`: what the sandbox really gives on this host, as a table or as JSON. Read `run_doctor` first."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from azr import configfile
from azr.build import make_executor
from azr.config import SandboxConfig
from azr.errors import AzrError
from azr.runs.printable import printable
from sandbox.doctor.checks.check import Verdict
from sandbox.doctor.examine import Finding, examine, failures
from sandbox.types import Executor, Isolation, SandboxError

ALL = (("docker", ""), ("docker", "runsc"), ("jail", ""))
"""Backend and runtime of every isolation that there is; the empty one is the default."""
COLORS = {Verdict.OK: "green", Verdict.WEAK: "yellow", Verdict.FAILED: "bold red"}
FAILED, CANNOT_START = 1, 2
Make = Callable[[SandboxConfig], Executor]


@dataclass(frozen=True, slots=True)
class Report:
    """What one isolation gives."""

    backend: str
    runtime: str
    isolation: Isolation
    findings: tuple[Finding, ...]

    @property
    def name(self) -> str:
        return f"{self.isolation.backend}/{self.isolation.runtime}"


@dataclass(frozen=True, slots=True)
class NotStarted:
    """An isolation that cannot be had here, and why."""

    backend: str
    runtime: str
    reason: str

    @property
    def name(self) -> str:
        return f"{self.backend}/{self.runtime}" if self.runtime else self.backend


Outcome = Report | NotStarted


def run_doctor(
    *,
    backend: str,
    runtime: str,
    shows_all: bool,
    as_json: bool,
    overrides: Sequence[str],
    make: Make = make_executor,
) -> int:
    """Examine one isolation, or all; returns 0, 1 when a required row failed, 2 when none could be started."""
    wanted = ALL if shows_all else ((backend, runtime),)
    outcomes = [_examined(each, of, overrides, make) for each, of in wanted]
    if as_json:
        print(json.dumps(as_plain(outcomes), indent=2))
    else:
        show(outcomes, Console())
    return exit_code(outcomes)


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """By what was examined; an isolation that does not start is a failure only where no other does."""
    reports = [outcome for outcome in outcomes if isinstance(outcome, Report)]
    if not reports:
        return CANNOT_START
    return FAILED if any(failures(report.findings) for report in reports) else 0


def _examined(backend: str, runtime: str, overrides: Sequence[str], make: Make) -> Outcome:
    named = [f'sandbox.backend="{backend}"', *([f'sandbox.runtime="{runtime}"'] if runtime else [])]
    try:
        config = configfile.defaults([*named, *overrides])
        return asyncio.run(_report(config.sandbox, make))
    except (AzrError, SandboxError) as error:
        return NotStarted(backend, runtime, str(error))


async def _report(sandbox: SandboxConfig, make: Make) -> Report:
    async with make(sandbox) as executor:
        findings = await examine(executor)
        return Report(sandbox.backend, sandbox.runtime, executor.isolation, tuple(findings))


def as_plain(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What `--json` prints."""
    return {"ok": exit_code(outcomes) == 0, "isolations": [_plain(outcome) for outcome in outcomes]}


def _plain(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, NotStarted):
        return {"name": outcome.name, "started": False, "reason": outcome.reason}
    counts = Counter(finding.verdict for finding in outcome.findings)
    return {
        "name": outcome.name,
        "started": True,
        "isolation": asdict(outcome.isolation),
        "counts": {verdict.value: counts[verdict] for verdict in Verdict},
        "findings": [asdict(finding) for finding in outcome.findings],
    }


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """One table with what was required, or several isolations side by side; then what to do."""
    reports = [outcome for outcome in outcomes if isinstance(outcome, Report)]
    if len(reports) == 1:
        console.print(_table(reports[0]))
    elif reports:
        console.print(_comparison(reports))
    for report in reports:
        _conclude(report, console)
    for outcome in outcomes:
        if isinstance(outcome, NotStarted):
            console.print(Text.assemble((f"{outcome.name} cannot start: ", "bold red"), printable(outcome.reason)))


def _table(report: Report) -> Table:
    table = Table(title=report.name, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("area", "check", "required", "found"):
        table.add_column(column, overflow="fold")
    table.add_column("verdict", no_wrap=True)
    area = ""
    for finding in report.findings:
        if finding.area != area and area:
            table.add_section()
        shown_area = finding.area if finding.area != area else ""
        area = finding.area
        words = [shown_area, finding.check, finding.required, finding.found]
        table.add_row(*(Text(printable(word)) for word in words), _verdict(finding))
    return table


def _verdict(finding: Finding) -> Text:
    return Text(finding.verdict.value, style=COLORS[finding.verdict])


def _comparison(reports: Sequence[Report]) -> Table:
    """A column an isolation; what was found is cut to one line, `--json` has all of it."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("area", no_wrap=True)
    table.add_column("check", no_wrap=True)
    for report in reports:
        table.add_column(report.name, no_wrap=True, overflow="ellipsis", ratio=1)
    found = [{(each.area, each.check): each for each in report.findings} for report in reports]
    area = ""
    for row in dict.fromkeys(key for findings in found for key in findings):
        if row[0] != area and area:
            table.add_section()
        table.add_row(row[0] if row[0] != area else "", row[1], *(_cell(findings.get(row)) for findings in found))
        area = row[0]
    return table


def _cell(finding: Finding | None) -> Text:
    if finding is None:
        return Text("-", style="dim")
    verdict = finding.verdict
    mark = "" if verdict is Verdict.OK else f"{verdict.value} "
    return Text.assemble((mark, COLORS[verdict]), (printable(finding.found), "" if mark else COLORS[verdict]))


def _conclude(report: Report, console: Console) -> None:
    """How many of each verdict, and a line of advice for each row that is not well, the failed ones first."""
    counts = Counter(finding.verdict for finding in report.findings)
    told = ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict])
    console.print(Text.assemble((f"{report.name}: ", "bold"), told))
    for verdict in (Verdict.FAILED, Verdict.WEAK):
        for finding in report.findings:
            if finding.verdict is verdict:
                row = printable(f" {finding.area}, {finding.check}: {finding.advice}")
                console.print(Text.assemble("  ", _verdict(finding), row), soft_wrap=False)
