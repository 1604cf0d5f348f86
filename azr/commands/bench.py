"""`azr bench sandbox`: opens what is measured, measures it, shows it. Read `run_bench` first."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console

from azr import configfile
from azr.bench.plot import draw
from azr.bench.report import Aside, Report, to_json
from azr.bench.step import StepFigures, choose, play
from azr.bench.terminal import show
from azr.build import make_executor, make_types
from azr.config import Config, SandboxConfig
from azr.errors import ConfigError, InputError, RunError
from sandbox.bench import floors, guests, load, machine, programs
from sandbox.bench.audit_cost import audit_cost
from sandbox.bench.comparison import ALL_CORES, FULL, QUICK, Comparison, Plan, compare
from sandbox.bench.guests import Growth
from sandbox.bench.programs import BadPrograms, Row, Sample
from sandbox.bench.statistics import Latency, Spread
from sandbox.docker import image as images
from sandbox.types import EngineUnavailable, Executor, Isolation, SandboxError

SEED = 20250506
JSON_FILE, PICTURE_FILE = "bench.json", "bench.png"
WIDE = 140
"""Columns of a table that is written to a file or a pipe."""
console = Console(width=None if sys.stdout.isatty() else WIDE)
errors = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line said."""

    config: Config
    files: tuple[Path, ...]
    plan: Plan


def run_bench(
    files: Sequence[Path], *, backend: str, runtime: str, is_quick: bool, as_json: bool, output: Path | None,
    overrides: Sequence[str],
) -> None:  # fmt: skip
    """Measure, then print a table or one JSON object; with `output` also write JSON and picture there."""
    config = configfile.defaults([f'sandbox.backend="{backend}"', f'sandbox.runtime="{runtime}"', *overrides])
    try:
        rows = programs.read_rows(files)
    except BadPrograms as error:
        raise InputError(str(error)) from error
    report = asyncio.run(measure(Asked(config, tuple(files), QUICK if is_quick else FULL), rows))
    if output is not None:
        _write(report, output)
    if as_json:
        sys.stdout.write(to_json(report) + "\n")
    else:
        show(report, console)


async def measure(asked: Asked, rows: Sequence[Row]) -> Report:
    """Everything, the main executor first and alone on the machine."""
    say = _Teller()
    say("looking at the machine")
    host = machine.look()
    image = _image(asked.config)
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    main = await _main(asked, rows, image, say)
    say("cold start")
    cold = [await load.cold_start_s(lambda: make_executor(asked.config.sandbox)) for _ in range(asked.plan.cold_starts)]
    say("docker run")
    docker_run = [
        floors.docker_run_seconds(image, main.samples[0]) for _ in range(asked.plan.docker_runs * bool(image))
    ]
    asides = tuple([await _aside(name, config, main.samples, asked.plan, say) for name, config in _others(asked, host)])
    busy_at_end = machine.busy_share()
    return Report(
        started=started,
        is_quick=asked.plan is not FULL,
        machine=host,
        busy_at_end=busy_at_end,
        isolation=main.isolation,
        workers=_workers(asked.config),
        programs=_told(asked, rows, main.samples),
        comparison=main.comparison,
        cold_start_s=Spread.of(cold),
        docker_run_s=Spread.of(docker_run) if docker_run else None,
        growth=main.growth,
        steps=main.steps,
        num_refused=main.num_refused,
        audit_cost=main.audit_cost,
        asides=asides,
        notes=_notes(image, host, busy_at_end),
        wall_s=say.elapsed_s,
    )


@dataclass(frozen=True, slots=True)
class _Main:
    """What was measured while the main executor ran."""

    isolation: Isolation
    samples: tuple[Sample, ...]
    comparison: Comparison
    growth: Growth | None
    steps: tuple[StepFigures, ...]
    num_refused: int
    audit_cost: Spread


async def _main(asked: Asked, rows: Sequence[Row], image: str, say: _Teller) -> _Main:
    plan, task_types = asked.plan, make_types(asked.config)
    say("starting the executor")
    async with make_executor(asked.config.sandbox) as executor:
        samples = await _small(executor, rows)
        say("memory of the supervisors")
        grown = await _growth(executor, samples, plan.growth_runs)
        compared = await compare(executor, image, samples, cores=machine.usable_cores(), plan=plan, say=say)
        say("audit log")
        block_runs = int(compared.rates[ALL_CORES].median * plan.block_s)
        cost = await audit_cost(executor, samples, rounds=plan.rounds, block_runs=max(20, block_runs))
        say("choosing proposals for the paper-size step")
        game = asked.config.selfplay
        material = await choose(rows, task_types, executor, selfplay=game, seed=SEED)
        steps: list[StepFigures] = []
        for repeat in range(plan.steps):
            say(f"paper-size step {repeat + 1} of {plan.steps}")
            steps.append(await play(material, task_types, executor, selfplay=game, repeat=repeat, seed=SEED))
        found = tuple(samples)
        return _Main(executor.isolation, found, compared, grown, tuple(steps), material.num_refused, cost)


async def _growth(executor: Executor, samples: Sequence[Sample], runs: int) -> Growth | None:
    before = guests.memory(guests.pids(executor))
    jobs = load.jobs_of(samples)
    await executor.run((jobs * (runs // len(jobs) + 1))[:runs])
    return guests.growth(before, guests.memory(guests.pids(executor)), runs)


async def _small(executor: Executor, rows: Sequence[Row]) -> list[Sample]:
    samples = await programs.small_ones(executor, programs.samples_of(rows))
    if not samples:
        raise InputError("none of the programs gives a value within 50 ms: there is nothing to measure with them")
    return samples


async def _aside(name: str, config: Config, samples: Sequence[Sample], plan: Plan, say: _Teller) -> Aside:
    """Another executor, shortly: rate on all cores, latency alone, cold start."""
    say(name)
    try:
        cold = await load.cold_start_s(lambda: make_executor(config.sandbox))
        async with make_executor(config.sandbox) as executor:
            rate, latency = await _shortly(executor, samples, plan)
    except SandboxError as error:
        return Aside(name, None, None, None, f"does not start here: {error}"[:300])
    return Aside(name, rate, latency, Spread.of([cold]), reason="")


async def _shortly(executor: Executor, samples: Sequence[Sample], plan: Plan) -> tuple[Spread, Latency]:
    jobs = load.jobs_of(samples)
    per_s = await load.verdicts_per_s(executor, jobs)
    times = max(1, int(per_s * plan.block_s / len(jobs)))
    rates = [await load.verdicts_per_s(executor, jobs * times) for _ in range(plan.rounds)]
    count = min(plan.latency_runs, 500)
    latency = await load.latencies_s(executor, (jobs * count)[:count], in_flight=1)
    return Spread.of(rates), Latency.of(latency)


def _others(asked: Asked, host: machine.Machine) -> list[tuple[str, Config]]:
    """The other backends and runtimes of this host that the configuration knows."""
    main = (asked.config.sandbox.backend, asked.config.sandbox.runtime)
    wanted = [("docker", ""), *([("docker", "runsc")] if "runsc" in host.runtimes else []), ("jail", "")]
    found: list[tuple[str, Config]] = []
    for backend, runtime in wanted:
        if (backend, runtime) == main or (backend == "docker" and not host.engine):
            continue
        try:
            config = configfile.defaults([f'sandbox.backend="{backend}"', f'sandbox.runtime="{runtime}"'])
        except ConfigError:
            continue  # this version has no such backend
        found.append(("/".join(filter(None, (backend, runtime))), config))
    return found


def _image(config: Config) -> str:
    """The image of the floors: the executor's own, made anew when stale, so that what lies here is measured; empty
    where no engine answers and none is needed."""
    sandbox = config.sandbox
    default = SandboxConfig().image
    try:
        return images.ensure(default) if sandbox.image == default else images.require(sandbox.image)
    except EngineUnavailable:
        if sandbox.backend == "docker":
            raise
        return ""


def _notes(image: str, host: machine.Machine, busy_at_end: float) -> tuple[str, ...]:
    notes = ["the engine's own copying of pipes is not confined to the cores that a block is measured on"]
    if not image:
        notes.append("without a Docker engine there are no floors: programs run nowhere without walls")
    if busy_at_end > machine.MAX_BUSY:
        notes.append(f"the machine was busy at the end ({busy_at_end:.0%} of its cores): others disturbed the figures")
    return (*notes, *filter(None, [host.warning]))


def _told(asked: Asked, rows: Sequence[Row], samples: Sequence[Sample]) -> str:
    names = ", ".join(file.name for file in asked.files) or "the embedded set"
    return f"{names}: {len(samples)} of {len(rows)} programs give a value within 50 ms and are measured"


def _workers(config: Config) -> int:
    return config.sandbox.workers or max(1, (os.cpu_count() or 1) // 2)


def _write(report: Report, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON_FILE).write_text(to_json(report) + "\n", encoding="utf-8")
    try:
        draw(report, folder / PICTURE_FILE)
    except RunError as error:
        errors.print(f"no picture: {error}")
    errors.print(f"written to {folder}", soft_wrap=True)


class _Teller:
    """Says on standard error what is being measured, with the seconds so far."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._begun

    def __call__(self, doing: str) -> None:
        errors.print(f"[{self.elapsed_s:5.0f} s] {doing}", markup=False)
