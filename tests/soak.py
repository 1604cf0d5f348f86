"""Runs many good and hostile programs and checks for leaks. For a long run: `python -m tests.soak --runs 100000`.

The values of good programs are compared with the expected ones. Resources that could leak are counted after the first
batch, after the last batch, and after the executor has closed. Exit code 1 means that a run was lost, a value was
wrong, an attack succeeded, or a resource grew beyond `BOUNDS`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

import docker
from docker.models.containers import Container

from sandbox import (
    DockerExecutor,
    EngineUnavailable,
    Execution,
    Executor,
    JailExecutor,
    Job,
    Limits,
    SandboxError,
    Status,
)
from sandbox.docker import image
from sandbox.docker.backend import OWNER_LABEL
from sandbox.docker.engine import connect
from sandbox.doctor.attacks import CASES
from sandbox.doctor.attacks.cases import FORGED, REACHED, Case
from sandbox.host.container import SCRATCH, owner
from sandbox.host.image_files import ENTRYPOINT
from sandbox.jail import cgroup

GOOD: tuple[tuple[str, str, str], ...] = (
    ("def f(x):\n    return x + 1", "41", "42"),
    ("def f(words):\n    return sorted(set(words), key=len)", "['abc', 'a', 'ab', 'a']", "['a', 'ab', 'abc']"),
    ("from collections import Counter\ndef f(text):\n    return Counter(text)", "'aab'", "Counter({'a': 2, 'b': 1})"),
    ("def f(n):\n    return f(n - 1) + f(n - 2) if n > 1 else n", "12", "144"),
    ("import re\ndef f(text):\n    return re.findall(r'\\d+', text)", "'a1b22'", "['1', '22']"),
    ("class A:\n    x = 3\n\ndef f(y, *, z=1):\n    return {'sum': A.x + y + z}", "1, z=2", "{'sum': 6}"),
    ("from fractions import Fraction\ndef f(a, b):\n    return Fraction(a, b)", "6, 4", "Fraction(3, 2)"),
    ("def f(x):\n    return {i % 3 for i in range(x)}", "10", "{0, 1, 2}"),
    ("def f(n):\n    return 'ab' * n", "2000", repr("ab" * 2000)),
    ("def f(x):\n    try:\n        return 1 / x\n    except ZeroDivisionError:\n        return None", "0", "None"),
    ("import math\ndef f(x):\n    return [math.sqrt(i) for i in range(x)]", "5", repr([i**0.5 for i in range(5)])),
    ("def f(m):\n    return [list(r) for r in zip(*m)]", "[[1, 2], [3, 4]]", "[[1, 3], [2, 4]]"),
)
HOSTILE = tuple(case for case in CASES if "@" not in case.program + case.input)
PATIENT, SHORT = Limits(wall_s=30, cpu_s=10), Limits(wall_s=0.3, cpu_s=0.3, memory_mib=128)
PROGRESS_S = 5.0
MIB = 1 << 20


SDK_CONNECTIONS = 50
"""The Docker SDK keeps 25 idle ones for each of two clients, and takes a while to make them."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """The resources that the sandbox uses; each may grow by its bound."""

    host_descriptors: int
    host_rss_mib: int
    host_threads: int
    host_children: int
    containers: int
    control_groups: int
    supervisor_rss_mib: int
    """Of the largest."""
    supervisor_descriptors: int
    processes_inside: int
    files_in_scratch: int
    entries_in_tmp: int
    """Of the host; other processes write there too."""


BOUNDS = Footprint(
    host_descriptors=SDK_CONNECTIONS,
    host_rss_mib=64,
    host_threads=8,
    host_children=0,
    containers=0,
    control_groups=0,
    supervisor_rss_mib=3,
    supervisor_descriptors=0,
    processes_inside=0,
    files_in_scratch=0,
    entries_in_tmp=1000,
)


@dataclass(slots=True)
class Tally:
    """The results so far."""

    started: float = field(default_factory=time.monotonic)
    asked: int = 0
    answered: int = 0
    wrong: list[str] = field(default_factory=list[str])
    good: Counter[Status] = field(default_factory=Counter[Status])
    hostile: Counter[Status] = field(default_factory=Counter[Status])
    denied: int = 0

    @property
    def lost(self) -> int:
        return self.asked - self.answered

    def line(self) -> str:
        took_s = time.monotonic() - self.started
        return f"{self.answered} runs, {self.answered / took_s:.0f}/s, {self.lost} lost, {len(self.wrong)} wrong"


@dataclass(frozen=True, slots=True)
class Run:
    """One job, and a function that says what is wrong with its execution; empty if nothing is."""

    job: Job
    is_hostile: bool
    fault: Callable[[Execution], str]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to run."""

    runs: int
    batch: int
    hostile: float
    """Share of hostile programs."""


async def soak(executor: Executor, plan: Plan, tally: Tally, rng: random.Random) -> None:
    """Run all of the plan, in batches.

    Raises:
        SandboxError: the sandbox failed.
    """
    shown = time.monotonic()
    while tally.asked < plan.runs:
        drawn = [draw(rng, plan.hostile, slot=place % 2) for place in range(min(plan.batch, plan.runs - tally.asked))]
        tally.asked += len(drawn)
        for run, execution in zip(drawn, await executor.run([run.job for run in drawn]), strict=True):
            count(tally, run, execution)
        if time.monotonic() - shown > PROGRESS_S:
            shown = time.monotonic()
            print(tally.line(), flush=True)


def draw(rng: random.Random, hostile: float, *, slot: int) -> Run:
    if rng.random() < hostile:
        case = rng.choice(HOSTILE)
        job = Job(case.program, (case.input,), limits=SHORT, seed_slot=slot)
        return Run(job, True, lambda execution: attack_fault(case, execution))
    program, argument, expected = rng.choice(GOOD)
    job = Job(program, (argument,), limits=PATIENT, seed_slot=slot)
    return Run(job, False, lambda execution: value_fault(expected, execution))


def value_fault(expected: str, execution: Execution) -> str:
    [run] = execution.results
    right = run.ok and run.value == expected and run.is_repeatable
    return "" if right else f"expected {expected[:80]}, got {run.status} {run.value[:80]} {run.error[:200]}"


def attack_fault(case: Case, execution: Execution) -> str:
    [run] = execution.results
    is_held = run.value not in (FORGED, REACHED) or run.value in case.honest
    return "" if is_held else f"{case.title}: {run.value}"


def count(tally: Tally, run: Run, execution: Execution) -> None:
    tally.answered += 1
    tally.denied += execution.denied
    (tally.hostile if run.is_hostile else tally.good)[execution.status] += 1
    if fault := run.fault(execution):
        tally.wrong.append(fault)


def footprint(supervisors: Sequence[int]) -> Footprint:
    """The current resources, after Python has collected its garbage."""
    gc.collect()
    return Footprint(
        host_descriptors=descriptors(os.getpid()),
        host_rss_mib=rss_mib(os.getpid()),
        host_threads=threading.active_count(),
        host_children=sum(parent == os.getpid() for _, parent in processes()),
        containers=len(own_containers()),
        control_groups=len(own_groups()),
        supervisor_rss_mib=max(map(rss_mib, supervisors), default=0),
        supervisor_descriptors=max(map(descriptors, supervisors), default=0),
        processes_inside=sum(map(processes_beside, supervisors)),
        files_in_scratch=sum(map(files_in_scratch, supervisors)),
        entries_in_tmp=len(list(Path(tempfile.gettempdir()).iterdir())),
    )


async def settled(executor: Executor) -> tuple[list[int], Footprint]:
    """The running supervisors and the footprint; measured again if a supervisor ends meanwhile."""
    while True:
        supervisors = [number for number in supervisors_of(executor) if Path(f"/proc/{number}/root/tmp").exists()]
        try:
            return supervisors, footprint(supervisors)
        except FileNotFoundError:
            await asyncio.sleep(0.1)


def supervisors_of(executor: Executor) -> list[int]:
    """The supervisors of this process's guests, as the host numbers them."""
    if executor.isolation.backend == "docker":
        with closing(connect()) as client:
            return [int(cast(Any, one).attrs["State"]["Pid"]) for one in containers_of_this_process(client)]
    children: dict[int, list[int]] = {}
    for number, parent in processes():
        children.setdefault(parent, []).append(number)
    found, waiting = list[int](), list(children.get(os.getpid(), ()))
    while waiting:
        number = waiting.pop()
        if is_supervisor(number):
            found.append(number)
        else:
            waiting += children.get(number, ())
    return found


def descriptors(process: int) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def rss_mib(process: int) -> int:
    return round(int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB)


def processes() -> Iterator[tuple[int, int]]:
    """Every process of the host and its parent."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            yield int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])


def processes_beside(supervisor: int) -> int:
    """Processes in its namespace, including itself and processes that were not reaped."""
    inside = Path(f"/proc/{supervisor}/ns/pid").stat().st_ino
    return sum(space == inside for space in process_spaces())


def process_spaces() -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/ns/pid"):
        with suppress(OSError):
            yield path.stat().st_ino


def files_in_scratch(supervisor: int) -> int:
    folders = [Path(f"/proc/{supervisor}/root{scratch}") for scratch in SCRATCH.values()]
    return sum(len(list(folder.iterdir())) for folder in folders)


def own_containers() -> list[str]:
    try:
        client = connect()
    except EngineUnavailable:  # a host with jails only
        return []
    with closing(client):
        return [str(container.id) for container in containers_of_this_process(client)]


def containers_of_this_process(client: docker.DockerClient) -> list[Container]:
    return client.containers.list(all=True, filters={"label": f"{OWNER_LABEL}={owner()}"}, ignore_removed=True)


def own_groups() -> list[Path]:
    places = cgroup.find()
    if isinstance(places, str):
        return []
    return [path for folder in set(places.folders.values()) for path in folder.glob(f"{cgroup.PREFIX}{owner()}-*")]


@dataclass(frozen=True, slots=True)
class Measured:
    """The footprint after the first and after the last batch, and what was left when the executor had closed."""

    before: Footprint
    after: Footprint
    left: tuple[str, ...]

    @property
    def leaks(self) -> list[str]:
        return [f"{name} grew from {was} to {now}" for name, was, now, bound in self.rows() if now - was > bound] + [
            f"left behind: {what}" for what in self.left
        ]

    def rows(self) -> list[tuple[str, int, int, int]]:
        """Name, before, after, bound."""
        numbers = zip(astuple(self.before), astuple(self.after), astuple(BOUNDS), strict=True)
        return [(one.name, *each) for one, each in zip(fields(Footprint), numbers, strict=True)]


async def measured(executor: Executor, plan: Plan, tally: Tally, rng: random.Random) -> Measured:
    """Run the soak and measure its resources."""
    at_first, own_at_first = descriptors(os.getpid()), belongings()
    async with executor:
        await soak(executor, Plan(min(plan.batch, plan.runs), plan.batch, plan.hostile), tally, rng)
        _, before = await settled(executor)
        await soak(executor, plan, tally, rng)
        supervisors, after = await settled(executor)
    gc.collect()
    left = sorted(belongings() - own_at_first)
    if not own_at_first:
        left += [f"supervisor {number}" for number in supervisors if is_supervisor(number)]
    if (more := descriptors(os.getpid()) - at_first) > 0:
        left.append(f"descriptors of the host: {more}")
    return Measured(before, after, tuple(left))


def belongings() -> set[str]:
    """Containers and control groups of this process."""
    return {f"container {name}" for name in own_containers()} | {f"control group {path}" for path in own_groups()}


def is_supervisor(number: int) -> bool:
    try:
        words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"python" in words[0] and ENTRYPOINT[-1].encode() in words


def report(tally: Tally, seen: Measured) -> int:
    """Print the results and return the exit code."""
    print(f"{tally.line()}, {tally.denied} ended for a denied system call")
    for name, statuses in (("good", tally.good), ("hostile", tally.hostile)):
        print(f"{name}: " + ", ".join(f"{status} {number}" for status, number in sorted(statuses.items())))
    print(f"{'':24}{'first batch':>12}{'last batch':>12}{'may grow':>12}")
    for name, was, now, bound in seen.rows():
        print(f"{name.replace('_', ' '):24}{was:12}{now:12}{bound:12}")
    faults = [*map(repr, tally.wrong[:20]), *seen.leaks]
    print("\n".join(faults) if faults else "nothing lost, nothing wrong, nothing leaked")
    return 1 if faults or tally.lost else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--hostile", type=float, default=0.02, help="share of hostile programs, 0 to 1")
    parser.add_argument("--backend", choices=["docker", "jail"], default="docker")
    parser.add_argument("--runtime", help="runtime of the Docker engine, e.g. runsc")
    parser.add_argument("--workers", type=int, default=1, help="guests per seed slot")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    tally, rng = Tally(), random.Random(asked.seed)
    try:
        executor = (
            JailExecutor(workers=asked.workers)
            if asked.backend == "jail"
            else DockerExecutor(image.ensure(), workers=asked.workers, runtime=asked.runtime)
        )
        seen = asyncio.run(measured(executor, Plan(asked.runs, asked.batch, asked.hostile), tally, rng))
    except SandboxError as error:
        print(f"{tally.line()}: the sandbox failed: {error!r}")
        return 1
    return report(tally, seen)


if __name__ == "__main__":
    sys.exit(main())
