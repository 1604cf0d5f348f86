"""What `azr bench sandbox` found: one noun with everything in it, the rows with their targets, JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from azr.bench.step import StepFigures
from sandbox.bench import comparison as ways
from sandbox.bench.comparison import Comparison
from sandbox.bench.guests import Growth
from sandbox.bench.machine import Machine
from sandbox.bench.statistics import Latency, Spread
from sandbox.types import Isolation

SCHEMA = 1
CLOCK = "a verdict's clock stops when its value is decoded on the host and its process is reaped in the guest"
NOT_MEASURED = "not measured"


class Judgement(StrEnum):
    """How a figure stands to its target."""

    MET = "met"
    MISSED = "missed"
    OPEN = ""
    """There is no target, or nothing was measured."""


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on a median."""

    bound: float
    is_ceiling: bool

    def judge(self, measured: float) -> Judgement:
        is_met = measured <= self.bound if self.is_ceiling else measured >= self.bound
        return Judgement.MET if is_met else Judgement.MISSED


@dataclass(frozen=True, slots=True)
class Figure:
    """One row: what was measured and what was wanted."""

    name: str
    unit: str
    measured: Spread | None
    target: Target | None
    judgement: Judgement
    remark: str


@dataclass(frozen=True, slots=True)
class Aside:
    """Another backend or runtime, measured shortly in the same run; `reason` says why it was not."""

    name: str
    per_s: Spread | None
    latency: Latency | None
    cold_start_s: Spread | None
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything of one benchmark."""

    started: str
    """ISO 8601, UTC."""
    is_quick: bool
    machine: Machine
    busy_at_end: float
    """Share of all cores that was in use when the benchmark was done."""
    isolation: Isolation
    workers: int
    """Containers of each of the two seed slots."""
    programs: str
    """Where the programs came from, and how many of them were small enough."""
    comparison: Comparison
    cold_start_s: Spread
    docker_run_s: Spread | None
    growth: Growth | None
    """Of the supervisors; None where this user may not read it."""
    steps: tuple[StepFigures, ...]
    num_refused: int
    """Proposals that the gate turned away while the step's were chosen."""
    audit_cost: Spread | None
    asides: tuple[Aside, ...]
    notes: tuple[str, ...]
    wall_s: float


def figures(report: Report) -> list[Figure]:
    """The rows of the table, targets first."""
    compared = report.comparison
    loaded = compared.latencies[ways.LOADED]
    control = compared.ratios.get("scaling of a busy loop")
    scaling = f"a busy loop scales {control.median:.2f} x here" if control else ""
    return [
        _figure("verdicts / bare fork, one core", compared.ratios.get("to the floor, one core"), "x", _at_least(0.9)),
        _figure("verdicts / bare fork, all cores", compared.ratios.get("to the floor, all cores"), "x", _at_least(0.9)),
        _figure("verdicts / fresh Python in a container", compared.ratios.get("to a fresh Python"), "x", _at_least(10)),
        _figure("scaling, one core to all", compared.ratios.get("scaling"), "x", _at_least(1.8), scaling),
        _figure("latency p99, one in flight a core", _exact(loaded.p99_ms, loaded.count), "ms", _at_most(20)),
        *_memory_figures(report),
        _figure("paper-size step", _steps(report.steps), "s", _at_most(1.2), _step_remark(report.steps)),
        _figure("audit log, share of the time", report.audit_cost, "%", _at_most(0.05)),
        *(_figure(name, spread, "/s", None) for name, spread in compared.rates.items() if "busy" not in name),
        _figure(
            "CPU of a verdict / of a bare fork", compared.ratios.get("CPU to the floor"), "x", None, _cpu_remark(report)
        ),
        *(_latency_figure(name, latency) for name, latency in compared.latencies.items()),
        _figure("cold start to the first verdict", report.cold_start_s, "s", None),
        _figure("`docker run`, one program", report.docker_run_s, "s", None),
        *(_aside_figure(aside) for aside in report.asides),
    ]


def to_json(report: Report) -> str:
    """Everything, with the judged rows first."""
    rows = [asdict(row) for row in figures(report)]
    return json.dumps({"schema": SCHEMA, "clock": CLOCK, "figures": rows, **asdict(report)}, indent=1)


def _figure(name: str, measured: Spread | None, unit: str, target: Target | None, remark: str = "") -> Figure:
    judgement = target.judge(measured.median) if target and measured else Judgement.OPEN
    return Figure(name, unit, measured, target, judgement, remark)


def _at_least(bound: float) -> Target:
    return Target(bound, is_ceiling=False)


def _at_most(bound: float) -> Target:
    return Target(bound, is_ceiling=True)


def _exact(value: float, count: int) -> Spread:
    """A figure that comes out of many runs together and has no spread of its own."""
    return Spread(value, value, value, count)


def _memory_figures(report: Report) -> list[Figure]:
    found = report.growth
    if found is None:
        return [_figure("supervisor's memory, RSS", None, "MB", _at_most(20), "this user may not read it")]
    size, pss = _exact(found.memory.rss_mb, 1), f"PSS {found.memory.pss_mb:.1f} MB"
    return [
        _figure("supervisor's memory, RSS", size, "MB", _at_most(20), pss),
        _figure("growth of it", _exact(found.grown_mb, 1), "MB", _at_most(0.5), f"over {found.runs} runs"),
    ]


def _steps(steps: Sequence[StepFigures]) -> Spread | None:
    return Spread.of([step.wall_s for step in steps]) if steps else None


def middle(steps: Sequence[StepFigures]) -> StepFigures:
    """The step of median length."""
    return sorted(steps, key=lambda step: step.wall_s)[len(steps) // 2]


def _step_remark(steps: Sequence[StepFigures]) -> str:
    if not steps:
        return ""
    stages = middle(steps).stages.values()
    completions = "+".join(str(stage.completions) for stage in stages)
    return f"{completions} completions, {sum(stage.runs for stage in stages)} runs"


def _cpu_remark(report: Report) -> str:
    compared = report.comparison
    inside, host = (found[ways.ONE_CORE].median for found in (compared.cpu_ms, compared.host_cpu_ms))
    return f"{inside:.2f} ms in the guest; the host's part is {host:.2f} ms more"


def _latency_figure(name: str, latency: Latency) -> Figure:
    remark = f"p95 {latency.p95_ms:.1f}, p99 {latency.p99_ms:.1f}, highest {latency.highest_ms:.1f} ms"
    return _figure(f"latency p50, {name}", _exact(latency.p50_ms, latency.count), "ms", None, remark)


def _aside_figure(aside: Aside) -> Figure:
    if aside.latency is None or aside.cold_start_s is None:
        return _figure(f"{aside.name}, {ways.ALL_CORES}", None, "/s", None, aside.reason)
    remark = (
        f"p50 {aside.latency.p50_ms:.1f}, p99 {aside.latency.p99_ms:.1f} ms; cold {aside.cold_start_s.median:.2f} s"
    )
    return _figure(f"{aside.name}, {ways.ALL_CORES}", aside.per_s, "/s", None, remark)
