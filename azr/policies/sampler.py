"""Who continues prompts for a local policy: the learner's own model with `transformers`, or an engine beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Protocol, TypeVar

from azr.errors import PolicyError
from azr.policies.base import Sampling
from azr.policies.generation import Continuation, Markers, continue_batch
from azr.policies.loading import LoadedModel
from azr.policies.randomness import Stream
from azr.policies.thinking import Steps, closing_steps

Value = TypeVar("Value")
Rows = Sequence[Sequence[int]]
"""Prompts as token ids."""


class Sampler(Protocol):
    """Continues rows of tokens with the weights that the learner has when the call's turn comes."""

    @property
    def batches_continuously(self) -> bool:
        """Whether many small calls at once are as fast as one large one."""
        ...

    @property
    def is_learner(self) -> bool:
        """Whether its logprobs are those of the very model that learns."""
        ...

    async def sample(self, rows: Rows, sampling: Sampling, *, stream: Stream, epoch: int) -> list[list[Continuation]]:
        """`num_samples` continuations of each row; what is drawn depends on the stream and the weights alone.

        Calls of one epoch see the same weights; it is the number of updates asked for before the call.

        Raises:
            PolicyError: the model cannot generate.
        """
        ...

    def release(self) -> None:
        """The weights are about to change: give memory back. Called in the policy's thread."""
        ...


MakeSampler = Callable[[LoadedModel, ThreadPoolExecutor], Sampler]
"""Given the loaded model and the one thread that all work on it runs in."""


class TransformersSampler:
    """Implements `Sampler` with the learner's own modules."""

    def __init__(self, loaded: LoadedModel, thread: ThreadPoolExecutor, *, batch_size: int) -> None:
        self._loaded = loaded
        self._thread = thread
        self._batch_size = batch_size

    @property
    def batches_continuously(self) -> bool:
        return False

    @property
    def is_learner(self) -> bool:
        return True

    async def sample(self, rows: Rows, sampling: Sampling, *, stream: Stream, epoch: int) -> list[list[Continuation]]:
        del epoch  # calls and updates take turns in the thread
        return await in_thread(self._thread, partial(self._sample, rows, sampling, stream))

    def release(self) -> None:
        pass

    def _sample(self, prompts: Rows, sampling: Sampling, stream: Stream) -> list[list[Continuation]]:
        num_samples = sampling.num_samples
        rows = [row for row in prompts for _ in range(num_samples)]
        by_length = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
        batches = [by_length[start : start + self._batch_size] for start in range(0, len(rows), self._batch_size)]
        markers = Markers(self._loaded.end_ids, () if sampling.thinking == "free" else self._closing_steps)
        sampled: dict[int, Continuation] = {}
        with torch_errors("generate; a smaller sampling.batch_size needs less memory"), stream.borrowed():
            for batch in batches:
                prompt_rows = [rows[place] for place in batch]
                continued = continue_batch(self._loaded.model, prompt_rows, sampling=sampling, markers=markers)
                sampled.update(zip(batch, continued, strict=True))
        in_order = [sampled[place] for place in range(len(rows))]
        return [in_order[start : start + num_samples] for start in range(0, len(rows), num_samples)]

    @cached_property
    def _closing_steps(self) -> Steps:
        return closing_steps(self._loaded.tokenizer)


async def in_thread(thread: ThreadPoolExecutor, work: Callable[[], Value]) -> Value:
    """The work's value, once the thread has come to it."""
    return await asyncio.get_running_loop().run_in_executor(thread, work)


@contextmanager
def torch_errors(doing: str) -> Generator[None]:
    """Torch's errors as ours, said once at the border."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        raise PolicyError(f"the model failed to {doing}: {error}") from error
