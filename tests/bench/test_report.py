"""Targets, rows, table, JSON and picture of a report that was written by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from azr.bench.plot import bars, draw
from azr.bench.report import Aside, Figure, Judgement, Report, Target, figures, middle, to_json
from azr.bench.step import Stage, StepFigures
from azr.bench.terminal import show
from sandbox.bench import comparison as ways
from sandbox.bench.comparison import Comparison
from sandbox.bench.floors import Pace
from sandbox.bench.guests import Growth, Memory
from sandbox.bench.machine import Machine
from sandbox.bench.statistics import Latency, Spread
from tests.fakes import ISOLATION


def exactly(value: float) -> Spread:
    return Spread(value, value, value, 3)


RATES = {
    ways.ONE_CORE: exactly(950.0),
    ways.ONE_CORE_SERVICE: exactly(800.0),
    ways.ALL_CORES: exactly(1500.0),
    ways.FLOOR_ONE: exactly(1000.0),
    ways.FLOOR_ALL: exactly(1900.0),
    ways.FRESH_ONE: exactly(60.0),
    ways.BUSY_ONE: exactly(1e6),
    ways.BUSY_ALL: exactly(1.9e6),
}
STEP = StepFigures(
    wall_s=1.0,
    stages={
        "validate": Stage(0.5, 192, 700, 0),
        "attempt": Stage(0.4, 1536, 500, 1000),
        "solve": Stage(0.1, 192, 90, 90),
    },
    host_cpu_s=0.4,
    guest_cpu_s=1.4,
    other_cpu_s=0.1,
    program_cpu_s=0.9,
    statuses={"ok": 1200, "error": 90},
    verdicts={"correct": 800, "wrong": 728, "malformed": 200},
    mix={"right": 500, "wrong": 600, "repeated": 300, "malformed": 200, "other form": 128},
)  # fmt: skip
REPORT = Report(
    started="2026-11-21T00:00:00+00:00",
    is_quick=True,
    machine=Machine("A processor", 2, "6.1", "3.11", "Docker 20", ("runc",), load_1min=0.1, busy=0.01),
    busy_at_end=0.02,
    isolation=ISOLATION,
    workers=1,
    programs="the embedded set: 42 of 42",
    comparison=Comparison(
        rates=RATES,
        ratios=ways.ratios({name: [Pace(spread.median, 2.0)] for name, spread in RATES.items()}),
        cpu_ms={name: exactly(2.0) for name in RATES},
        host_cpu_ms={name: exactly(0.5) for name in ways.SERVICES},
        latencies={name: Latency.of([at / 10_000 for at in range(1, 101)]) for name in (ways.ALONE, ways.LOADED)},
        num_samples=42,
    ),
    cold_start_s=exactly(0.8),
    docker_run_s=exactly(0.5),
    growth=Growth(Memory(18.0, 9.0), grown_mb=0.1, runs=4000),
    steps=(STEP,),
    num_refused=3,
    audit_cost=exactly(0.08),
    asides=(
        Aside("jail", exactly(1400.0), Latency.of([0.001, 0.002]), exactly(0.2), reason=""),
        Aside("docker/runsc", None, None, None, reason="does not start here: no such runtime"),
    ),
    notes=("a note",),
    wall_s=33.0,
)


def row(report: Report, name: str) -> Figure:
    [found] = [one for one in figures(report) if one.name.startswith(name)]
    return found


@pytest.mark.parametrize(
    ("target", "measured", "judgement"),
    [
        (Target(0.9, is_ceiling=False), 0.9, Judgement.MET),
        (Target(0.9, is_ceiling=False), 0.89, Judgement.MISSED),
        (Target(20, is_ceiling=True), 20.0, Judgement.MET),
        (Target(20, is_ceiling=True), 20.1, Judgement.MISSED),
    ],
)
def test_a_target_is_met_at_its_bound(target: Target, measured: float, judgement: Judgement) -> None:
    assert target.judge(measured) is judgement


@pytest.mark.parametrize(
    ("name", "judgement"),
    [
        ("verdicts / bare fork, one core", Judgement.MET),
        ("verdicts / bare fork, all cores", Judgement.MISSED),
        ("verdicts / fresh Python", Judgement.MET),
        ("scaling", Judgement.MET),
        ("latency p99", Judgement.MET),
        ("supervisor's memory", Judgement.MET),
        ("paper-size step", Judgement.MET),
        ("audit log", Judgement.MISSED),
        ("cold start", Judgement.OPEN),
        ("docker/runsc", Judgement.OPEN),
    ],
)
def test_every_figure_stands_to_its_target(name: str, judgement: Judgement) -> None:
    assert row(REPORT, name).judgement is judgement


def test_what_was_not_measured_meets_nothing_and_says_why() -> None:
    unread = row(replace(REPORT, growth=None), "supervisor's memory")
    assert (unread.measured, unread.judgement) == (None, Judgement.OPEN)
    assert "may not read" in unread.remark
    assert "no such runtime" in row(REPORT, "docker/runsc").remark


def test_scaling_stands_beside_what_the_machine_itself_scales_to() -> None:
    assert "1.90 x" in row(REPORT, "scaling").remark


def test_the_shown_step_is_the_one_of_median_length() -> None:
    steps = [replace(STEP, wall_s=length) for length in (3.0, 1.0, 2.0)]
    assert middle(steps).wall_s == 2.0


def test_json_holds_the_rows_the_machine_and_everything_measured() -> None:
    told = json.loads(to_json(REPORT))
    assert told["schema"] == 1
    assert "reaped" in told["clock"]
    assert told["machine"]["cores"] == 2
    assert told["comparison"]["rates"][ways.ALL_CORES]["median"] == 1500.0
    assert told["steps"][0]["stages"]["attempt"]["needed_no_run"] == 1000
    first = told["figures"][0]
    assert (first["judgement"], first["target"]) == ("met", {"bound": 0.9, "is_ceiling": False})


def test_the_table_says_measured_target_and_verdict() -> None:
    console = Console(width=160, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115  # closed with the test
    show(REPORT, console)
    told = console.export_text()
    console.file.close()
    for words in ("0.95 x", ">= 0.90 x", "met", "missed", "8.0 %", "not measured", "Docker 20", "note: a note"):
        assert words in told


def test_bars_go_from_the_old_ways_to_ours() -> None:
    assert [bar.per_s for bar in bars(REPORT)] == [2.0, 60.0, 1400.0, 950.0, 1500.0]


def test_the_picture_is_drawn_with_and_without_floors(tmp_path: Path) -> None:
    ours = {name: RATES[name] for name in (ways.ONE_CORE, ways.ONE_CORE_SERVICE, ways.ALL_CORES)}
    bare = replace(REPORT, comparison=replace(REPORT.comparison, rates=ours), docker_run_s=None)
    for place, report in enumerate((REPORT, bare)):
        draw(report, tmp_path / f"{place}.png")
        assert (tmp_path / f"{place}.png").stat().st_size > 10_000
