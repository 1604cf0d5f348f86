# ruff: noqa: E501  (programs read better on one line)
"""The pool against containers that die, hang or babble on cue; no Docker involved."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from sandbox import Execution, Job, Limits, SandboxBroken, SandboxError, Status, pool, wire
from sandbox.pool import ChannelBroken, Pool


class FakeContainer:
    """Answers each job with its program's text as value; a program can name its misbehaviour."""

    def __init__(self, factory: Factory) -> None:
        self._factory = factory
        self._replies: asyncio.Queue[bytes] = asyncio.Queue()
        self._buffer = b""
        self.is_closed = False

    async def send(self, data: bytes) -> None:
        header = wire.read_header(data[: wire.HEADER.size])
        job = wire.read_job(data[wire.HEADER.size :])
        self._factory.seen.append(job.program)
        self._replies.put_nowait(self._reply(header.job_id, job))

    def _reply(self, job_id: int, job: Job) -> bytes:
        if job.program in self._factory.fatal or (
            job.program in self._factory.fatal_once and self._factory.use_up(job.program)
        ):
            return b""
        if job.program == "hangs":
            return b"hang"
        if job.program == "babbles":
            return b"HTTP/1.1 200 OK, and so on and on"
        if job.program == "malformed":
            return wire.frame(job_id, b'{"status": "ok"}')
        values = ("not canonical",) if job.program == "forges" else (repr(job.program),)
        results = tuple(wire.RawResult(Status.OK, text, values * job.calls, "") for text in job.inputs)
        return wire.frame(job_id, wire.reply_bytes(wire.Reply(Status.OK, results, 0.01, 0.01, 1.0)))

    async def receive(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = await self._replies.get()
            if data == b"hang":
                await asyncio.sleep(3600)
            if not data:
                raise ChannelBroken("died")
            self._buffer += data
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    async def close(self) -> None:
        self.is_closed = True


class Factory:
    def __init__(self, *, fatal: tuple[str, ...] = (), fatal_once: tuple[str, ...] = ()) -> None:
        self.fatal = fatal
        self.fatal_once = list(fatal_once)
        self.containers: list[FakeContainer] = []
        self.seen: list[str] = []

    def use_up(self, program: str) -> bool:
        self.fatal_once.remove(program)
        return True

    async def open(self, slot: int) -> FakeContainer:
        self.containers.append(FakeContainer(self))
        return self.containers[-1]


def jobs(*programs: str) -> list[Job]:
    return [Job(program, ("1",), limits=Limits(wall_s=0.1)) for program in programs]


def outcome(factory: Factory, batch: list[Job], workers: int = 1) -> list[Execution]:
    async def scenario() -> list[Execution]:
        running = Pool(factory.open, workers)
        try:
            await running.start()
            return await asyncio.wait_for(running.run(batch), 20)
        finally:
            await running.close()

    return asyncio.run(scenario())


def statuses(executions: list[Execution]) -> list[Status]:
    return [execution.status for execution in executions]


def test_executions_come_back_in_the_order_of_the_jobs() -> None:
    executions = outcome(Factory(), jobs(*[str(i) for i in range(50)]), workers=3)
    assert [execution.results[0].value for execution in executions] == [repr(str(i)) for i in range(50)]


def test_a_death_loses_nothing() -> None:
    factory = Factory(fatal_once=("3",))
    executions = outcome(factory, jobs(*[str(i) for i in range(8)]))
    assert all(execution.ok for execution in executions)
    assert len(factory.containers) == 3


def test_a_job_that_kills_its_container_twice_is_killed_and_its_neighbours_are_not() -> None:
    executions = outcome(Factory(fatal=("bad",)), jobs("a", "bad", "b", "c", "d", "e"))
    assert statuses(executions) == [Status.OK, Status.KILLED, *[Status.OK] * 4]
    assert executions[1].results[0].status is Status.KILLED


def test_neighbours_in_the_window_are_not_charged_for_several_killers() -> None:
    executions = outcome(Factory(fatal=("x", "y", "z")), jobs("x", "y", "a", "z", "b"))
    assert statuses(executions) == [Status.KILLED, Status.KILLED, Status.OK, Status.KILLED, Status.OK]


@pytest.mark.parametrize("program", ["babbles", "malformed"])
def test_a_container_that_breaks_the_format_is_replaced(program: str) -> None:
    factory = Factory()
    assert statuses(outcome(factory, jobs("a", program, "b"))) == [Status.OK, Status.KILLED, Status.OK]
    assert len(factory.containers) == 4


def test_a_container_that_hangs_is_replaced_after_the_worst_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "GRACE_S", 0.05)
    assert statuses(outcome(Factory(), jobs("a", "hangs", "b"))) == [Status.OK, Status.KILLED, Status.OK]


def test_text_that_is_not_canonical_is_no_value() -> None:
    assert statuses(outcome(Factory(), jobs("forges", "a"))) == [Status.NOT_A_VALUE, Status.OK]


def test_containers_that_die_before_any_job_are_our_fault() -> None:
    with pytest.raises(SandboxBroken):
        outcome(Factory(fatal=("",)), jobs("a"))


def test_when_every_job_seems_to_kill_it_is_our_fault() -> None:
    batch = jobs(*[f"bad{i}" for i in range(40)])
    with pytest.raises(SandboxBroken):
        outcome(Factory(fatal=tuple(job.program for job in batch)), batch)


def test_a_container_that_cannot_be_opened_fails_the_run_and_does_not_hang() -> None:
    class Refusing(Factory):
        async def open(self, slot: int) -> FakeContainer:
            raise SandboxError("no space left")

    with pytest.raises(SandboxError, match="no space left"):
        outcome(Refusing(), jobs("a"))


def test_a_fault_of_our_own_travels() -> None:
    class Faulty(Factory):
        async def open(self, slot: int) -> FakeContainer:
            raise ZeroDivisionError

    with pytest.raises(SandboxError, match="ZeroDivisionError"):
        outcome(Faulty(), jobs("a"))


def in_pool(factory: Factory, scenario: Callable[[Pool], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        running = Pool(factory.open, 1)
        await running.start()
        try:
            await scenario(running)
        finally:
            await running.close()

    asyncio.run(whole())


def test_two_runs_at_once_do_not_mix() -> None:
    async def scenario(running: Pool) -> None:
        first, second = await asyncio.gather(running.run(jobs("a", "b")), running.run(jobs("c")))
        assert [[execution.results[0].value for execution in run] for run in (first, second)] == [
            ["'a'", "'b'"],
            ["'c'"],
        ]

    in_pool(Factory(), scenario)


def test_a_cancelled_run_does_not_stop_the_next() -> None:
    async def scenario(running: Pool) -> None:
        cancelled = asyncio.create_task(running.run(jobs(*["a"] * 20)))
        await asyncio.sleep(0)
        cancelled.cancel()
        assert (await running.run(jobs("b")))[0].ok

    in_pool(Factory(), scenario)


def test_closing_ends_every_container() -> None:
    async def scenario(running: Pool) -> None:
        assert (await running.run(jobs("a")))[0].ok

    factory = Factory()
    in_pool(factory, scenario)
    assert all(container.is_closed for container in factory.containers)


def test_a_container_is_retired_after_its_share_of_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "RECYCLE_AFTER", 10)
    factory = Factory()
    assert all(execution.ok for execution in outcome(factory, jobs(*["a"] * 35)))
    assert len(factory.containers) >= 4


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'{"status": "splendid", "results": [], "wall_s": 1.0, "cpu_s": 1.0, "peak_memory_mib": 1.0}',
        b'{"status": "ok", "results": {}, "wall_s": 1.0, "cpu_s": 1.0, "peak_memory_mib": 1.0}',
        b'{"status": "ok", "results": [["ok", "", "1", ""]], "wall_s": 1.0, "cpu_s": 1.0, "peak_memory_mib": 1.0}',
        b'{"status": "ok", "results": [["ok", "", [1], ""]], "wall_s": 1.0, "cpu_s": 1.0, "peak_memory_mib": 1.0}',
        b'{"status": "ok", "results": [], "wall_s": "1", "cpu_s": 1.0, "peak_memory_mib": 1.0}', b"[" * 100_000, b"\xff",
    ],
)  # fmt: skip
def test_a_reply_is_checked_field_by_field(body: bytes) -> None:
    with pytest.raises(wire.BrokenFrame):
        wire.read_reply(body)


def test_a_job_survives_the_wire() -> None:
    job = Job("é\ud800\0", ("1", "'a'"), entry="g", limits=Limits(wall_s=0.5), forbidden=("os.path",), calls=2)
    assert wire.read_job(wire.job_bytes(job)) == job
