"""Which worker runs which job. Knows workers only by their protocol. Read `Router.run`, then `_deliver`.

Jobs wait here until a worker has room; the worker with the fewest jobs is served first, with a few jobs a call. A
worker that is lost in the middle of its work leaves suspects: jobs of which one may have taken it down. A suspect runs
again alone on a worker that has just run an empty job; one that takes this worker down as well is `killed`, as a
program is that takes its container down twice. A verdict is given once, whatever ran how often.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from azr.cluster.base import Reply, Worker, WorkerLost
from sandbox.audit.records import Label
from sandbox.types import Execution, Job, RunResult, SandboxError, Status

CHUNK = 8
"""Jobs in one call to a worker: a call costs the trainer as much as eight verdicts, and its slowest job holds it."""
SILENCE_S = 30.0
"""How long a worker may say nothing before it is asked whether it is there, and how long it has to answer that."""
EMPTY = Job("def f(): pass", ("",))
"""What a worker has to answer before a job may be charged with its end."""
KILLED = "it took two sandbox workers down, the second one alone"


@dataclass(eq=False, slots=True)
class _Ticket:
    """A job on its way."""

    job: Job
    label: Label | None
    done: asyncio.Future[Execution]
    is_suspect: bool = False


@dataclass(eq=False, slots=True)
class Seat:
    """A worker and what it has been given."""

    worker: Worker
    gone: asyncio.Future[SandboxError]
    """Why it was given up, once it was: what it says afterwards counts for nothing."""
    num_jobs: int = 0
    is_reserved: bool = False
    """A suspect has it to itself."""
    used: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Records of its log, from the first to before the last, that became verdicts since it was last anchored."""


class Router:
    """Jobs for any number of workers, which may come and go."""

    def __init__(
        self,
        on_loss: Callable[[Seat, SandboxError], None],
        *,
        jobs_in_flight: int,
        chunk: int = CHUNK,
        silence_s: float = SILENCE_S,
    ) -> None:
        """
        Args:
            on_loss: told of a seat that is given up, whose jobs will run elsewhere; may add seats, now or later.
            jobs_in_flight: the most that one worker has at a time.
        """
        self._on_loss = on_loss
        self._jobs_in_flight = jobs_in_flight
        self._chunk = chunk
        self._silence_s = silence_s
        self.seats: list[Seat] = []
        self._waiting: deque[_Ticket] = deque()
        self._suspects: deque[_Ticket] = deque()
        self._deliveries: set[asyncio.Task[None]] = set()
        self._is_due = False
        self._failure: SandboxError | None = None

    def add(self, worker: Worker) -> Seat:
        """From now on it is given jobs."""
        seat = Seat(worker, asyncio.get_running_loop().create_future())
        self.seats.append(seat)
        self._failure = None
        self._deal_soon()
        return seat

    async def run(self, jobs: Sequence[Job], label: Label | None) -> list[Execution]:
        """All executions, in the order of the jobs.

        Raises:
            SandboxError: no worker is left.
        """
        loop = asyncio.get_running_loop()
        tickets = [_Ticket(job, label, loop.create_future()) for job in jobs]
        self._waiting.extend(tickets)
        self._deal_soon()
        try:
            return await asyncio.gather(*[ticket.done for ticket in tickets])
        except BaseException:
            for ticket in tickets:
                ticket.done.cancel()
            raise

    def fail(self, error: SandboxError) -> None:
        """Nobody is left: whoever waits is told so, and whoever comes until a worker is added."""
        self._failure = error
        for ticket in (*self._suspects, *self._waiting):
            if not ticket.done.done():
                ticket.done.set_exception(error)
        self._suspects.clear()
        self._waiting.clear()

    async def close(self) -> None:
        """Drop what is on its way; the workers are somebody else's."""
        self.seats.clear()
        for delivery in self._deliveries:
            delivery.cancel()
        await asyncio.gather(*self._deliveries, return_exceptions=True)
        self.fail(SandboxError("the executor was closed"))

    def _deal_soon(self) -> None:
        """Once for all that comes in this turn of the loop, so that jobs of many callers share a call."""
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._deal)

    def _deal(self) -> None:
        """Hand out all that there is room for."""
        self._is_due = False
        if self._failure is not None and not self.seats:
            self.fail(self._failure)
        while (self._suspects or self._waiting) and (seat := self._roomiest()) is not None:
            if self._suspects and seat.num_jobs:
                return  # it has to be empty first; new jobs would keep it busy for ever
            seat.is_reserved = bool(self._suspects)
            chunk = [self._suspects.popleft()] if seat.is_reserved else self._next_chunk(seat)
            if chunk := [ticket for ticket in chunk if not ticket.done.done()]:
                self._send(seat, chunk)
            else:
                seat.is_reserved = False

    def _roomiest(self) -> Seat | None:
        with_room = [one for one in self.seats if one.num_jobs < self._jobs_in_flight and not one.is_reserved]
        return min(with_room, key=lambda seat: seat.num_jobs, default=None)

    def _next_chunk(self, seat: Seat) -> list[_Ticket]:
        """Jobs of one label, a fair share where there are few."""
        num_jobs = len(self._waiting) + sum(one.num_jobs for one in self.seats)
        share = -(-num_jobs // len(self.seats)) - seat.num_jobs
        most = min(self._chunk, self._jobs_in_flight - seat.num_jobs, share)
        chunk = [self._waiting.popleft()]
        while self._waiting and len(chunk) < most and self._waiting[0].label == chunk[0].label:
            chunk.append(self._waiting.popleft())
        return chunk

    def _send(self, seat: Seat, chunk: list[_Ticket]) -> None:
        seat.num_jobs += len(chunk)
        delivery = asyncio.create_task(self._deliver(seat, chunk))
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._deliveries.discard)

    async def _deliver(self, seat: Seat, chunk: list[_Ticket]) -> None:
        is_trusted = not chunk[0].is_suspect
        try:
            if not is_trusted:
                await self._answered(seat, [EMPTY], None)
                is_trusted = True
            reply = await self._answered(seat, [ticket.job for ticket in chunk], chunk[0].label)
        except SandboxError as error:
            self._return(_charged(chunk) if is_trusted and isinstance(error, WorkerLost) else chunk)
            self._give_up(seat, error)
        except Exception as error:
            for ticket in chunk:
                _fail(ticket, error)
        else:
            if reply.first >= 0:
                seat.used.append((reply.first, reply.first + len(chunk)))
            for ticket, execution in zip(chunk, reply.executions, strict=True):
                _resolve(ticket, execution)
        finally:
            seat.num_jobs -= len(chunk)
            seat.is_reserved = False
            self._deal_soon()

    async def _answered(self, seat: Seat, jobs: Sequence[Job], label: Label | None) -> Reply:
        """The worker's reply; one that neither replies nor answers a ping is lost.

        Raises:
            SandboxError: why the seat was given up, be it for another of its calls.
        """
        worker = seat.worker
        call = asyncio.ensure_future(worker.run(jobs, label))
        try:
            while not await _ended(seat.gone, call, self._silence_s):
                try:
                    await asyncio.wait_for(worker.ping(), self._silence_s)
                except TimeoutError:
                    raise WorkerLost(f"the sandbox worker {worker.name} does not answer any more") from None
            if seat.gone.done():
                raise seat.gone.result()
            return await call
        finally:
            call.cancel()

    def _return(self, chunk: Sequence[_Ticket]) -> None:
        """To be done again, before all others."""
        for ticket in reversed(chunk):
            (self._suspects if ticket.is_suspect else self._waiting).appendleft(ticket)

    def _give_up(self, seat: Seat, error: SandboxError) -> None:
        """Once a seat: all its calls come back with the same loss."""
        if not seat.gone.done():
            seat.gone.set_result(error)
            self.seats.remove(seat)
            self._on_loss(seat, error)


def _charged(chunk: Sequence[_Ticket]) -> list[_Ticket]:
    """Those that run again, as suspects; one that was a suspect had the worker to itself, and is through."""
    for ticket in chunk:
        if ticket.is_suspect:
            results = tuple(RunResult(Status.KILLED, "", "", KILLED) for _ in ticket.job.inputs)
            _resolve(ticket, Execution(Status.KILLED, results, 0.0, 0.0, 0.0))
        ticket.is_suspect = True
    return [ticket for ticket in chunk if not ticket.done.done()]


async def _ended(gone: asyncio.Future[SandboxError], call: asyncio.Future[Reply], within_s: float) -> bool:
    done, _ = await asyncio.wait([gone, call], timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)


def _resolve(ticket: _Ticket, execution: Execution) -> None:
    if not ticket.done.done():
        ticket.done.set_result(execution)


def _fail(ticket: _Ticket, error: Exception) -> None:
    if not ticket.done.done():
        ticket.done.set_exception(error)
