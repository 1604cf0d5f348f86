"""Runs a proposal often enough, and in different enough processes, to call it deterministic."""

from __future__ import annotations

import functools

from azr.errors import Malformed, Rejected
from azr.tasks.base import Proposal, Rules
from azr.tasks.source import parse
from azr.types import Example
from sandbox.shared.screen import forbidden_in
from sandbox.shared.values import decode_arguments, same, same_text
from sandbox.types import Executor, Job, RunResult, Status


async def fair_runs(proposal: Proposal, executor: Executor, rules: Rules) -> tuple[Example, ...]:
    """One example per input: two calls in each of two fresh processes gave the same value.

    The processes differ in hash seed, process id, working directory, time zone, date and memory layout; a program with
    several inputs sees them in opposite orders. Verifying an answer runs it in the same way, in one of the two.

    Raises:
        Rejected: an input or the program failed (the reason is its status), or the calls disagreed.
        SandboxError: the sandbox failed.
    """
    if _uses_forbidden(proposal.program, rules.forbidden):
        raise Rejected(str(Status.FORBIDDEN))
    jobs = [
        Job(
            program=proposal.program,
            inputs=proposal.inputs,
            limits=rules.limits,
            seed_slot=slot,
            together=len(proposal.inputs) > 1,
        )
        for slot in (0, 1)
    ]
    first, second = await executor.run(jobs)
    return tuple(_example(a, b, rules=rules) for a, b in zip(first.results, second.results, strict=True))


@functools.lru_cache(maxsize=4096)
def _uses_forbidden(program: str, forbidden: tuple[str, ...]) -> bool:
    """The static check, done here because a process of its own in the sandbox would cost as much as a run."""
    try:
        return forbidden_in(parse(program), forbidden) is not None
    except RecursionError as error:
        raise Malformed("syntax_error") from error


def _example(first: RunResult, second: RunResult, *, rules: Rules) -> Example:
    if not (first.ok or second.ok):
        raise Rejected(str(first.status))
    for run in (first, second):
        if not run.ok and run.status in (Status.TIMEOUT, Status.MEMORY):
            raise Rejected(str(run.status))  # the program is near the limit: only one of the runs reached it
    if first.status is not second.status or not (first.is_repeatable and second.is_repeatable):
        raise Rejected("nondeterministic")
    if not (_same_input(first.input, second.input, rules) and same_text(first.value, second.value, rules.is_strict)):
        raise Rejected("nondeterministic")
    return Example(first.input, first.value)


def _same_input(left: str, right: str, rules: Rules) -> bool:
    return left == right or same(decode_arguments(left), decode_arguments(right), strict=rules.is_strict)
