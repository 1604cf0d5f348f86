"""Runs hostile programs through an executor and decides, from outside and by later runs, what each achieved.

Read `run_matrix`. Cases run one after the other in each seed slot, so that an executor with one worker a slot serves a
case, its probe and the check after it in the same container; an effect on a later run cannot hide in another one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sandbox.doctor.attacks.cases import FOUND, Case, Goal, Observation, Outcome, Verdict, judged
from sandbox.doctor.attacks.stage import Stage
from sandbox.shared.values import decode, encode, same
from sandbox.types import Execution, Executor, Job, Limits, RunResult, Status

LIMITS = Limits(wall_s=1.0, cpu_s=1.0, memory_mib=128)
GRACE_S = 1.0
"""A run or a process of it that is there this long after the limit counts as alive."""
SLOTS = (0, 1)
LATER_RUNS = 2
HEALTH = """import os
def f():
 return [len(os.listdir('/tmp')), len([n for n in os.listdir('/proc') if n.isdigit()])]
"""
"""What a later program finds: files in its scratch folder, processes beside it."""

Progress = Callable[[Verdict], None]


def _silent(verdict: Verdict) -> None:
    del verdict


async def run_matrix(
    executor: Executor,
    cases: Sequence[Case],
    *,
    forbidden: tuple[str, ...] = (),
    limits: Limits = LIMITS,
    progress: Progress = _silent,
) -> list[Verdict]:
    """One verdict a case, in the order of the cases. `executor` has one worker a slot and runs nothing else meanwhile.

    Raises:
        SandboxError: the executor did not survive a case.
    """
    verdicts: dict[int, Verdict] = {}
    with Stage() as stage:
        lane = _Lane(executor, stage, forbidden, limits)
        await lane.learn_what_is_healthy()
        waiting = iter([(place, case) for place, case in enumerate(cases) if case.goal is not Goal.WAVER])

        async def serve(slot: int) -> None:
            for place, case in waiting:
                verdicts[place] = await lane.verdict(case, slot)
                progress(verdicts[place])

        await asyncio.gather(*(serve(slot) for slot in SLOTS))
        for place, case in enumerate(cases):
            if case.goal is Goal.WAVER:
                verdicts[place] = await lane.wavering(case)
                progress(verdicts[place])
    return [verdicts[place] for place in range(len(cases))]


def counts(verdicts: Sequence[Verdict]) -> dict[str, dict[Outcome, int]]:
    """How many cases of each family ended how, every outcome named."""
    families = sorted({verdict.case.family for verdict in verdicts})
    return {
        family: {
            outcome: sum(each.outcome is outcome for each in verdicts if each.case.family == family)
            for outcome in Outcome
        }
        for family in families
    }


@dataclass
class _Lane:
    """The executor with what is planted around it."""

    executor: Executor
    stage: Stage
    forbidden: tuple[str, ...]
    limits: Limits

    async def learn_what_is_healthy(self) -> None:
        found = [decode((await self._run(HEALTH, slot)).value) for slot in (*SLOTS, *SLOTS)]
        self.most_files = max(files for files, _ in found)
        self.most_processes = max(processes for _, processes in found)

    async def verdict(self, case: Case, slot: int) -> Verdict:
        """The case alone in its slot, then its probe, then a look at what a later program finds."""
        job = self._job(case, slot)
        started = time.monotonic()
        execution = await self._execution(job)
        elapsed_s = time.monotonic() - started
        run = execution.results[0]
        is_found = bool(case.probe) and (await self._run(self.stage.fitted(case.probe), slot)).value == FOUND
        after = await self._after(slot) or _downfall(run)
        is_overdue = after == "processes" or self._is_overdue(execution, elapsed_s)
        seen = Observation(
            status=str(run.status),
            accepted=run.ok and run.is_repeatable,
            value=run.value,
            correct=run.ok and same(decode(run.value), self.stage.gold),
            is_overdue=is_overdue,
            harm=self.stage.harm() or (after if after not in ("", "processes") else ""),
            is_found=is_found,
        )
        return judged(case, seen)

    async def wavering(self, case: Case) -> Verdict:
        """As the gate does it: both slots, two calls in each. What passes is run again, and must still agree."""
        jobs = [self._job(case, slot) for slot in SLOTS]
        runs = [execution.results[0] for execution in await self.executor.run(jobs)]
        run = next((run for run in runs if not run.ok), runs[0])
        is_accepted = all(run.ok and run.is_repeatable for run in runs) and _agree(runs)
        later: list[RunResult] = []
        if is_accepted:
            later = [(await self._execution(job)).results[0] for job in jobs * LATER_RUNS]
        has_wavered = is_accepted and not (case.may_be_constant and _agree([*runs, *later]))
        value = run.value if is_accepted else ""
        return judged(case, Observation(str(run.status), is_accepted, value, has_wavered=has_wavered))

    def _job(self, case: Case, slot: int) -> Job:
        program = self.stage.fitted(case.program)
        return Job(program, (case.input,), limits=self.limits, forbidden=self.forbidden, seed_slot=slot)

    async def _execution(self, job: Job) -> Execution:
        [execution] = await self.executor.run([job])
        return execution

    async def _run(self, program: str, slot: int) -> RunResult:
        return (await self._execution(Job(program, ("",), seed_slot=slot))).results[0]

    async def _after(self, slot: int) -> str:
        """What a later program finds amiss: `processes`, something else in words, or nothing."""
        for _ in range(2):
            run = await self._run(HEALTH, slot)
            if not run.ok:
                return f"a later program fails: {run.status} {run.error[:80]}"
            files, processes = decode(run.value)
            if files > self.most_files:
                return f"a later program finds {files - self.most_files} files"
            if processes <= self.most_processes:
                return ""
            await asyncio.sleep(GRACE_S)
        return "processes"

    def _is_overdue(self, execution: Execution, elapsed_s: float) -> bool:
        """By the supervisor's clock; by ours only where it stopped the whole job and had to be waited for."""
        allowed_s = 2 * self.limits.wall_s + GRACE_S  # the limit is that of one call, and a run makes two
        return execution.wall_s > allowed_s or elapsed_s > allowed_s + 10


def _downfall(run: RunResult) -> str:
    """A container that went down was the neighbours' as well; the text is the pool's, a program's own has a type."""
    return run.error if run.status is Status.KILLED and "container down" in run.error else ""


def _agree(runs: Sequence[RunResult]) -> bool:
    values = [encode(decode(run.value)) if run.ok else str(run.status) for run in runs]
    return all(value == values[0] for value in values)
