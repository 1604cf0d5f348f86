"""Lets records that come shortly after one another share a transaction. Read `Gathering.append`.

A transaction is written in the event loop's own thread: it takes less than handing it to another one, and waits for
no disk. One that would wait, for another process that writes or for a checkpoint, goes to a thread, as a long one does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from sandbox.audit.records import Entry, Head

GATHER_S = 0.02
"""How long records wait for company, while something runs that may bring some."""


class WouldWait(Exception):
    """Writing now would hold up the event loop."""


class Ledger(Protocol):
    """What writes entries in one transaction; all or none."""

    def write_now(self, entries: Sequence[Entry]) -> Head:
        """Returns the end of the chain, as the other one does.

        Raises:
            WouldWait: nothing was written.
        """
        ...

    def write_patiently(self, entries: Sequence[Entry]) -> Head: ...


@dataclass(frozen=True, slots=True)
class _Batch:
    """Entries for one transaction, and whoever waits for it."""

    timer: asyncio.TimerHandle
    entries: list[Entry] = field(default_factory=list[Entry])
    waiting: list[tuple[int, asyncio.Future[int]]] = field(default_factory=list[tuple[int, asyncio.Future[int]]])
    """Each with the place of its first entry among `entries`."""

    def succeed(self, head: Head) -> None:
        for place, written in self.waiting:
            if not written.done():
                written.set_result(head.num_records - len(self.entries) + place)

    def fail(self, error: BaseException) -> None:
        for _, written in self.waiting:
            if written.done():
                continue
            if isinstance(error, asyncio.CancelledError):
                written.cancel()
            else:
                written.set_exception(error)


class Gathering:
    """Entries on their way into a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._num_running = 0
        self._batch: _Batch | None = None
        self._patient: asyncio.Task[None] | None = None

    @contextmanager
    def company(self) -> Generator[None]:
        """While something runs whose entries are worth waiting for."""
        self._num_running += 1
        try:
            yield
        finally:
            self._num_running -= 1

    async def append(self, entries: Sequence[Entry]) -> int:
        """Put entries on record; returns when they are: the number of the first, -1 where there is none.

        They are written even if who waits is cancelled.
        """
        if not entries:
            return -1
        loop = asyncio.get_running_loop()
        if self._batch is None:
            self._batch = _Batch(loop.call_later(GATHER_S, self._write))
        written: asyncio.Future[int] = loop.create_future()
        self._batch.waiting.append((len(self._batch.entries), written))
        self._batch.entries.extend(entries)
        if not self._num_running:
            self._write()
        return await written

    def _write(self) -> None:
        if self._patient is not None and not self._patient.done():
            return  # it takes what has gathered when it is through
        batch = self._taken()
        if batch is None:
            return
        try:
            head = self._ledger.write_now(batch.entries)
        except WouldWait:
            self._patient = asyncio.create_task(self._write_patiently(batch))
        except BaseException as error:
            batch.fail(error)
            if not isinstance(error, Exception):
                raise
        else:
            batch.succeed(head)

    async def _write_patiently(self, batch: _Batch | None) -> None:
        while batch is not None:
            try:
                head = await asyncio.to_thread(self._ledger.write_patiently, batch.entries)
            except BaseException as error:
                batch.fail(error)
                if not isinstance(error, Exception):
                    raise
            else:
                batch.succeed(head)
            batch = self._taken()

    def _taken(self) -> _Batch | None:
        batch, self._batch = self._batch, None
        if batch is not None:
            batch.timer.cancel()
        return batch
