"""The requests and replies of one guest. A reply that is late, too long or out of turn breaks the channel."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sandbox.host.backend import Channel, ChannelBroken
from sandbox.host.jobs import Request
from sandbox.host.readback import Reply, read_reply
from sandbox.shared import wire
from sandbox.shared.wire import Kind
from sandbox.types import Limits

WINDOW = 4
"""Requests sent to a guest before it has answered the first, so that it never waits for a round trip."""
RECYCLE_AFTER = 20_000
"""Replies after which a guest is replaced."""
GRACE_S = 5.0
"""Time that a guest gets for a reply beyond the request's own limits."""
HELLO_S = 60.0
HELLO = Request(Kind.EVALUATE, ("",), inputs=0, limits=Limits(wall_s=HELLO_S, cpu_s=HELLO_S), seed_slot=0)


@dataclass(order=True)
class Pending:
    """A request that waits for its reply. Sorted by number: one that is sent again goes first."""

    number: int
    request: Request = field(compare=False)
    body: bytes = field(compare=False)
    reply: asyncio.Future[Reply] = field(compare=False)
    deaths: int = field(compare=False, default=0)
    """Guests that died while they worked on it."""

    @property
    def header(self) -> wire.RequestHeader:
        asked = self.request
        return wire.request_header(
            self.number, asked.kind, inputs=asked.inputs, limits=asked.limits, body_bytes=len(self.body)
        )

    def resolve(self, reply: Reply) -> None:
        if not self.reply.done():
            self.reply.set_result(reply)


async def greet(channel: Channel) -> None:
    """Wait for the guest to answer an empty request, before it gets any other.

    Raises:
        ChannelBroken: it does not answer.
    """
    body = wire.body(bytes(wire.NONCE_BYTES), HELLO.texts)
    header = wire.request_header(0, HELLO.kind, inputs=HELLO.inputs, limits=HELLO.limits, body_bytes=len(body))
    await channel.send(header.packed() + body)
    try:
        async with asyncio.timeout(HELLO_S):
            ending = _ending(await channel.receive(wire.REPLY.size))
            await channel.receive(ending.result_bytes)
    except TimeoutError:
        raise ChannelBroken("the container does not answer") from None


class Conversation:
    """Sends requests from the queue while the window allows it, and matches each reply with the oldest request."""

    def __init__(self, channel: Channel, queue: asyncio.PriorityQueue[Pending], in_flight: deque[Pending]) -> None:
        self._channel = channel
        self._queue = queue
        self._in_flight = in_flight
        self._window = asyncio.Semaphore(WINDOW)
        self._deadline: asyncio.Timeout | None = None

    async def serve(self, replied: Callable[[], None]) -> None:
        """Return when the guest has answered its share of requests.

        Raises:
            ChannelBroken: the requests without a reply are still in `in_flight`.
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
            await self._window.acquire()
            pending = await self._queue.get()
            if pending.reply.done():
                self._window.release()
                continue
            self._in_flight.append(pending)
            if len(self._in_flight) == 1:
                self._set_deadline()
            with contextlib.suppress(ChannelBroken):  # `_receive_one` fails too, and says which request was running
                await self._channel.send(pending.header.packed() + pending.body)

    async def _receive_one(self) -> None:
        try:
            async with asyncio.timeout(None) as self._deadline:
                self._set_deadline()
                ending = _ending(await self._channel.receive(wire.REPLY.size))
                pending = self._answered(ending)
                reply = _reply(pending, ending, await self._channel.receive(ending.result_bytes))
        except TimeoutError:
            raise ChannelBroken("no reply within the time limits of the request") from None
        self._in_flight.popleft()
        self._window.release()
        pending.resolve(reply)

    def _answered(self, ending: wire.Exit) -> Pending:
        if not self._in_flight or ending.run_id != self._in_flight[0].number:
            raise ChannelBroken("a reply that does not belong to the oldest request")
        if ending.result_bytes > self._in_flight[0].header.max_result_bytes:
            raise ChannelBroken("a reply longer than the request allows")
        return self._in_flight[0]

    def _set_deadline(self) -> None:
        """The guest works on the oldest request only, so only that one's time runs."""
        if self._in_flight and self._deadline is not None:
            ends = asyncio.get_running_loop().time() + self._in_flight[0].header.worst_case_s + GRACE_S
            self._deadline.reschedule(ends)


def _ending(data: bytes) -> wire.Exit:
    try:
        return wire.read_exit(data)
    except wire.BrokenFrame as error:
        raise ChannelBroken(str(error)) from error


def _reply(pending: Pending, ending: wire.Exit, data: bytes) -> Reply:
    nonce = pending.body[: wire.NONCE_BYTES]
    try:
        return read_reply(pending.header, nonce, ending, data, num_lines=pending.request.num_lines)
    except wire.BrokenFrame as error:
        raise ChannelBroken(str(error)) from error
