"""How a step's time divides over its stages."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager

STAGES = ("propose", "validate", "attempt", "solve", "verify", "update")


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

    def seconds(self) -> dict[str, float]:
        """`time/<stage>_s` of every stage that was entered."""
        return {f"time/{name}_s": spent for name, spent in self._spent.items()}
