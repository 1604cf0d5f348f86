"""How the time of a step divides over its stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

STAGES = ("propose", "validate", "attempt", "solve", "verify")
"""The stages of a step up to the rewards."""


class StageClock:
    """Counts every moment for the first stage, in the order of the names, that is running.

    Stages may run side by side and more than once; their seconds still add up to the time that passed. So validation
    and verification get only the time in which the step waits for the sandbox alone.
    """

    def __init__(self, *stages: str, now: Callable[[], float] = time.perf_counter) -> None:
        self._under_way = dict.fromkeys(stages, 0)
        self._spent = dict.fromkeys(stages, 0.0)
        self._now = now
        self._settled = now()

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        self._settle()
        self._under_way[name] += 1
        try:
            yield
        finally:
            self._settle()
            self._under_way[name] -= 1

    def seconds(self) -> dict[str, float]:
        """`time/<stage>_s` of every stage; 0 for a stage that did not run."""
        return {f"time/{name}_s": spent for name, spent in self._spent.items()}

    def _settle(self) -> None:
        """Add the time since the last change to the stage that it belongs to."""
        before, self._settled = self._settled, self._now()
        first = next((name for name, count in self._under_way.items() if count), None)
        if first is not None:
            self._spent[first] += self._settled - before
