"""Which worker runs which job: order, back-pressure, and what happens when workers are lost."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azr.cluster.base import Node, WorkerLost
from azr.cluster.routing import KILLED, Router, Seat
from sandbox.audit.records import Label
from sandbox.types import Job, SandboxBroken, SandboxError, Status
from tests.cluster.fleets import POISON, FakeWorker, job

NODE = Node("id", "node")


def worker(name: str = "w", *, dies_after: int = -1) -> FakeWorker:
    return FakeWorker(name, NODE, dies_after=dies_after)


class Losses:
    """Remembers who was given up, and may give a worker in its place."""

    def __init__(self, *replacements: FakeWorker) -> None:
        self.seats: list[Seat] = []
        self.replacements = list(replacements)
        self.router: Router | None = None

    def __call__(self, seat: Seat, error: SandboxError) -> None:
        self.seats.append(seat)
        assert self.router is not None
        if self.replacements:
            self.router.add(self.replacements.pop(0))
        elif not self.router.seats:
            self.router.fail(error)


def router_of(
    *workers: FakeWorker,
    losses: Losses | None = None,
    jobs_in_flight: int = 64,
    chunk: int = 4,
    silence_s: float = 30.0,
) -> Router:
    losses = losses or Losses()
    losses.router = Router(losses, jobs_in_flight=jobs_in_flight, chunk=chunk, silence_s=silence_s)
    for one in workers:
        losses.router.add(one)
    return losses.router


async def values(router: Router, jobs: list[Job], label: Label | None = None) -> list[str]:
    return [execution.results[0].value for execution in await router.run(jobs, label)]


async def test_executions_come_in_the_order_of_the_jobs() -> None:
    router = router_of(worker("a"), worker("b"), worker("c"), chunk=2)
    assert await values(router, [job(n) for n in range(50)]) == [str(n + 1) for n in range(50)]


async def test_no_worker_has_more_jobs_than_it_may() -> None:
    workers = [worker("a"), worker("b")]
    router = router_of(*workers, jobs_in_flight=3, chunk=2)
    await asyncio.gather(*(values(router, [job(n)]) for n in range(40)))
    assert [one.most_at_once for one in workers] == [3, 3]


async def test_few_jobs_are_spread_over_the_workers() -> None:
    workers = [worker(name) for name in "abcd"]
    await values(router_of(*workers), [job(n) for n in range(4)])
    assert [len(one.chunks) for one in workers] == [1, 1, 1, 1]


async def test_jobs_of_many_callers_share_a_call_those_of_two_labels_do_not() -> None:
    one = worker()
    router = router_of(one, chunk=4)
    await asyncio.gather(*(values(router, [job(n)]) for n in range(8)))
    assert [len(chunk) for chunk in one.chunks] == [4, 4]
    mixed = worker()
    router = router_of(mixed, chunk=4)
    labels = [None, None, Label("solve"), None]
    with pytest.raises(SandboxError, match="before it had a log"):  # it is given up, whoever asked
        await asyncio.gather(*(values(router, [job(n)], label) for n, label in enumerate(labels)))
    assert [len(chunk) for chunk in mixed.chunks] == [2, 1, 1]


async def test_jobs_of_a_lost_worker_run_elsewhere_and_are_answered_once() -> None:
    losses = Losses()
    router = router_of(worker("a", dies_after=2), worker("b"), losses=losses)
    assert await values(router, [job(n) for n in range(60)]) == [str(n + 1) for n in range(60)]
    assert [seat.worker.name for seat in losses.seats] == ["a"]


async def test_suspects_run_alone() -> None:
    dying, other = worker("a", dies_after=0), worker("b")
    router = router_of(dying, other, jobs_in_flight=4)
    await values(router, [job(n) for n in range(20)])
    suspects = {one.program for chunk in dying.chunks for one in chunk}
    again = [chunk for chunk in other.chunks if chunk[0].program in suspects]
    assert len(suspects) == 4
    assert [len(chunk) for chunk in again] == [1] * 4


async def test_workers_that_die_of_themselves_convict_no_job() -> None:
    losses = Losses(*(worker(f"spare-{n}", dies_after=0) for n in range(9)))
    with pytest.raises(WorkerLost, match="spare-8 is gone"):
        await values(router_of(worker("a", dies_after=0), losses=losses), [job(n) for n in range(3)])


async def test_a_job_that_takes_down_two_workers_is_killed_and_only_that_one() -> None:
    losses = Losses(worker("c"), worker("d"))
    router = router_of(worker("a"), worker("b"), losses=losses)
    jobs = [job(0), Job(POISON, ("1", "2")), *(job(n) for n in range(1, 12))]
    executions = await router.run(jobs, None)
    assert [execution.status for execution in executions].count(Status.KILLED) == 1
    assert [(run.status, run.error) for run in executions[1].results] == [(Status.KILLED, KILLED)] * 2
    assert len(losses.seats) == 2


async def test_a_worker_whose_sandbox_failed_is_given_up_and_nobody_is_suspected() -> None:
    broken, other = worker("a"), worker("b")
    broken.failure = SandboxBroken("containers keep dying")
    await values(router_of(broken, other, chunk=4), [job(n) for n in range(8)])
    assert [len(chunk) for chunk in other.chunks] == [4, 4]


async def test_when_nobody_is_left_whoever_waits_is_told_why() -> None:
    router = router_of(worker("a", dies_after=0))
    with pytest.raises(WorkerLost, match="a is gone"):
        await values(router, [job(n) for n in range(10)])
    with pytest.raises(WorkerLost, match="a is gone"):
        await values(router, [job(1)])
    router.add(worker("b"))
    assert await values(router, [job(1)]) == ["2"]


async def test_a_worker_that_neither_replies_nor_answers_is_lost_with_all_its_calls() -> None:
    silent, other, losses = worker("a"), worker("b"), Losses()
    silent.hangs = True
    router = router_of(silent, other, losses=losses, silence_s=0.02)
    assert await values(router, [job(n) for n in range(20)]) == [str(n + 1) for n in range(20)]
    assert [seat.worker.name for seat in losses.seats] == ["a"]


async def test_a_worker_that_is_slow_but_there_is_waited_for() -> None:
    slow, losses = worker("a"), Losses()
    assert await values(router_of(slow, losses=losses, silence_s=0.0001), [job(1)]) == ["2"]
    assert losses.seats == []


async def test_closing_ends_whoever_waits() -> None:
    hung = worker()
    hung.hangs = True
    router = router_of(hung)
    waiting = asyncio.create_task(values(router, [job(1)]))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await router.close()
    with pytest.raises(SandboxError, match="closed"):
        await values(router, [job(1)])


@settings(max_examples=60, deadline=None)
@given(
    lives=st.lists(st.integers(-1, 6), min_size=1, max_size=5),
    num_jobs=st.integers(1, 40),
    poisoned=st.sets(st.integers(0, 39), max_size=2),
    jobs_in_flight=st.integers(1, 8),
    chunk=st.integers(1, 4),
)
def test_whatever_dies_every_job_is_answered_once_and_rightly(
    lives: list[int], num_jobs: int, poisoned: set[int], jobs_in_flight: int, chunk: int
) -> None:
    async def play() -> None:
        losses = Losses(*(worker(f"spare-{n}") for n in range(8)))
        workers = [worker(f"w-{n}", dies_after=life) for n, life in enumerate(lives)]
        router = router_of(*workers, losses=losses, jobs_in_flight=jobs_in_flight, chunk=chunk)
        jobs = [Job(POISON, ("1",)) if n in poisoned else job(n) for n in range(num_jobs)]
        executions = await router.run(jobs, None)
        for number, execution in enumerate(executions):
            if number in poisoned:
                assert execution.status is Status.KILLED
            elif execution.status is not Status.KILLED:  # alone on a worker that died just then by itself
                assert execution.results[0].value == str(number + 1)
        assert all(seat.num_jobs == 0 for seat in router.seats)
        assert max(Counter(seat.worker.name for seat in losses.seats).values(), default=0) <= 1
        await router.close()

    asyncio.run(play())
