"""Torch's random numbers, borrowed for the length of a `with`."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def random_stream(seed: int, purpose: str) -> Generator[torch.Generator]:
    """Global random state, CPU and GPU, and a generator that depend on seed and purpose alone; restored afterwards.

    `transformers` samples from the global state only, so it cannot be given a generator of its own.
    """
    digest = hashlib.sha256(f"{seed} {purpose}".encode()).digest()
    derived = int.from_bytes(digest[:8], "big") >> 1
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derived)
        yield torch.Generator().manual_seed(derived)
