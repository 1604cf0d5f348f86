"""A whole run whose sandboxes are a cluster's workers: it trains as ever, and `azr audit` reads all its logs as one."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sandbox.audit.worker_logs import log_of
from typer.testing import CliRunner, Result

from azr import configfile
from azr.build import make_game, put_on_record
from azr.cli import app
from azr.cluster.base import Node
from azr.cluster.executor import ClusterExecutor
from azr.config import ClusterConfig
from azr.training.loop import train
from sandbox.audit.log import AuditLog
from tests.cluster.fleets import FakeFleet, FakeWorker
from tests.training.test_audit_run import SETTINGS, script
from tests.training.test_loop import session


def azr(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["audit", *(str(argument) for argument in arguments)])


async def trained(folder: Path, fleet: FakeFleet, steps: int = 2) -> Path:
    """A run, or what is left of it, up to a step."""
    bare = session(folder, *SETTINGS, f"steps={steps}")
    (folder / "config.toml").write_text(configfile.dump(bare.config))
    async with ClusterExecutor(fleet, ClusterConfig(jobs_in_flight=8)) as executor:
        with closing(AuditLog.open(folder / "run.db")) as log, closing(bare.store):
            recorded, audit = await put_on_record(executor, log, folder)
            types = dict(bare.game.task_types)
            game = make_game(bare.config, policy=script(), executor=recorded, task_types=types, held_out=[])
            await train(replace(bare, game=game, policy=script(), audit=audit))
    return folder


@pytest.fixture(name="run")
def run_with_a_loss(tmp_path: Path) -> Path:
    """Two workers, of which one is lost on the way, after it has recorded what nobody was told."""

    def make(name: str, node: Node) -> FakeWorker:
        worker = FakeWorker(name, node, dies_after=6 if name == "a-0" else -1)
        worker.records_before_it_dies = True
        return worker

    return asyncio.run(trained(tmp_path / "run", FakeFleet("a", "b", make=make)))


def test_every_verdict_and_reward_follows_from_the_workers_logs(run: Path) -> None:
    found = azr("reverify", run)
    assert (found.exit_code, "0 mismatches" in found.output) == (0, True), found.output
    assert "of lost workers whose jobs ran again" in found.output


def test_verify_checks_all_logs_and_names_the_one_that_was_changed(run: Path) -> None:
    whole = azr("verify", run)
    assert whole.exit_code == 0, whole.output
    assert "worker b-0: " in whole.output
    log_of(run, "b-0").unlink()
    broken = azr("verify", run)
    assert broken.exit_code == 1
    assert "the log of worker 'b-0' that this record tells of is gone" in broken.output


def test_records_are_listed_shown_and_exported_by_worker(run: Path) -> None:
    rows = [json.loads(line) for line in azr("list", run, "--json", "--limit", 0).output.splitlines()]
    workers = [row["id"] for row in rows if str(row["id"]).startswith("b-0:") and row["status"]]
    shown = azr("show", run, workers[0])
    assert workers[0] in shown.output
    assert "chain           b-0" in shown.output
    assert azr("export", run, "--output", run / "all.jsonl").exit_code == 0
    exported = [json.loads(line) for line in (run / "all.jsonl").read_text().splitlines()]
    assert len(exported) == len(rows)
    assert {"a-0", "b-0", None} <= {row["chain"] for row in exported}


@pytest.mark.parametrize("record", ["nobody:3", "b-0:", "b-0:x", "b-0:99999", ":", "-1x"])
def test_a_record_that_is_not_there_is_told_of(run: Path, record: str) -> None:
    shown = azr("show", run, "--", record)
    assert shown.exit_code == 1
    assert "azr audit list" in str(shown.exception)


async def test_a_run_that_goes_on_with_other_workers_is_judged_by_what_ran_last(tmp_path: Path) -> None:
    run = await trained(tmp_path / "run", FakeFleet("a", "b"), steps=1)
    await trained(run, FakeFleet("a", "c"), steps=2)
    verified, judged = await asyncio.to_thread(azr, "verify", run), await asyncio.to_thread(azr, "reverify", run)
    assert (verified.exit_code, judged.exit_code) == (0, 0), verified.output + judged.output
