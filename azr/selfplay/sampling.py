"""Sampling and checking side by side: the sandbox works while the policy samples."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from azr.selfplay.clock import StageClock
from azr.types import Completion, Generate, Prompt

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """How completions are sampled, and which stages of the clock sampling and checking take."""

    sampling: str
    checking: str
    clock: StageClock
    num_samples: int
    """Completions per prompt."""
    stream: str
    """Names the random numbers, together with the task type; see `Generate`."""


async def sample_and_check(
    generate: Generate,
    prompts: Sequence[Prompt],
    check: Callable[[int, Completion], Coroutine[Any, Any, V]],
    plan: SamplingPlan,
) -> list[list[V]]:
    """What `check` made of each prompt's completions: one call of the policy per task type, checked during the next.

    The last type goes first: induction runs the most programs, so most of them run while the other types are sampled.
    `check` gets the index of the prompt and one completion.
    """
    found: dict[int, list[V]] = {}

    async def play(task_type: str) -> None:
        indices = [index for index, prompt in enumerate(prompts) if prompt.cell.task_type == task_type]
        with plan.clock.stage(plan.sampling):
            groups = await generate(
                [prompts[index].text for index in indices], plan.num_samples, f"{plan.stream} {task_type}"
            )
        with plan.clock.stage(plan.checking):
            async with together() as checking:
                checks = {
                    index: [checking.create_task(check(index, completion)) for completion in group]
                    for index, group in zip(indices, groups, strict=True)
                }
        found.update({index: [one.result() for one in group] for index, group in checks.items()})

    async with together() as sampling:
        for task_type in reversed(dict.fromkeys(prompt.cell.task_type for prompt in prompts)):
            sampling.create_task(play(task_type))
    return [found[index] for index in range(len(prompts))]


@asynccontextmanager
async def together() -> AsyncGenerator[asyncio.TaskGroup]:
    """A task group whose first failure cancels and awaits the others, and is then raised by itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        first = failures.exceptions[0]
    else:
        return
    raise first
