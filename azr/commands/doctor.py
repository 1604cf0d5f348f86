"""`azr doctor`: examines the isolation on this host, as a table or as JSON. Read `run_doctor` first."""

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
from azr.commands.options import isolation_overrides
from azr.config import SandboxConfig
from azr.errors import AzrError
from azr.runs.printable import printable
from sandbox.doctor.check import Level
from sandbox.doctor.examine import Finding, examine, failures
from sandbox.types import Executor, Isolation, SandboxError

ALL = (("docker", ""), ("docker", "runsc"), ("jail", ""))
"""Backend and runtime of each isolation; an empty runtime means the default."""
COLORS = {Level.OK: "green", Level.WEAK: "yellow", Level.FAILED: "bold red"}
FAILED, CANNOT_START = 1, 2
Make = Callable[[SandboxConfig], Executor]


@dataclass(frozen=True, slots=True)
class Examined:
    """The findings for one isolation."""

    backend: str
    runtime: str
    isolation: Isolation
    findings: tuple[Finding, ...]

    @property
    def name(self) -> str:
        return f"{self.isolation.backend}/{self.isolation.runtime}"


@dataclass(frozen=True, slots=True)
class NotStarted:
    """An isolation that could not be started, and why."""

    backend: str
    runtime: str
    reason: str

    @property
    def name(self) -> str:
        return f"{self.backend}/{self.runtime}" if self.runtime else self.backend


Examination = Examined | NotStarted


def run_doctor(
    *,
    backend: str,
    runtime: str,
    shows_all: bool,
    as_json: bool,
    overrides: Sequence[str],
    make: Make = make_executor,
) -> int:
    """Examine one isolation or all; returns 0, or 1 if a required check failed, or 2 if none could be started."""
    wanted = ALL if shows_all else ((backend or SandboxConfig().backend, runtime),)
    examinations = [_examine(*names, overrides, make) for names in wanted]
    if as_json:
        print(json.dumps(as_plain(examinations), indent=2))
    else:
        show(examinations, Console())
    return exit_code(examinations)


def exit_code(examinations: Sequence[Examination]) -> int:
    """Depends on the isolations that started; one that did not start counts only if no other did."""
    examined = [examination for examination in examinations if isinstance(examination, Examined)]
    if not examined:
        return CANNOT_START
    return FAILED if any(failures(each.findings) for each in examined) else 0


def _examine(backend: str, runtime: str, overrides: Sequence[str], make: Make) -> Examination:
    try:
        config = configfile.defaults([*isolation_overrides(backend, runtime), *overrides])
        return asyncio.run(_examine_started(config.sandbox, make))
    except (AzrError, SandboxError) as error:
        return NotStarted(backend, runtime, str(error))


async def _examine_started(sandbox: SandboxConfig, make: Make) -> Examined:
    async with make(sandbox) as executor:
        findings = await examine(executor)
        return Examined(sandbox.backend, sandbox.runtime, executor.isolation, tuple(findings))


def as_plain(examinations: Sequence[Examination]) -> dict[str, Any]:
    """What `--json` prints."""
    return {"ok": exit_code(examinations) == 0, "isolations": [_plain(examination) for examination in examinations]}


def _plain(examination: Examination) -> dict[str, Any]:
    if isinstance(examination, NotStarted):
        return {"name": examination.name, "started": False, "reason": examination.reason}
    counts = Counter(finding.level for finding in examination.findings)
    return {
        "name": examination.name,
        "started": True,
        "isolation": asdict(examination.isolation),
        "counts": {level.value: counts[level] for level in Level},
        "findings": [_row(finding) for finding in examination.findings],
    }


def _row(finding: Finding) -> dict[str, str]:
    """The level is called `verdict` in JSON, because tools rely on that name."""
    fields = asdict(finding)
    fields["verdict"] = fields.pop("level")
    return fields


def show(examinations: Sequence[Examination], console: Console) -> None:
    """A table of one isolation or a comparison of several; then what to do about each row that is not ok."""
    examined = [examination for examination in examinations if isinstance(examination, Examined)]
    if len(examined) == 1:
        console.print(_table(examined[0]))
    elif examined:
        console.print(_comparison(examined))
    for each in examined:
        _conclude(each, console)
    for examination in examinations:
        if isinstance(examination, NotStarted):
            console.print(
                Text.assemble((f"{examination.name} cannot start: ", "bold red"), printable(examination.reason))
            )


def _table(each: Examined) -> Table:
    table = Table(title=each.name, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("area", "check", "required", "found"):
        table.add_column(column, overflow="fold")
    table.add_column("result", no_wrap=True)
    area = ""
    for finding in each.findings:
        if finding.area != area and area:
            table.add_section()
        shown_area = finding.area if finding.area != area else ""
        area = finding.area
        words = [shown_area, finding.check, finding.required, finding.found]
        table.add_row(*(Text(printable(word)) for word in words), _level(finding))
    return table


def _level(finding: Finding) -> Text:
    return Text(finding.level.value, style=COLORS[finding.level])


def _comparison(examined: Sequence[Examined]) -> Table:
    """One column per isolation; each cell is cut to one line, `--json` prints the full text."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("area", no_wrap=True)
    table.add_column("check", no_wrap=True)
    for each in examined:
        table.add_column(each.name, no_wrap=True, overflow="ellipsis", ratio=1)
    found = [{(finding.area, finding.check): finding for finding in each.findings} for each in examined]
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
    level = finding.level
    mark = "" if level is Level.OK else f"{level.value} "
    return Text.assemble((mark, COLORS[level]), (printable(finding.found), "" if mark else COLORS[level]))


def _conclude(each: Examined, console: Console) -> None:
    """The number of rows per level, then one line of advice for each row that is not ok, failed ones first."""
    counts = Counter(finding.level for finding in each.findings)
    summary = ", ".join(f"{counts[level]} {level.value}" for level in Level if counts[level])
    console.print(Text.assemble((f"{each.name}: ", "bold"), summary))
    for level in (Level.FAILED, Level.WEAK):
        for finding in each.findings:
            if finding.level is level:
                row = printable(f" {finding.area}, {finding.check}: {finding.advice}")
                console.print(Text.assemble("  ", _level(finding), row), soft_wrap=False)
