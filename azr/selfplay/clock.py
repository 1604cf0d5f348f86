"""How a step's time divides over its stages."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Self


class Overlap:
    """Times sampling and judging that overlap: what ends with the last sampled batch is sampling, the rest is judging.

    The judging time is thus what a step waits for the sandbox alone.
    """

    def __init__(self, sampling: str, judging: str, spent: defaultdict[str, float]) -> None:
        self._stages = sampling, judging
        self._spent = spent

    def __enter__(self) -> Self:
        self._begun = self._sampled = time.perf_counter()
        return self

    def sampled(self) -> None:
        """A batch has been sampled."""
        self._sampled = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sampling, judging = self._stages
        self._spent[sampling] += self._sampled - self._begun
        self._spent[judging] += time.perf_counter() - self._sampled


class StageClock:
    """Adds up seconds by stage; a stage may be entered more than once."""

    def __init__(self) -> None:
        self._spent: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._spent[name] += time.perf_counter() - start

    def overlap(self, sampling: str, judging: str) -> Overlap:
        """Two stages that run side by side; see `Overlap`."""
        return Overlap(sampling, judging, self._spent)

    def seconds(self) -> dict[str, float]:
        """`time/<stage>_s` of every stage that was entered."""
        return {f"time/{name}_s": spent for name, spent in self._spent.items()}
