"""A job as the forks that it takes: policy, inputs, calls. Read `execute` first.

The static policy and inputs that are not written out get forks of their own, before and apart from the program; a call
looks the same whether a proposal is validated or an answer judged: fresh fork, same limits, two calls an input.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sandbox.host import readback
from sandbox.host.readback import Handed
from sandbox.host.remembering import remembers_short_texts
from sandbox.shared import wire
from sandbox.shared.values import NotAValue, NotCanonical
from sandbox.shared.wire import CALLS, Kind
from sandbox.types import Execution, Job, Limits, RunResult, Status


@dataclass(frozen=True, slots=True)
class Fork:
    """What one fork is to do; see `wire.Kind` for the texts."""

    kind: Kind
    texts: tuple[str | bytes, ...]
    inputs: int
    limits: Limits
    seed_slot: int

    @property
    def wanted(self) -> int:
        """Lines that it hands over when all goes well."""
        return CALLS * self.inputs if self.kind is Kind.CALL else 1


Ask = Callable[[Fork], Awaitable[Handed]]
"""Has a fork done; raises SandboxError."""


async def execute(job: Job, ask: Ask, inspect: Ask) -> Execution:
    """What became of the job. `inspect` may remember: the policy's verdict depends on the texts alone.

    Raises:
        SandboxError: the sandbox failed.
    """
    spent: list[Handed] = []

    async def spending(fork: Fork) -> Handed:
        handed = await ask(fork)
        spent.append(handed)
        return handed

    if job.forbidden and not (verdict := await inspect(_inspection(job))).ok:
        return _execution([RunResult(verdict.status, "", "", verdict.error) for _ in job.inputs], [verdict])
    evaluated = await asyncio.gather(*(_evaluated(job, text, spending) for text in job.inputs))
    results = await (_called_together if job.together else _called_apart)(job, evaluated, spending)
    return _execution(results, spent)


def _execution(results: list[RunResult], spent: list[Handed]) -> Execution:
    return Execution(
        status=next((result.status for result in results if not result.ok), Status.OK),
        results=tuple(results),
        wall_s=sum(handed.wall_s for handed in spent),
        cpu_s=sum(handed.cpu_s for handed in spent),
        peak_memory_mib=max((handed.peak_memory_mib for handed in spent), default=0.0),
        output_bytes=sum(handed.output_bytes for handed in spent),
        denied=sum(handed.was_denied for handed in spent),
    )


def _inspection(job: Job) -> Fork:
    return Fork(Kind.INSPECT, (job.program, *job.forbidden), inputs=0, limits=job.limits, seed_slot=0)


async def _evaluated(job: Job, text: str, ask: Ask) -> RunResult:
    """The canonical argument list as `input`, read where it is written out already, else evaluated in the sandbox."""
    try:
        return RunResult(Status.OK, _canonical(text, job.limits.output_bytes), "", "")
    except (NotCanonical, NotAValue):
        handed = await ask(Fork(Kind.EVALUATE, (text,), inputs=0, limits=job.limits, seed_slot=job.seed_slot))
    try:
        if handed.ok:
            return RunResult(Status.OK, _canonical(handed.texts[0], job.limits.output_bytes), "", "")
    except (NotCanonical, NotAValue) as error:
        return RunResult(Status.NOT_A_VALUE, "", "", f"input: {error}")
    return RunResult(handed.status, "", "", f"input: {handed.error}")


_canonical = remembers_short_texts(readback.canonical_arguments)
_packed = remembers_short_texts(wire.packed_arguments)


async def _called_apart(job: Job, evaluated: list[RunResult], ask: Ask) -> list[RunResult]:
    """Every input in a fork of its own."""

    async def one(given: RunResult) -> RunResult:
        return (await _call(job, (given.input,), ask))[0] if given.ok else given

    return await asyncio.gather(*(one(given) for given in evaluated))


async def _called_together(job: Job, evaluated: list[RunResult], ask: Ask) -> list[RunResult]:
    """All inputs in one fork, unless one of them is no input. The slots see them in opposite orders, so that a program
    that keeps count gives itself away."""
    if not job.inputs or not all(given.ok for given in evaluated):
        return evaluated
    order = -1 if job.seed_slot else 1
    return (await _call(job, tuple(given.input for given in evaluated)[::order], ask))[::order]


async def _call(job: Job, inputs: tuple[str, ...], ask: Ask) -> list[RunResult]:
    texts = (job.entry, job.program, *(_packed(text) for text in inputs))
    fork = Fork(Kind.CALL, texts, inputs=len(inputs), limits=job.limits, seed_slot=job.seed_slot)
    return readback.called(job, inputs, await ask(fork))
