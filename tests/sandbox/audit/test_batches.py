"""Which records share a transaction, who waits for it, and what is written in a thread."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from sandbox.audit.chain import verify
from sandbox.audit.log import AuditLog
from sandbox.audit.records import Event
from sandbox.audit.writer import CHECKPOINT_RECORDS, MAX_QUICK_RECORDS
from sandbox.types import AuditError


class Opened(NamedTuple):
    """A log, its connection, and the thread of each transaction that it began."""

    log: AuditLog
    connection: sqlite3.Connection
    transactions: list[threading.Thread]

    @property
    def num_records(self) -> int:
        """Without the first record."""
        return self.log.head.num_records - 1


@pytest.fixture
def opened(tmp_path: Path) -> Generator[Opened]:
    connection = sqlite3.connect(tmp_path / "run.db", check_same_thread=False)
    transactions: list[threading.Thread] = []

    def note(statement: str) -> None:
        if statement.startswith("BEGIN"):
            transactions.append(threading.current_thread())

    with closing(AuditLog(connection, tmp_path / "anchors.jsonl")) as log:
        connection.set_trace_callback(note)
        yield Opened(log, connection, transactions)
    assert verify(tmp_path / "run.db", None).damage == ()


def record(number: int) -> Event:
    return Event("resumed", {"after_step": number})


async def test_a_record_is_written_at_once_if_nothing_else_runs(opened: Opened) -> None:
    started = asyncio.get_running_loop().time()
    await opened.log.append([record(1)])
    assert asyncio.get_running_loop().time() - started < 10
    assert (opened.num_records, opened.transactions) == (1, [threading.main_thread()])


async def test_records_share_a_transaction_with_those_of_calls_that_still_run(opened: Opened) -> None:
    with opened.log.running():
        first = asyncio.create_task(opened.log.append([record(1)]))
        await asyncio.sleep(0)
        assert opened.transactions == []
    await opened.log.append([record(2), record(3)])
    await first
    assert (opened.num_records, len(opened.transactions)) == (3, 1)


async def test_records_do_not_wait_long_for_a_call_that_does_not_end(opened: Opened) -> None:
    with opened.log.running():
        await opened.log.append([record(1)])
        assert opened.num_records == 1


async def test_a_large_batch_is_written_in_a_thread(opened: Opened) -> None:
    await opened.log.append([record(number) for number in range(MAX_QUICK_RECORDS + 1)])
    [thread] = opened.transactions
    assert thread is not threading.main_thread()


async def test_a_lock_of_another_process_delays_the_records_and_not_the_event_loop(
    opened: Opened, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "run.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        first = asyncio.create_task(opened.log.append([record(1)]))
        await asyncio.sleep(0.05)
        later = [asyncio.create_task(opened.log.append([record(number)])) for number in range(2, 5)]
        await asyncio.sleep(0.05)
        assert not first.done()
        other.execute("COMMIT")
    await asyncio.gather(first, *later)
    assert opened.num_records == 4
    assert len(opened.transactions) == 3, "refused, written in a thread, and all that arrived meanwhile"


async def test_a_thread_that_waits_for_another_process_does_not_block_the_event_loop(
    opened: Opened, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "run.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        anchoring = asyncio.create_task(asyncio.to_thread(opened.log.anchor, 1))
        await asyncio.sleep(0.1)
        appending = asyncio.create_task(opened.log.append([record(1)]))
        started = asyncio.get_running_loop().time()
        await asyncio.sleep(0.1)
        waited_s = asyncio.get_running_loop().time() - started
        other.execute("COMMIT")
        await asyncio.gather(anchoring, appending)
    assert waited_s < 10
    assert opened.num_records == 2


async def test_a_failure_is_raised_to_all_who_share_the_transaction_and_the_next_one_is_tried(opened: Opened) -> None:
    opened.connection.execute("PRAGMA query_only = ON")
    with opened.log.running():
        waiting = [asyncio.create_task(opened.log.append([record(number)])) for number in range(3)]
        found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in found] == [AuditError] * 3
    with pytest.raises(AuditError, match="cannot write the audit log"):
        await opened.log.append([record(4)])
    opened.connection.execute("PRAGMA query_only = OFF")
    await opened.log.append([record(5)])
    assert opened.num_records == 1


async def test_the_records_of_a_cancelled_caller_are_written(opened: Opened) -> None:
    with opened.log.running():
        cancelled = asyncio.create_task(opened.log.append([record(1)]))
        await asyncio.sleep(0)
        cancelled.cancel()
        await opened.log.append([record(2)])
    assert (opened.num_records, cancelled.cancelled()) == (2, True)


async def test_nothing_is_written_for_no_records(opened: Opened) -> None:
    await opened.log.append([])
    assert opened.transactions == []


async def test_the_write_ahead_log_is_copied_into_the_file_now_and_then(opened: Opened, tmp_path: Path) -> None:
    await opened.log.append([record(number) for number in range(CHECKPOINT_RECORDS)])
    before = (tmp_path / "run.db").stat().st_size
    await opened.log.append([record(0)])
    assert (tmp_path / "run.db").stat().st_size > before
    assert opened.num_records == CHECKPOINT_RECORDS + 1
