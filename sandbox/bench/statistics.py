"""The arithmetic of the benchmark: percentiles, spreads, paired ratios. Values in, values out."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

CDF_POINTS = 100


@dataclass(frozen=True, slots=True)
class Spread:
    """What repeated measurements gave. The median is the figure; low and high are the extremes."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        if not values:
            raise ValueError("nothing was measured")
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True, slots=True)
class Latency:
    """How long single verdicts took, in milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    highest_ms: float
    count: int
    quantiles_ms: tuple[float, ...]
    """Percentiles 0 to 100: the curve to draw."""

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        ordered = sorted(1000 * one for one in seconds)
        quantiles = tuple(percentile(ordered, at / CDF_POINTS) for at in range(CDF_POINTS + 1))
        return cls(quantiles[50], quantiles[95], quantiles[99], ordered[-1], len(ordered), quantiles)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which that share of an ordered sequence lies, linear between neighbours."""
    if not ordered:
        raise ValueError("nothing was measured")
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def paired_ratio(measured: Sequence[float], reference: Sequence[float]) -> Spread:
    """Ratio of neighbours in time, round by round: what slows both for a while cancels out."""
    return Spread.of([one / other for one, other in zip(measured, reference, strict=True)])
