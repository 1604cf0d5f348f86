"""Records on their way into the log: which of them share a transaction, who waits, and what goes to a thread."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from sandbox.audit.chain import verify
from sandbox.audit.gathering import Gathering, WouldWait
from sandbox.audit.log import CHECKPOINT_RECORDS, AuditLog
from sandbox.audit.records import Entry, Event, Head
from sandbox.types import AuditError


def entry(number: int) -> Event:
    return Event("resumed", {"after_step": number})


class Paper:
    """A ledger that keeps what is written, and where."""

    def __init__(self, *, is_busy: bool = False, failure: AuditError | None = None) -> None:
        self.batches: list[list[Entry]] = []
        self.threads: list[threading.Thread] = []
        self.is_busy = is_busy
        self._failure = failure

    def write_now(self, entries: Sequence[Entry]) -> Head:
        if self.is_busy:
            raise WouldWait
        return self.write_patiently(entries)

    def write_patiently(self, entries: Sequence[Entry]) -> Head:
        if self._failure is not None:
            raise self._failure
        self.batches.append(list(entries))
        self.threads.append(threading.current_thread())
        return Head(sum(len(batch) for batch in self.batches), "")


async def test_what_comes_alone_is_written_at_once() -> None:
    paper = Paper()
    gathering = Gathering(paper)
    task = asyncio.create_task(gathering.append([entry(1)]))
    await asyncio.sleep(0)
    assert paper.batches == [[entry(1)]]
    await task


async def test_what_has_company_shares_a_transaction_that_ends_with_the_last_of_them() -> None:
    paper = Paper()
    gathering = Gathering(paper)
    with gathering.company():
        first = asyncio.create_task(gathering.append([entry(1)]))
        await asyncio.sleep(0)
        assert paper.batches == []
    await gathering.append([entry(2)])
    assert paper.batches == [[entry(1), entry(2)]]
    await first


async def test_company_that_does_not_come_is_not_waited_for_for_long() -> None:
    paper = Paper()
    gathering = Gathering(paper)
    with gathering.company():
        await gathering.append([entry(1)])
        assert paper.batches == [[entry(1)]]


async def test_what_would_wait_is_written_in_a_thread_together_with_all_that_came_meanwhile() -> None:
    paper = Paper(is_busy=True)
    gathering = Gathering(paper)
    await asyncio.gather(*(gathering.append([entry(number)]) for number in range(3)))
    assert paper.batches == [[entry(0)], [entry(1), entry(2)]]
    assert threading.main_thread() not in paper.threads


@pytest.mark.parametrize("is_busy", [False, True])
async def test_a_ledger_that_fails_fails_everyone_who_waits_and_the_next_are_tried_again(is_busy: bool) -> None:
    gathering = Gathering(Paper(is_busy=is_busy, failure=AuditError("full")))
    with gathering.company():
        waiting = [asyncio.create_task(gathering.append([entry(number)])) for number in range(3)]
        found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(error) for error in found] == ["full"] * 3
    with pytest.raises(AuditError):
        await gathering.append([entry(4)])


async def test_whoever_is_cancelled_is_written_all_the_same() -> None:
    paper = Paper()
    gathering = Gathering(paper)
    with gathering.company():
        cancelled = asyncio.create_task(gathering.append([entry(1)]))
        await asyncio.sleep(0)
        cancelled.cancel()
        await gathering.append([entry(2)])
    assert paper.batches == [[entry(1), entry(2)]]


async def test_a_file_that_another_process_writes_to_holds_up_the_record_and_not_the_loop(tmp_path: Path) -> None:
    with closing(AuditLog.open(tmp_path / "run.db")) as log:
        with closing(sqlite3.connect(tmp_path / "run.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(log.append([entry(1)]))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            other.execute("COMMIT")
        await waiting
        assert log.head.num_records == 2
    assert verify(tmp_path / "run.db", None).findings == ()


async def test_the_write_ahead_log_is_copied_into_the_file_now_and_then(tmp_path: Path) -> None:
    with closing(AuditLog.open(tmp_path / "run.db")) as log:
        await log.append([entry(number) for number in range(CHECKPOINT_RECORDS)])
        before = (tmp_path / "run.db").stat().st_size
        await log.append([entry(0)])
        assert (tmp_path / "run.db").stat().st_size > before
        assert log.head.num_records == CHECKPOINT_RECORDS + 2
    assert verify(tmp_path / "run.db", None).findings == ()


async def test_who_waits_is_told_the_number_of_the_first_of_its_records(tmp_path: Path) -> None:
    with closing(AuditLog.open(tmp_path / "run.db")) as log:
        with log.company():
            together = asyncio.gather(log.append([entry(1), entry(2)]), log.append([entry(3)]))
            await asyncio.sleep(0)
        assert await log.append([entry(4)]) == 4
        assert await together == [1, 3]
        assert await log.append([]) == -1
