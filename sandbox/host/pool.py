"""Many forks over a few containers: pipelining, deadlines, replacement, retry. Knows containers only as byte channels.

Read `Pool.run`, then `_Conversation`. A container that dies, hangs or talks nonsense is replaced; what was queued in it
runs again elsewhere. Only the fork that was running is charged, and two deaths make it `killed`. Nobody is charged when
the engine that held the containers is gone: the pool waits for it, and gives up when it stays away.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sandbox.host import readback
from sandbox.host.jobs import Fork, execute
from sandbox.host.readback import Handed
from sandbox.shared import wire
from sandbox.shared.wire import Kind, RequestHeader
from sandbox.types import EngineUnavailable, Execution, Job, Limits, SandboxBroken, SandboxError, Status

SLOTS = (0, 1)
WINDOW = 4
"""Forks asked for in one container, so that none waits for a round trip."""
MAX_DEATHS = 2
MAX_IDLE_DEATHS = 5
MAX_DEATHS_IN_A_ROW = 24
RECYCLE_AFTER = 20_000
INSPECTIONS_KEPT = 4096
OPENING_PAUSES_S = (0.1, 1.0)
"""Before a container that did not start is tried again: somebody may have killed it on its way."""
ABSENCE_S = 60.0
"""How long an engine may be away, as when it is restarted, before the work is given up."""
CHECK_EVERY_S = 0.5
HELLO_S = 60.0
GRACE_S = 5.0
"""What the guest gets beyond the fork's own limits."""
HELLO = Fork(Kind.EVALUATE, ("",), inputs=0, limits=Limits(wall_s=HELLO_S, cpu_s=HELLO_S), seed_slot=0)


class ChannelBroken(Exception):
    """The container at the other end died, hangs, or does not speak our format."""


class Channel(Protocol):
    """A byte stream to one container; both verbs raise `ChannelBroken`."""

    async def send(self, data: bytes) -> None: ...

    async def receive(self, count: int) -> bytes:
        """Exactly `count` bytes."""
        ...

    async def close(self) -> None:
        """End the container as well; never raises because it is gone already."""
        ...


async def always_there() -> None:
    """For containers that need no engine."""


@dataclass(order=True)
class _Ticket:
    """A fork on its way; the order number brings a retried one to the front."""

    order: int
    fork: Fork = field(compare=False)
    body: bytes = field(compare=False)
    done: asyncio.Future[Handed] = field(compare=False)
    deaths: int = field(compare=False, default=0)

    @property
    def request(self) -> RequestHeader:
        fork, body_bytes = self.fork, len(self.body)
        return wire.request_header(self.order, fork.kind, inputs=fork.inputs, limits=fork.limits, body_bytes=body_bytes)


class Pool:
    """`workers` containers for each seed slot."""

    def __init__(
        self,
        open_channel: Callable[[int], Awaitable[Channel]],
        workers: int,
        *,
        window: int = WINDOW,
        check_engine: Callable[[], Awaitable[None]] = always_there,
    ) -> None:
        """
        Args:
            check_engine: raises EngineUnavailable while what holds the containers does not answer.
        """
        self._open_channel = open_channel
        self._check_engine = check_engine
        self._workers = workers
        self._window = window
        self._queues: dict[int, asyncio.PriorityQueue[_Ticket]] = {slot: asyncio.PriorityQueue() for slot in SLOTS}
        self._orders = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting: set[asyncio.Future[Handed]] = set()
        self._inspected: OrderedDict[Fork, asyncio.Future[Handed]] = OrderedDict()
        self._broken: SandboxError | None = None
        self._idle_deaths = 0
        self._deaths_in_a_row = 0
        self._absent_since: float | None = None

    async def start(self) -> None:
        """Returns when one container of each slot has answered.

        Raises:
            SandboxError: they do not come up.
        """
        self._tasks = [asyncio.create_task(self._work(slot)) for slot in SLOTS for _ in range(self._workers)]
        await self.run([Job(program="def f(): pass", inputs=("",), seed_slot=slot) for slot in SLOTS])

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail(SandboxError("the executor was closed"))

    async def run(self, jobs: Sequence[Job]) -> list[Execution]:
        """All executions, in the order of the jobs."""
        return list(await asyncio.gather(*[execute(job, self._ask, self._inspect) for job in jobs]))

    async def _ask(self, fork: Fork) -> Handed:
        body = wire.body(os.urandom(wire.NONCE_BYTES // 2).hex().encode(), fork.texts)
        if len(body) > wire.MAX_BODY_BYTES:
            return readback.stopped(Status.ERROR, "the program and its inputs are too long")
        if self._broken is not None:
            raise self._broken
        done: asyncio.Future[Handed] = asyncio.get_running_loop().create_future()
        self._waiting.add(done)
        done.add_done_callback(self._waiting.discard)
        self._queues[fork.seed_slot].put_nowait(_Ticket(next(self._orders), fork, body, done))
        return await done

    async def _inspect(self, fork: Fork) -> Handed:
        """The policy's verdict, asked for once a program."""
        if fork not in self._inspected:
            self._inspected[fork] = asyncio.ensure_future(self._ask(fork))
            if len(self._inspected) > INSPECTIONS_KEPT:
                self._inspected.popitem(last=False)
        return await asyncio.shield(self._inspected[fork])

    async def _work(self, slot: int) -> None:
        """One worker: a container, then its replacement, and so on."""
        try:
            while self._broken is None:
                try:
                    await self._serve_one_container(slot)
                except EngineUnavailable:
                    await self._until_engine_is_back()
        except SandboxError as error:
            self._fail(error)
        except Exception as error:
            self._fail(SandboxError(f"a fault in the sandbox itself: {error!r}"))
            raise

    async def _serve_one_container(self, slot: int) -> None:
        in_flight: deque[_Ticket] = deque()
        channel = await self._opened(slot)
        try:
            await _greet(channel)
            self._absent_since = None
            await _Conversation(channel, self._queues[slot], in_flight, self._window).hold(self._replied)
        except ChannelBroken as error:
            await self._check_engine()
            self._died(in_flight, error)
        finally:
            for ticket in in_flight:
                self._queues[slot].put_nowait(ticket)
            await channel.close()

    async def _opened(self, slot: int) -> Channel:
        for pause_s in OPENING_PAUSES_S:
            try:
                return await self._open_channel(slot)
            except EngineUnavailable:
                raise
            except SandboxError:
                await asyncio.sleep(pause_s)
        return await self._open_channel(slot)

    async def _until_engine_is_back(self) -> None:
        """Waits as long as nobody else does; somebody who does is kept waiting for a bounded time."""
        now = asyncio.get_running_loop().time
        self._absent_since = self._absent_since or now()
        while True:
            try:
                return await self._check_engine()
            except EngineUnavailable as error:
                if self._waiting and now() > self._absent_since + ABSENCE_S:
                    raise EngineUnavailable(
                        f"The engine went away in the middle of the work, with every container, and did not come back "
                        f"within {ABSENCE_S:.0f} s. Nothing was concluded from the programs that it was running: start "
                        f"it, then go on (azr train: --resume). {error}"
                    ) from error
            await asyncio.sleep(CHECK_EVERY_S)

    def _replied(self) -> None:
        self._idle_deaths = self._deaths_in_a_row = 0

    def _died(self, in_flight: deque[_Ticket], error: ChannelBroken) -> None:
        """Charge the fork that was running; raise when it cannot be the programs' fault any more."""
        self._deaths_in_a_row += 1
        if not in_flight:
            self._idle_deaths += 1
        elif (running := in_flight[0]).deaths + 1 >= MAX_DEATHS:
            in_flight.popleft()
            _resolve(running, readback.stopped(Status.KILLED, "it took its container down twice"))
        else:
            running.deaths += 1
        if self._idle_deaths >= MAX_IDLE_DEATHS or self._deaths_in_a_row >= MAX_DEATHS_IN_A_ROW:
            raise SandboxBroken(
                f"Containers die again and again although they are replaced ({error}). "
                "An image of another version of this package does so: `azr image build` makes it anew."
            ) from error

    def _fail(self, error: SandboxError) -> None:
        self._broken = self._broken or error
        for done in list(self._waiting):
            if not done.done():
                done.set_exception(self._broken)


async def _greet(channel: Channel) -> None:
    """See one empty request answered before any real one is trusted to the container."""
    body = wire.body(bytes(wire.NONCE_BYTES), HELLO.texts)
    request = wire.request_header(0, HELLO.kind, inputs=HELLO.inputs, limits=HELLO.limits, body_bytes=len(body))
    await channel.send(request.packed() + body)
    try:
        async with asyncio.timeout(HELLO_S):
            ending = _ending(await channel.receive(wire.REPLY.size))
            await channel.receive(ending.result_bytes)
    except TimeoutError:
        raise ChannelBroken("the container does not answer") from None


class _Conversation:
    """One container's life: a sender that keeps its window full, a receiver that answers the oldest ticket first."""

    def __init__(
        self, channel: Channel, queue: asyncio.PriorityQueue[_Ticket], in_flight: deque[_Ticket], window: int
    ) -> None:
        self._channel = channel
        self._queue = queue
        self._in_flight = in_flight
        self._room = asyncio.Semaphore(window)
        self._clock: asyncio.Timeout | None = None

    async def hold(self, replied: Callable[[], None]) -> None:
        """Until the container has served its share.

        Raises:
            ChannelBroken: it broke off; the tickets in flight are still in `in_flight`.
        """
        sender = asyncio.create_task(self._send())
        try:
            for _ in range(RECYCLE_AFTER):
                await self._receive_one()
                replied()
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _send(self) -> None:
        while True:
            await self._room.acquire()
            ticket = await self._queue.get()
            if ticket.done.done():
                self._room.release()
                continue
            self._in_flight.append(ticket)
            if len(self._in_flight) == 1:
                self._start_clock()
            with contextlib.suppress(ChannelBroken):  # the receiver sees the same end, and knows whose fault it is
                await self._channel.send(ticket.request.packed() + ticket.body)

    async def _receive_one(self) -> None:
        try:
            async with asyncio.timeout(None) as self._clock:
                self._start_clock()
                ending = _ending(await self._channel.receive(wire.REPLY.size))
                ticket = self._expected(ending)
                handed = _read(ticket, ending, await self._channel.receive(ending.result_bytes))
        except TimeoutError:
            raise ChannelBroken("no reply within the fork's worst case") from None
        self._in_flight.popleft()
        self._room.release()
        _resolve(ticket, handed)

    def _expected(self, ending: wire.Exit) -> _Ticket:
        if not self._in_flight or ending.run_id != self._in_flight[0].order:
            raise ChannelBroken("a reply to a request that was not the next")
        if ending.result_bytes > self._in_flight[0].request.max_result_bytes:
            raise ChannelBroken("a reply longer than the request can have")
        return self._in_flight[0]

    def _start_clock(self) -> None:
        """Only the oldest ticket's time runs, and only while there is one."""
        if self._in_flight and self._clock is not None:
            ends = asyncio.get_running_loop().time() + self._in_flight[0].request.worst_case_s + GRACE_S
            self._clock.reschedule(ends)


def _ending(data: bytes) -> wire.Exit:
    try:
        return wire.read_exit(data)
    except wire.BrokenFrame as error:
        raise ChannelBroken(str(error)) from error


def _read(ticket: _Ticket, ending: wire.Exit, data: bytes) -> Handed:
    nonce = ticket.body[: wire.NONCE_BYTES]
    try:
        return readback.handed(ticket.request, nonce, ending, data, wanted=ticket.fork.wanted)
    except wire.BrokenFrame as error:
        raise ChannelBroken(str(error)) from error


def _resolve(ticket: _Ticket, handed: Handed) -> None:
    if not ticket.done.done():
        ticket.done.set_result(handed)
