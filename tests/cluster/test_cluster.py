"""The workers of a cluster as one executor: order, limits, and what happens when workers are lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azr.cluster import ClusterExecutor, NoWorkerLeft, SandboxWorker, WorkerLost, WorkersDiffer
from sandbox.audit.chain import verify
from sandbox.audit.log import Audited, AuditLog, Label
from sandbox.audit.reader import AuditReader
from sandbox.types import Execution, ImageMissing, Isolation, Job, SandboxBroken, SandboxError
from tests.fakes import ISOLATION, InProcessExecutor


class FakeWorker:
    """Runs the tests' own programs. It dies after `lives[0]` calls, once restarted after `lives[1]`, and so on."""

    def __init__(self, name: str, *lives: int, isolations: Sequence[Isolation] = (ISOLATION,)) -> None:
        self.name = name
        self.batches: list[list[Job]] = []
        self.most_at_once = 0
        self.num_starts = 0
        self.is_closed = False
        self.hangs = False
        self.failure: Exception | None = None
        self._lives = list(lives)
        self._isolations = list(isolations)
        self._num_running = 0

    async def start(self) -> Isolation:
        await asyncio.sleep(0.001)
        if self.num_starts > 0 and not self._lives:
            raise WorkerLost(f"{self.name} does not restart")
        self.num_starts += 1
        return self._isolations.pop(0) if len(self._isolations) > 1 else self._isolations[0]

    async def run(self, jobs: Sequence[Job]) -> list[Execution]:
        self.batches.append(list(jobs))
        self._num_running += len(jobs)
        self.most_at_once = max(self.most_at_once, self._num_running)
        await asyncio.sleep(0.001)
        self._num_running -= len(jobs)
        if self.failure is not None:
            raise self.failure
        if self.hangs:
            await asyncio.Event().wait()
        if self._lives and self._lives[0] == 0:
            self._lives.pop(0)
            raise WorkerLost(f"{self.name} is gone")
        if self._lives:
            self._lives[0] -= 1
        return await InProcessExecutor().run(jobs)

    async def ping(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()

    async def restart(self) -> None:
        self.hangs, self.failure = False, None

    async def close(self) -> None:
        self.is_closed = True


def job(number: int) -> Job:
    return Job(f"def f(x):\n    return x + {number}", ("1",), seed_slot=number % 2)


def cluster(*workers: FakeWorker, jobs_in_flight: int = 64, silence_s: float = 30.0) -> ClusterExecutor:
    return ClusterExecutor(lambda: workers, jobs_in_flight=jobs_in_flight, silence_s=silence_s)


async def values(executor: ClusterExecutor, numbers: Sequence[int]) -> list[str]:
    return [execution.results[0].value for execution in await executor.run([job(n) for n in numbers])]


def right(num_jobs: int) -> list[str]:
    return [str(number + 1) for number in range(num_jobs)]


async def test_workers_share_the_jobs_and_executions_come_in_the_order_of_the_jobs() -> None:
    workers = [FakeWorker(name) for name in "abc"]
    async with cluster(*workers) as executor:
        assert await values(executor, range(50)) == right(50)
    assert all(worker.batches and worker.is_closed for worker in workers)


async def test_no_worker_has_more_jobs_than_it_may() -> None:
    workers = [FakeWorker("a"), FakeWorker("b")]
    async with cluster(*workers, jobs_in_flight=3) as executor:
        await asyncio.gather(*(values(executor, [n]) for n in range(40)))
    assert [worker.most_at_once for worker in workers] == [3, 3]


async def test_few_jobs_are_spread_over_the_workers() -> None:
    workers = [FakeWorker(name) for name in "abcd"]
    async with cluster(*workers) as executor:
        await values(executor, range(4))
    assert [len(worker.batches) for worker in workers] == [1, 1, 1, 1]


async def test_jobs_of_many_callers_share_a_call() -> None:
    worker = FakeWorker("a")
    async with cluster(worker) as executor:
        await asyncio.gather(*(values(executor, [n]) for n in range(16)))
    assert [len(batch) for batch in worker.batches] == [8, 8]


async def test_the_jobs_of_a_lost_worker_run_on_another_one_at_once() -> None:
    dying, other = FakeWorker("a", 2), FakeWorker("b")
    async with cluster(dying, other) as executor:
        assert await values(executor, range(60)) == right(60)
    assert sum(len(batch) for batch in other.batches) > 30


async def test_a_restarted_worker_takes_jobs_again() -> None:
    worker = FakeWorker("a", 1, 99)
    async with cluster(worker, jobs_in_flight=8) as executor:
        assert await values(executor, range(40)) == right(40)
    assert worker.num_starts == 2


async def test_a_restarted_worker_with_another_isolation_gets_no_job() -> None:
    changed = FakeWorker("a", 0, 99, isolations=[ISOLATION, replace(ISOLATION, image="sha256:1")])
    async with cluster(changed, FakeWorker("b")) as executor:
        assert await values(executor, range(8)) == right(8)
        await asyncio.sleep(0.02)
        assert changed.is_closed
        assert await values(executor, range(40)) == right(40)
    assert len(changed.batches) == 1


async def test_workers_that_differ_are_refused_by_name_and_difference() -> None:
    odd = FakeWorker("sandbox worker 0 on node odd", isolations=[replace(ISOLATION, image="sha256:1")])
    first = FakeWorker("a")
    with pytest.raises(WorkersDiffer, match=r"0 on node odd differs.*image is 'sha256:1' instead of 'sha256:0'"):
        await cluster(first, odd).__aenter__()
    assert first.is_closed
    assert odd.is_closed


async def test_other_kernels_are_allowed() -> None:
    async with cluster(FakeWorker("a"), FakeWorker("b", isolations=[replace(ISOLATION, kernel="6.9")])) as executor:
        assert await values(executor, range(8)) == right(8)


async def test_a_cluster_without_a_usable_node_is_refused() -> None:
    with pytest.raises(NoWorkerLeft, match=r"no node of the cluster is alive.*cluster\.cpus_per_sandbox"):
        await cluster().__aenter__()


async def test_when_no_worker_is_left_the_error_has_the_last_reason_and_says_how_to_continue() -> None:
    async with cluster(FakeWorker("a", 1), FakeWorker("b", 0)) as executor:
        with pytest.raises(NoWorkerLeft, match=r"The last error: a does not restart.*--resume"):
            await values(executor, range(60))
        with pytest.raises(NoWorkerLeft, match="a does not restart"):
            await values(executor, [1])


async def test_a_sandbox_that_failed_is_restarted_and_its_jobs_run_elsewhere() -> None:
    broken, other = FakeWorker("a", 99), FakeWorker("b")
    broken.failure = SandboxBroken("containers keep dying")
    async with cluster(broken, other) as executor:
        assert await values(executor, range(8)) == right(8)
        await asyncio.sleep(0.02)
        assert broken.num_starts == 2


async def test_a_sandbox_that_cannot_be_restarted_ends_the_run_with_its_message() -> None:
    broken = FakeWorker("a")
    broken.failure = SandboxBroken("the engine went away")
    async with cluster(broken) as executor:
        with pytest.raises(NoWorkerLeft, match="The last error: a does not restart"):
            await values(executor, [1])


async def test_a_worker_that_neither_answers_nor_reacts_to_a_ping_is_restarted() -> None:
    silent = FakeWorker("a", 99)
    silent.hangs = True
    async with cluster(silent, FakeWorker("b"), silence_s=0.02) as executor:
        assert await values(executor, range(20)) == right(20)
        async with asyncio.timeout(30):
            while silent.num_starts < 2:  # more often on a busy machine: it stays silent
                await asyncio.sleep(0.01)


async def test_a_slow_worker_that_reacts_to_pings_is_waited_for() -> None:
    slow = FakeWorker("a")
    async with cluster(slow, silence_s=0.0001) as executor:
        assert await values(executor, [1]) == ["2"]
    assert slow.num_starts == 1


async def test_a_bug_in_our_code_reaches_the_caller_and_costs_no_worker() -> None:
    worker = FakeWorker("a")
    worker.failure = TypeError("cannot pickle")
    async with cluster(worker) as executor:
        with pytest.raises(TypeError, match="cannot pickle"):
            await values(executor, [1])
        worker.failure = None
        assert await values(executor, [1]) == ["2"]


async def test_closing_ends_the_waiting_callers() -> None:
    hung = FakeWorker("a")
    hung.hangs = True
    executor = await cluster(hung, jobs_in_flight=1).__aenter__()
    waiting = [asyncio.create_task(values(executor, [n])) for n in range(2)]
    await asyncio.sleep(0.01)
    await executor.__aexit__(None, None, None)
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(error, SandboxError) and "closed" in str(error) for error in found), found


async def test_the_jobs_of_a_cancelled_caller_are_not_sent() -> None:
    worker = FakeWorker("a")
    async with cluster(worker, jobs_in_flight=1) as executor:
        first, second = (asyncio.create_task(values(executor, [n])) for n in (0, 1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second.cancel()
        assert await first == ["1"]
        assert await values(executor, [2]) == ["3"]
    assert [job.program[-1] for [job] in worker.batches] == ["0", "2"]


async def test_every_verdict_is_on_record_once_whatever_ran_twice(tmp_path: Path) -> None:
    with closing(AuditLog.open(tmp_path / "run.db")) as log:
        async with cluster(FakeWorker("a", 1, 2, 99), FakeWorker("b", 3)) as executor:
            await Audited(executor, log, Label("solve")).run([job(n) for n in range(40)])
        log.anchor(1)
    assert verify(tmp_path / "run.db", tmp_path / "anchors.jsonl").damage == ()
    with closing(AuditReader.open(tmp_path / "run.db")) as reader:
        assert len(list(reader.records("kind = 'execution'"))) == 40


@settings(max_examples=60, deadline=None)
@given(
    lives=st.lists(st.lists(st.integers(0, 6), max_size=3), min_size=1, max_size=5),
    num_jobs=st.integers(1, 40),
    jobs_in_flight=st.integers(1, 8),
)
def test_whatever_dies_every_job_is_answered_once_and_rightly(
    lives: list[list[int]], num_jobs: int, jobs_in_flight: int
) -> None:
    async def play() -> None:
        workers = [FakeWorker(f"w-{n}", *some) for n, some in enumerate(lives)]
        async with cluster(*workers, FakeWorker("immortal"), jobs_in_flight=jobs_in_flight) as executor:
            assert await values(executor, range(num_jobs)) == right(num_jobs)

    asyncio.run(play())


class FailingExecutor(InProcessExecutor):
    """An executor that does not start, or that starts and cannot be examined."""

    def __init__(self, *, on_start: SandboxError | None = None, on_run: SandboxError | None = None) -> None:
        super().__init__(on_run)
        self.on_start = on_start
        self.is_closed = False

    async def __aenter__(self) -> Self:
        if self.on_start:
            raise self.on_start
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, error, trace
        self.is_closed = True


async def test_a_worker_takes_no_job_before_it_has_proven_its_isolation() -> None:
    executor = FailingExecutor(on_run=SandboxBroken("containers keep dying"))
    worker = SandboxWorker(lambda: executor)
    with pytest.raises(WorkerLost, match="restarted"):
        await worker.run([job(1)])
    with pytest.raises(SandboxBroken):
        await worker.start()
    assert executor.is_closed
    with pytest.raises(WorkerLost, match="restarted"):
        await worker.run([job(1)])


async def test_a_sandbox_that_does_not_start_says_why() -> None:
    executor = FailingExecutor(on_start=ImageMissing("run `azr image build`"))
    with pytest.raises(ImageMissing, match="azr image build"):
        await SandboxWorker(lambda: executor).start()
