"""The cluster as one executor: who takes part, what is on record where, and what is told apart after a loss."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from sandbox.audit.worker_logs import RunAudit, RunVerification, log_of, logs_of, verify_run

from azr.audit.reader import RunReader
from azr.audit.timeline import Timeline
from azr.cluster.base import Node, NoWorkerLeft, WorkersDiffer
from azr.cluster.executor import MOST_STARTS, ClusterExecutor, Recorded
from azr.config import ClusterConfig
from sandbox.audit.log import AuditLog, Label, labelled
from sandbox.audit.reader import AuditReader
from sandbox.types import AuditError, SandboxBroken, SandboxError
from tests.cluster.fleets import FakeFleet, FakeWorker, another_image, job, run_folder


def cluster(fleet: FakeFleet, *, per_node: int = 1) -> ClusterExecutor:
    return ClusterExecutor(fleet, ClusterConfig(sandboxes_per_node=per_node, jobs_in_flight=8))


@asynccontextmanager
async def recording(fleet: FakeFleet, run: Path) -> AsyncGenerator[tuple[Recorded, RunAudit]]:
    """A cluster with its logs in a run directory, and the audit that the training loop has."""
    async with cluster(fleet) as executor:
        with closing(AuditLog.open(run / "run.db")) as log:
            audit = RunAudit(log, executor)
            yield await executor.recorded(run, log, Label("train")), audit


async def played(run: Path, *hosts: str, num_jobs: int = 24) -> Path:
    """A run of one anchored step on some hosts."""
    async with recording(FakeFleet(*hosts), run) as (executor, audit):
        await executor.labelled(purpose="solve", step=1).run([job(n) for n in range(num_jobs)])
        await audit.anchor(1)
    return run


def verified(run: Path) -> RunVerification:
    return verify_run(run, run / "anchors.jsonl")


def kinds(run: Path) -> set[tuple[str, str]]:
    return {(worker, finding.kind) for worker, finding in verified(run).findings}


async def settled() -> None:
    """Replacements have been started."""
    await asyncio.sleep(0.02)


async def test_every_node_gets_its_workers_and_they_share_the_jobs() -> None:
    fleet = FakeFleet("a", "b")
    async with cluster(fleet, per_node=2) as executor:
        executions = await executor.run([job(n) for n in range(40)])
    assert [execution.results[0].value for execution in executions] == [str(n + 1) for n in range(40)]
    assert sorted(worker.name for worker in fleet.workers) == ["a-0", "a-1", "b-0", "b-1"]
    assert all(worker.chunks and worker.is_closed for worker in fleet.workers)


async def test_workers_that_differ_are_refused_by_name_and_difference() -> None:
    with pytest.raises(WorkersDiffer, match=r"odd-0 on node odd.*image is 'sha256:1', elsewhere 'sha256:0'"):
        await cluster(FakeFleet("a", "odd", make=another_image)).__aenter__()


async def test_a_cluster_without_nodes_is_refused() -> None:
    with pytest.raises(NoWorkerLeft, match="no node that is alive"):
        await cluster(FakeFleet()).__aenter__()


async def test_a_node_that_joins_later_is_picked_up_between_steps_one_that_differs_is_left_out(tmp_path: Path) -> None:
    fleet = FakeFleet("a", make=another_image)
    async with recording(fleet, run_folder(tmp_path)) as (executor, audit):
        await audit.anchor(1)
        fleet.hosts += ["odd", "b"]
        await audit.anchor(2)
        await settled()
        await executor.run([job(n) for n in range(40)])
        await audit.anchor(3)
    took_part = {worker.name for worker in fleet.workers if worker.chunks}
    assert took_part == {"a-0", "b-0"}
    assert verified(run_folder(tmp_path)).findings == []


async def test_a_lost_worker_is_replaced_and_its_jobs_run_elsewhere(tmp_path: Path) -> None:
    lives = iter([1, -1, -1])
    fleet = FakeFleet("a", "b", make=lambda name, node: FakeWorker(name, node, dies_after=next(lives)))
    async with recording(fleet, run_folder(tmp_path)) as (executor, _):
        await executor.run([job(n) for n in range(40)])
        await settled()
        await executor.run([job(n) for n in range(40)])
    assert {worker.name for worker in fleet.workers if worker.chunks} == {"a-0", "b-0", "a-1"}


async def test_when_no_worker_can_be_started_any_more_the_run_ends_with_the_reason() -> None:
    fleet = FakeFleet("a", make=lambda name, node: FakeWorker(name, node, dies_after=0))
    async with cluster(fleet) as executor:
        with pytest.raises(NoWorkerLeft, match=r"The last one: a-\d is gone.*--resume"):
            await executor.run([job(n) for n in range(3)])
    assert len(fleet.workers) <= MOST_STARTS


async def test_a_lost_node_whose_workers_cannot_be_started_is_no_matter_while_others_live() -> None:
    def make(name: str, node: Node) -> FakeWorker:
        worker = FakeWorker(name, node, dies_after=1 if name == "a-0" else -1)
        if name == "a-1":
            raise SandboxBroken("no engine there")
        return worker

    async with cluster(FakeFleet("a", "b", make=make)) as executor:
        assert len(await executor.run([job(n) for n in range(40)])) == 40


async def test_labels_travel_to_the_workers_that_record_what_they_ran(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    async with recording(FakeFleet("a", "b"), run) as (executor, _):
        await labelled(executor, purpose="solve", step=7).run([job(n) for n in range(16)])
    found: list[str] = []
    for name, file in logs_of(run).items():
        with closing(AuditReader.open(file)) as reader:
            bodies = list(reader.records("kind = 'execution'"))
        assert {(body["purpose"], body["step"]) for body in bodies} == {("solve", 7)}, name
        found += [body["program"] for body in bodies]
    assert len(set(found)) == len(found) == 16


async def test_the_anchor_of_the_runs_log_fixes_every_workers_log(tmp_path: Path) -> None:
    run = await played(run_folder(tmp_path), "a", "b")
    found = verified(run)
    assert found.findings == []
    assert found.own.num_after_anchor == 0
    assert {name: log.num_after_anchor for name, log in found.workers.items()} == {"a-0": 0, "b-0": 0}


async def test_a_workers_log_that_was_deleted_is_missed(tmp_path: Path) -> None:
    run = await played(run_folder(tmp_path), "a", "b")
    log_of(run, "b-0").unlink()
    [(worker, finding)] = verified(run).findings
    assert (worker, finding.kind) == ("", "missing")
    assert "worker 'b-0'" in finding.text


async def test_a_workers_log_that_was_written_anew_is_found(tmp_path: Path) -> None:
    run = await played(run_folder(tmp_path / "mine"), "a")
    other = await played(run_folder(tmp_path / "other"), "a")
    for suffix in ("", ".anchors.jsonl"):
        own, theirs = (file.with_name(file.name + suffix) for file in (log_of(run, "a-0"), log_of(other, "a-0")))
        own.write_bytes(theirs.read_bytes())
    assert kinds(run) == {("a-0", "anchor")}


async def test_exchanged_logs_of_two_workers_are_found(tmp_path: Path) -> None:
    run = await played(run_folder(tmp_path), "a", "b")
    first, second = log_of(run, "a-0").parent, log_of(run, "b-0").parent
    first.rename(run / "aside")
    second.rename(first)
    (run / "aside").rename(second)
    assert kinds(run) == {("a-0", "anchor"), ("b-0", "anchor")}


async def test_a_workers_log_that_lost_its_end_and_its_anchors_is_found(tmp_path: Path) -> None:
    run = await played(run_folder(tmp_path), "a")
    cut_last_record(log_of(run, "a-0"))
    log_of(run, "a-0").with_name("audit.db.anchors.jsonl").unlink()
    assert ("a-0", "anchor") in kinds(run)


async def test_a_changed_record_of_a_worker_is_found(tmp_path: Path) -> None:
    run = await played(run_folder(tmp_path), "a")
    change_a_record(log_of(run, "a-0"))
    assert ("a-0", "changed") in kinds(run)


async def test_a_log_that_no_record_of_the_run_tells_of_is_found(tmp_path: Path) -> None:
    run = await played(run_folder(tmp_path), "a")
    (run / "audit" / "forged-0").mkdir()
    AuditLog.open(log_of(run, "forged-0")).close()
    assert kinds(run) == {("forged-0", "foreign")}


async def test_what_a_lost_worker_recorded_and_nobody_used_is_told_apart(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    lives = iter([1, -1, -1])

    def make(name: str, node: Node) -> FakeWorker:
        worker = FakeWorker(name, node, dies_after=next(lives))
        worker.records_before_it_dies = True
        return worker

    async with recording(FakeFleet("a", "b", make=make), run) as (executor, audit):
        await executor.labelled(purpose="solve", step=1).run([job(n) for n in range(40)])
        await audit.anchor(1)
    with closing(RunReader.open(run)) as reader:
        timeline = Timeline(reader)
        used = timeline.executions(1)
        num_records = len(list(reader.records("kind = 'execution'")))
    assert timeline.num_executions == len(used) == 40
    assert timeline.num_unused == num_records - 40 > 0
    assert verified(run).findings == []


async def test_a_resumed_run_goes_on_in_the_logs_of_the_workers_that_are_back(tmp_path: Path) -> None:
    run = await played(run_folder(tmp_path), "a", "b")
    async with recording(FakeFleet("a", "c"), run) as (executor, audit):
        assert audit.is_begun
        await audit.resumed(0)
        await executor.labelled(purpose="solve", step=1).run([job(n) for n in range(100, 110)])
        await audit.anchor(1)
    assert verified(run).findings == []
    assert set(verified(run).workers) == {"a-0", "b-0", "c-0"}
    with closing(RunReader.open(run)) as reader:
        timeline = Timeline(reader)
        assert len(timeline.executions(1)) == 10
        assert timeline.num_dropped == 24
        marks = {body.get("chain", "") for body in reader.records("kind = 'resumed'")}
    assert marks == {"", "a-0"}


async def test_a_worker_that_does_not_see_the_run_directory_is_told_by_name(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    async with cluster(FakeFleet("a")) as executor:
        with closing(AuditLog.open(run / "run.db")) as log:
            await executor.recorded(run, log, Label("train"))
            (run / "audit" / "token").write_text("of another machine")
            [worker] = [FakeWorker("late-0", node) for node in await FakeFleet("late").nodes()]
            with pytest.raises(AuditError, match=r"late-0 does not see the run directory.*sandboxes_per_node = 0"):
                await worker.open_log(str(run), "the token")


async def test_an_engine_that_goes_away_everywhere_ends_the_run_with_its_message() -> None:
    def make(name: str, node: Node) -> FakeWorker:
        worker = FakeWorker(name, node)
        worker.failure = SandboxBroken("the engine went away")
        return worker

    async with cluster(FakeFleet("a", make=make)) as executor:
        with pytest.raises(SandboxError, match="the engine went away"):
            await executor.run([job(1)])


def change_a_record(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DROP TRIGGER executions_no_update")
        connection.execute("UPDATE executions SET body = replace(body, 'solve', 'salve') WHERE sequence = 2")
        connection.commit()


def cut_last_record(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        [guard] = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'executions_no_delete'").fetchone()
        connection.execute("DROP TRIGGER executions_no_delete")
        connection.execute("DELETE FROM executions WHERE sequence = (SELECT max(sequence) FROM executions)")
        connection.execute(guard)
        connection.commit()
