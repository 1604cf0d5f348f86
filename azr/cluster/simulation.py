"""How fast a cluster answers jobs, played out event by event from measured times. Read `jobs_per_s`.

The trainer is one event loop: every call, reply and verdict takes it some time, one after the other. A worker is one
event loop as well, before a row of containers. Nothing else is modelled: the network is not the limit (a job is a few
hundred bytes), and a node's containers do not slow each other down.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Costs(NamedTuple):
    """Seconds that one thread is busy for."""

    call_s: float
    """The trainer, a call to a worker and its reply, whatever they hold."""
    verdict_s: float
    """The trainer, one job of a call."""
    host_s: float
    """The worker's own process, one job: wire, decoding, record."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is simulated."""

    num_workers: int
    containers: int
    """Jobs that one worker runs at once."""
    jobs_in_flight: int = 64
    chunk: int = 4


@dataclass(eq=False, slots=True)
class _Call:
    worker: int
    left: int
    size: int


@dataclass(slots=True)
class _Station:
    """One worker: jobs wait for its process, then for a container."""

    free: int
    given: int = 0
    process_free_at: float = 0.0
    waiting: deque[_Call] = field(default_factory=deque[_Call])


def jobs_per_s(shape: Shape, costs: Costs, services_s: Sequence[float], num_jobs: int, rng: random.Random) -> float:
    """Jobs a second of one batch, from the first call to the last verdict; service times are drawn anew."""
    return num_jobs / _Play(shape, costs, lambda: rng.choice(services_s), num_jobs).seconds()


class _Play:
    def __init__(self, shape: Shape, costs: Costs, service_s: Callable[[], float], num_jobs: int) -> None:
        self._shape = shape
        self._costs = costs
        self._service_s = service_s
        self._to_send = self._to_answer = num_jobs
        self._stations = [_Station(shape.containers) for _ in range(shape.num_workers)]
        self._roomiest = [(0, number) for number in range(shape.num_workers)]
        self._replies: deque[_Call] = deque()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._now = 0.0
        self._is_trainer_busy = False

    def seconds(self) -> float:
        self._trainer_turns()
        while self._to_answer:
            self._now, _, happens = heapq.heappop(self._events)
            happens()
        return self._now

    def _after(self, seconds: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + seconds, next(self._order), happens))

    def _trainer_turns(self) -> None:
        """The trainer takes a reply if there is one, else it makes a call if a worker has room."""
        if self._is_trainer_busy:
            return
        if self._replies:
            call = self._replies.popleft()
            self._busy(self._costs.call_s / 2 + call.size * self._costs.verdict_s, lambda: self._answered(call))
        elif self._to_send and (number := self._with_room()) is not None:
            size = min(self._shape.chunk, self._to_send, self._shape.jobs_in_flight - self._stations[number].given)
            self._to_send -= size
            self._give(number, size)
            call = _Call(number, size, size)
            self._busy(self._costs.call_s / 2, lambda: self._arrived(call))

    def _busy(self, seconds: float, then: Callable[[], None]) -> None:
        def done() -> None:
            self._is_trainer_busy = False
            then()
            self._trainer_turns()

        self._is_trainer_busy = True
        self._after(seconds, done)

    def _with_room(self) -> int | None:
        """The worker with the fewest jobs; entries that tell of an earlier time are passed over."""
        while self._roomiest:
            given, number = self._roomiest[0]
            if given == self._stations[number].given and given < self._shape.jobs_in_flight:
                return number
            heapq.heappop(self._roomiest)
        return None

    def _give(self, number: int, jobs: int) -> None:
        self._stations[number].given += jobs
        heapq.heappush(self._roomiest, (self._stations[number].given, number))

    def _answered(self, call: _Call) -> None:
        self._to_answer -= call.size
        self._give(call.worker, -call.size)

    def _arrived(self, call: _Call) -> None:
        """The worker's process takes the jobs one after the other; each then waits for a container."""
        station = self._stations[call.worker]
        for _ in range(call.size):
            station.process_free_at = max(station.process_free_at, self._now) + self._costs.host_s
            self._after(station.process_free_at - self._now, lambda: self._ready(station, call))

    def _ready(self, station: _Station, call: _Call) -> None:
        station.waiting.append(call)
        self._run_next(station)

    def _run_next(self, station: _Station) -> None:
        if station.free and station.waiting:
            station.free -= 1
            call = station.waiting.popleft()
            self._after(self._service_s(), lambda: self._ran(station, call))

    def _ran(self, station: _Station, call: _Call) -> None:
        station.free += 1
        call.left -= 1
        if not call.left:
            self._replies.append(call)
            self._trainer_turns()
        self._run_next(station)
