"""An executor and its floors in one run, block after block in turns. Read `compare` first.

This kind of machine is noisy: what is compared is measured in neighbouring blocks, in an order that is turned round
each time, and a ratio is the median over the rounds' own ratios.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from sandbox.bench import floors, guests, load
from sandbox.bench.floors import FloorContainer, Pace
from sandbox.bench.programs import Sample
from sandbox.bench.statistics import Latency, Spread, paired_ratio
from sandbox.types import Executor

Say = Callable[[str], None]
Block = Callable[[], Awaitable[Pace]]

ONE_CORE, ONE_CORE_SERVICE, ALL_CORES = "one core", "one core, host included", "all cores"
FLOOR_ONE, FLOOR_ALL = "bare fork, one core", "bare fork, all cores"
FRESH_ONE = "fresh Python in a container, one core"
BUSY_ONE, BUSY_ALL = "busy loop, one core", "busy loop, all cores"
SERVICES = (ONE_CORE, ONE_CORE_SERVICE, ALL_CORES)
ALONE, LOADED, BARE = "one in flight", "one in flight a core", "bare fork, inside"
SEED = 20250506


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int
    block_s: float
    """About how long one block takes."""
    latency_runs: int
    growth_runs: int
    """Runs over which the supervisors' memory is watched; fewer than a container serves before it is replaced."""
    cold_starts: int
    docker_runs: int
    steps: int
    """Repeats of the paper-size step."""


FULL = Plan(rounds=9, block_s=0.8, latency_runs=1500, growth_runs=4000, cold_starts=5, docker_runs=10, steps=5)
QUICK = Plan(rounds=3, block_s=0.3, latency_runs=200, growth_runs=500, cold_starts=1, docker_runs=2, steps=1)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rates a second by way, ratios of neighbouring blocks, and latencies."""

    rates: dict[str, Spread]
    """Verdicts a second; for the busy loop, rounds a second."""
    cpu_ms: dict[str, Spread]
    """Processor time of one verdict inside the guests or the floor, by way; that of the host's part in `host_cpu_ms`.
    Strangers on the machine disturb it less than a rate."""
    host_cpu_ms: dict[str, Spread]
    ratios: dict[str, Spread]
    latencies: dict[str, Latency]
    num_samples: int


async def compare(
    executor: Executor, image: str, samples: Sequence[Sample], *, cores: Sequence[int], plan: Plan, say: Say
) -> Comparison:
    """Rates and latencies of a running executor beside the floors; leaves guests and host on all cores again.

    Without an image (where no engine answers) there are no floors: their programs would run without walls.
    """
    with ExitStack() as stack:
        containers = [stack.enter_context(FloorContainer(image, core)) for core in reversed(cores if image else ())]
        contest = _Contest(executor, containers, _mixed(samples), cores, plan)
        try:
            blocks = await contest.blocks()
            paces = await _in_turns(blocks, plan.rounds, say)
            latencies = await contest.latencies(say)
        finally:
            contest.unpin()
    return Comparison(
        rates={name: Spread.of([one.per_s for one in each]) for name, each in paces.items()},
        cpu_ms={
            n: Spread.of([one.cpu_ms for one in each]) for n, each in paces.items() if n not in (BUSY_ONE, BUSY_ALL)
        },
        host_cpu_ms={n: Spread.of([one.host_cpu_ms for one in each]) for n, each in paces.items() if n in SERVICES},
        ratios=ratios(paces),
        latencies=latencies,
        num_samples=len(samples),
    )


def ratios(paces: Mapping[str, Sequence[Pace]]) -> dict[str, Spread]:
    """What the targets are about, each from neighbouring blocks."""
    rates = {name: [one.per_s for one in each] for name, each in paces.items()}
    pairs = {
        "to the floor, one core": (ONE_CORE, FLOOR_ONE),
        "to the floor, all cores": (ALL_CORES, FLOOR_ALL),
        "to a fresh Python": (ONE_CORE, FRESH_ONE),
        "scaling": (ALL_CORES, ONE_CORE_SERVICE),
        "scaling of the floor": (FLOOR_ALL, FLOOR_ONE),
        "scaling of a busy loop": (BUSY_ALL, BUSY_ONE),
    }
    found = {
        name: paired_ratio(rates[one], rates[other])
        for name, (one, other) in pairs.items()
        if one in rates and other in rates
    }
    if FLOOR_ONE in paces:
        ours, floor = ([one.cpu_ms for one in paces[name]] for name in (ONE_CORE, FLOOR_ONE))
        found["CPU to the floor"] = paired_ratio(ours, floor)
    return found


class _Contest:
    """The blocks that take turns; each pins what it measures before its clock starts."""

    def __init__(
        self,
        executor: Executor,
        containers: Sequence[FloorContainer],
        samples: Sequence[Sample],
        cores: Sequence[int],
        plan: Plan,
    ) -> None:
        self._executor = executor
        self._containers = containers
        self._samples = samples
        self._cores = cores
        self._plan = plan

    async def blocks(self) -> dict[str, Block]:
        """Every way with a block of about the planned length."""
        one, all_ = self._containers[:1], self._containers
        core, others = self._cores[-1:], self._cores[:-1] or self._cores
        serve = {
            ONE_CORE: (core, others, (0,)),
            ONE_CORE_SERVICE: (core, core, (0,)),
            ALL_CORES: (self._cores, self._cores, (0, 1)),
        }
        blocks: dict[str, Block] = {}
        for name, (guest_cores, host_cores, slots) in serve.items():
            blocks[name] = await self._sized(self._service(guest_cores, host_cores, slots))
        if not all_:
            return blocks
        for name, way, containers in ((FLOOR_ONE, "fork", one), (FLOOR_ALL, "fork", all_), (FRESH_ONE, "fresh", one)):
            blocks[name] = await self._sized(self._floor(containers, way))
        for name, containers in ((BUSY_ONE, one), (BUSY_ALL, all_)):
            blocks[name] = await self._sized(self._busy(containers), start=100_000)
        return blocks

    def unpin(self) -> None:
        os.sched_setaffinity(0, self._cores)
        guests.pin(self._executor, self._cores)

    async def latencies(self, say: Say) -> dict[str, Latency]:
        """Alone, with one in flight a core, and of the bare fork inside."""
        say("latency")
        self.unpin()
        jobs = load.jobs_of(self._cycled(self._plan.latency_runs))
        alone = await load.latencies_s(self._executor, jobs, in_flight=1)
        loaded = await load.latencies_s(self._executor, jobs, in_flight=len(self._cores))
        found = {ALONE: alone, LOADED: loaded}
        if self._containers:
            found[BARE] = floors.seconds_each(self._containers[0], "fork", self._cycled(self._plan.latency_runs))
        return {name: Latency.of(seconds) for name, seconds in found.items()}

    async def _sized(self, measure: Callable[[int], Awaitable[Pace]], start: int = 40) -> Block:
        """The block with as many runs as its planned length takes, found by a short trial that also warms it up."""
        trial = await measure(start)
        count = max(10, int(trial.per_s * self._plan.block_s))

        async def block() -> Pace:
            return await measure(count)

        return block

    def _service(
        self, guest_cores: Sequence[int], host_cores: Sequence[int], slots: Sequence[int]
    ) -> Callable[[int], Awaitable[Pace]]:
        async def measure(count: int) -> Pace:
            guests.pin(self._executor, guest_cores)
            os.sched_setaffinity(0, host_cores)
            jobs, first_processes = load.jobs_of(self._cycled(count), slots=slots), guests.pids(self._executor)
            guest_s, host_s = guests.cpu_s(first_processes), time.process_time()
            per_s = await load.verdicts_per_s(self._executor, jobs)
            host_s, guest_s = time.process_time() - host_s, guests.cpu_s(first_processes) - guest_s
            return Pace(per_s, 1000 * guest_s / count, 1000 * host_s / count)

        return measure

    def _floor(self, containers: Sequence[FloorContainer], way: str) -> Callable[[int], Awaitable[Pace]]:
        async def measure(count: int) -> Pace:
            return floors.pace(containers, way, self._cycled(max(1, count // len(containers))))

        return measure

    def _busy(self, containers: Sequence[FloorContainer]) -> Callable[[int], Awaitable[Pace]]:
        async def measure(count: int) -> Pace:
            return floors.busy_pace(containers, max(1, count // len(containers)))

        return measure

    def _cycled(self, count: int) -> list[Sample]:
        return list(itertools.islice(itertools.cycle(self._samples), count))


async def _in_turns(blocks: dict[str, Block], rounds: int, say: Say) -> dict[str, list[Pace]]:
    """One block of each a round, forwards and backwards in turn."""
    paces: dict[str, list[Pace]] = {name: [] for name in blocks}
    for number in range(rounds):
        say(f"rates, round {number + 1} of {rounds}")
        order = list(blocks) if number % 2 == 0 else list(reversed(blocks))
        for name in order:
            paces[name].append(await blocks[name]())
    return paces


def _mixed(samples: Sequence[Sample]) -> list[Sample]:
    mixed = list(samples)
    random.Random(SEED).shuffle(mixed)
    return mixed
