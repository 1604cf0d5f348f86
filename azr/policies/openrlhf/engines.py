"""Many vLLM engines as one: a prompt goes to the least busy engine; all engines sleep while the model learns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from azr.policies.openrlhf.stock import RequestOutput, RolloutRayActor, SamplingParams


class Engines:
    """OpenRLHF's vLLM engines."""

    def __init__(self, engines: Sequence[RolloutRayActor], *, sleeps: bool) -> None:
        """`sleeps`: the engines give their memory to the learner during updates, and start asleep."""
        self._engines = engines
        self._waiting = [0] * len(engines)
        self._sleeps = sleeps
        self._is_awake = not sleeps
        self._waking = asyncio.Lock()

    async def complete(self, prompt_ids: Sequence[int], params: SamplingParams, *, num_samples: int) -> RequestOutput:
        """All completions of one prompt: one request, so that they share the work on the prompt."""
        await self._wake()
        place = min(range(len(self._engines)), key=self._waiting.__getitem__)
        self._waiting[place] += num_samples
        try:
            return cast(RequestOutput, await self._engines[place].generate.remote(list(prompt_ids), params))
        finally:
            self._waiting[place] -= num_samples

    async def sleep(self) -> None:
        """Give the memory to the learner. The weight sync wakes the weights, and the next prompt the rest."""
        if self._sleeps and self._is_awake:
            self._is_awake = False
            await asyncio.gather(*(engine.sleep.remote() for engine in self._engines))

    async def _wake(self) -> None:
        async with self._waking:
            if not self._is_awake:
                await asyncio.gather(*(engine.wake_up.remote() for engine in self._engines))
                self._is_awake = True
