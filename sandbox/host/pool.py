"""Distributes requests over a few guests and replaces guests that die. Read `Pool.ask`, then `_work`.

A guest that dies, hangs or breaks the format is replaced, and its requests are sent again. Only the request that was
running is charged for the death; two deaths make it `killed`. No request is charged if the engine went away with all
guests: the pool waits until the engine is back, and fails if that takes too long.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import OrderedDict, deque
from dataclasses import replace

from sandbox.host import readback
from sandbox.host.backend import Backend, Channel, ChannelBroken
from sandbox.host.conversation import HELLO, Conversation, Pending, greet
from sandbox.host.jobs import Request
from sandbox.host.readback import Reply
from sandbox.shared import wire
from sandbox.shared.wire import Kind
from sandbox.types import EngineUnavailable, SandboxBroken, SandboxError, Status

SLOTS = (0, 1)
MAX_DEATHS = 2
MAX_IDLE_DEATHS = 5
MAX_DEATHS_IN_A_ROW = 24
"""Per worker, because something that kills every guest of a large pool at once is not a fault of the image."""
SCREENINGS_KEPT = 4096
OPENING_PAUSES_S = (0.1, 1.0)
"""Pauses before the second and third attempt to start a guest; something may have killed it while it started."""
ABSENCE_S = 60.0
"""Longest absence of an engine, for example during a restart, before waiting requests fail."""
CHECK_EVERY_S = 0.5


class Pool:
    """`workers` guests per seed slot."""

    def __init__(self, backend: Backend, workers: int) -> None:
        self._backend = backend
        self._workers = workers
        self._queues: dict[int, asyncio.PriorityQueue[Pending]] = {slot: asyncio.PriorityQueue() for slot in SLOTS}
        self._numbers = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting: set[asyncio.Future[Reply]] = set()
        self._screenings: OrderedDict[Request, asyncio.Future[Reply]] = OrderedDict()
        self._broken: SandboxError | None = None
        self._idle_deaths = 0
        self._deaths_in_a_row = 0
        self._absent_since: float | None = None

    async def start(self) -> None:
        """Return when one guest of each slot has answered.

        Raises:
            SandboxError: they could not be started.
        """
        self._tasks = [asyncio.create_task(self._work(slot)) for slot in SLOTS for _ in range(self._workers)]
        await asyncio.gather(*[self.ask(replace(HELLO, seed_slot=slot)) for slot in SLOTS])

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail(SandboxError("the executor was closed"))

    async def ask(self, request: Request) -> Reply:
        """The guest's reply. A program is screened once: the verdict depends on the request's texts only.

        Raises:
            SandboxError: the sandbox failed.
        """
        if request.kind is not Kind.INSPECT:
            return await self._sent(request)
        if request not in self._screenings:
            self._screenings[request] = asyncio.ensure_future(self._sent(request))
            if len(self._screenings) > SCREENINGS_KEPT:
                self._screenings.popitem(last=False)
        return await asyncio.shield(self._screenings[request])

    async def _sent(self, request: Request) -> Reply:
        body = wire.body(os.urandom(wire.NONCE_BYTES // 2).hex().encode(), request.texts)
        if len(body) > wire.MAX_BODY_BYTES:
            return readback.failed(Status.ERROR, "the program and its inputs are too long")
        if self._broken is not None:
            raise self._broken
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.add(reply)
        reply.add_done_callback(self._waiting.discard)
        self._queues[request.seed_slot].put_nowait(Pending(next(self._numbers), request, body, reply))
        return await reply

    async def _work(self, slot: int) -> None:
        """One worker: serves with one guest after another."""
        try:
            while self._broken is None:
                try:
                    await self._serve_with_one_guest(slot)
                except EngineUnavailable:
                    await self._until_engine_is_back()
        except SandboxError as error:
            self._fail(error)
        except Exception as error:
            self._fail(SandboxError(f"unexpected error in the sandbox: {error!r}"))
            raise

    async def _serve_with_one_guest(self, slot: int) -> None:
        in_flight: deque[Pending] = deque()
        channel = await self._opened(slot)
        try:
            await greet(channel)
            self._absent_since = None
            await Conversation(channel, self._queues[slot], in_flight).serve(self._replied)
        except ChannelBroken as error:
            await self._backend.check()
            self._died(in_flight, error)
        finally:
            for pending in in_flight:
                self._queues[slot].put_nowait(pending)
            await channel.close()

    async def _opened(self, slot: int) -> Channel:
        for pause_s in OPENING_PAUSES_S:
            try:
                return await self._backend.open(slot)
            except EngineUnavailable:
                raise
            except SandboxError:
                await asyncio.sleep(pause_s)
        return await self._backend.open(slot)

    async def _until_engine_is_back(self) -> None:
        """Without a limit while no request waits; otherwise fail after `ABSENCE_S`."""
        now = asyncio.get_running_loop().time
        self._absent_since = self._absent_since or now()
        while True:
            try:
                return await self._backend.check()
            except EngineUnavailable as error:
                if self._waiting and now() > self._absent_since + ABSENCE_S:
                    raise EngineUnavailable(
                        "The engine went away in the middle of the work, with all its containers, and did not come "
                        f"back within {ABSENCE_S:.0f} s. Programs that were running got no result. Start the engine, "
                        f"then continue (azr train: --resume). {error}"
                    ) from error
            await asyncio.sleep(CHECK_EVERY_S)

    def _replied(self) -> None:
        self._idle_deaths = self._deaths_in_a_row = 0

    def _died(self, in_flight: deque[Pending], error: ChannelBroken) -> None:
        """Charge the request that was running; raise if there were too many deaths for programs to be the cause."""
        self._deaths_in_a_row += 1
        if not in_flight:
            self._idle_deaths += 1
        elif (running := in_flight[0]).deaths + 1 >= MAX_DEATHS:
            in_flight.popleft()
            running.resolve(readback.failed(Status.KILLED, "it took its container down twice"))
        else:
            running.deaths += 1
        most_idle, most_in_a_row = MAX_IDLE_DEATHS * self._workers, MAX_DEATHS_IN_A_ROW * self._workers
        if self._idle_deaths >= most_idle or self._deaths_in_a_row >= most_in_a_row:
            raise SandboxBroken(
                f"Containers keep dying although they are replaced ({error}). An image from another version of this "
                "package can cause this: rebuild it with `azr image build`."
            ) from error

    def _fail(self, error: SandboxError) -> None:
        self._broken = self._broken or error
        for reply in list(self._waiting):
            if not reply.done():
                reply.set_exception(self._broken)
