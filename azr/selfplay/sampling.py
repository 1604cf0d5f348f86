"""Sampling and judging side by side: the sandbox works while the policy does, and nobody is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from azr.selfplay.clock import StageClock
from azr.types import Completion, Prompt

V = TypeVar("V")


class Generate(Protocol):
    """The policy as the game sees it."""

    async def __call__(self, prompts: Sequence[str], num_samples: int, stream: str = "") -> list[list[Completion]]:
        """`num_samples` completions a prompt, in the order of the prompts.

        `stream` names the random numbers; without a name, what is drawn depends on how many calls came before.
        """
        ...


@dataclass(frozen=True, slots=True)
class Stage:
    """How completions of one kind are sampled, and what the clock calls that."""

    sampling: str
    judging: str
    clock: StageClock
    num_samples: int
    """Completions a prompt."""
    stream: str
    """See `Generate`."""


async def sample_and_judge(
    generate: Generate,
    prompts: Sequence[Prompt],
    judge: Callable[[int, Completion], Coroutine[Any, Any, V]],
    stage: Stage,
) -> list[list[tuple[Completion, V]]]:
    """Judged completions of each prompt: one batch a task type, each judged while the next one is sampled.

    The last type goes first: induction's programs run most, so that most of them run behind the other types'
    sampling. `judge` gets the prompt's place and one completion.
    """
    found: dict[int, list[tuple[Completion, V]]] = {}

    async def play(task_type: str) -> None:
        places = [place for place, prompt in enumerate(prompts) if prompt.cell.task_type == task_type]
        stream = stage.stream and f"{stage.stream} {task_type}"
        with stage.clock.stage(stage.sampling):
            groups = await generate([prompts[place].text for place in places], stage.num_samples, stream)
        with stage.clock.stage(stage.judging):
            async with together() as judging:
                pairs = [
                    (place, completion, judging.create_task(judge(place, completion)))
                    for place, group in zip(places, groups, strict=True)
                    for completion in group
                ]
        for place, completion, judged in pairs:
            found.setdefault(place, []).append((completion, judged.result()))

    async with together() as sampling:
        for task_type in reversed(dict.fromkeys(prompt.cell.task_type for prompt in prompts)):
            sampling.create_task(play(task_type))
    return [found[place] for place in range(len(prompts))]


@asynccontextmanager
async def together() -> AsyncGenerator[asyncio.TaskGroup]:
    """A task group whose first failure cancels and awaits the others, and then travels as itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        first = failures.exceptions[0]
    else:
        return
    raise first
