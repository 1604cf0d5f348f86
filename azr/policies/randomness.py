"""Random streams that depend only on a seed and a name."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, cast

import torch


class Stream(NamedTuple):
    """Random numbers that depend only on a seed and a purpose."""

    seed: int
    purpose: str

    def borrowed(self) -> AbstractContextManager[torch.Generator]:
        """Use the stream as torch's global random state inside a `with` block."""
        return random_stream(self.seed, self.purpose)

    def seed_of(self, place: int) -> int:
        """A separate seed for one position in the stream."""
        return derived_seed(self.seed, f"{self.purpose} {place}")


class Counters(NamedTuple):
    """What a policy's random streams depend on besides their names."""

    seed: int
    update_calls: int

    def generating(self, name: str) -> Stream:
        """The stream of this name: calls of `generate` with equal names draw equal numbers."""
        return Stream(self.seed, f"generate {name}")

    def updating(self) -> tuple[Stream, Counters]:
        """The stream of the next update, and the counters after it."""
        return Stream(self.seed, f"update {self.update_calls}"), self._replace(update_calls=self.update_calls + 1)


def derived_seed(seed: int, purpose: str) -> int:
    """63 bits that depend only on seed and purpose."""
    digest = hashlib.sha256(f"{seed} {purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def random_stream(seed: int, purpose: str) -> Generator[torch.Generator]:
    """Seed torch's global random state and a new generator from seed and purpose; restore the state afterwards.

    `transformers` samples only from the global state and accepts no generator.
    """
    derived = derived_seed(seed, purpose)
    with untouched_randomness():
        torch.manual_seed(derived)
        yield torch.Generator().manual_seed(derived)


def untouched_randomness() -> AbstractContextManager[None]:
    """Restore torch's global random state, on CPU and GPU, afterwards."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    return cast("AbstractContextManager[None]", torch.random.fork_rng(devices=devices))
