"""What is made of measured times: the trainer's share of a call and of a verdict, and the picture."""

from __future__ import annotations

import importlib.util
from contextlib import closing
from pathlib import Path

import pytest

from azr.cluster.measuring import costs, rate, record_s, services_s
from azr.cluster.plot import draw
from azr.errors import RunError
from benchmarks.scaling import run_scaling
from sandbox.audit.log import AuditLog
from tests.cluster.fleets import job
from tests.fakes import InProcessExecutor


def test_the_costs_of_a_call_and_of_a_verdict_are_told_apart() -> None:
    by_chunk = [(chunk, 0.004 / chunk + 0.001) for chunk in (1, 2, 4, 8)]
    assert costs(by_chunk, 0.5) == pytest.approx((0.004, 0.001, 0.5))


async def test_batches_records_and_single_jobs_are_timed(tmp_path: Path) -> None:
    executor, jobs = InProcessExecutor(), [job(n) for n in range(10)]
    found = await rate(executor, jobs, repeats=2)
    assert (found.num_jobs, len(executor.jobs)) == (10, 30)
    assert found.jobs_per_s > 0
    assert found.thread_s_per_job > 0
    assert len(await services_s(executor, jobs)) == 10
    with closing(AuditLog.open(tmp_path / "audit.db")) as log:
        assert await record_s(executor, log, jobs) > 0
        assert log.head.num_records == 11


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", {"8 jobs a call": {1: 100.0, 2: 190.0}}, {1: 50.0, 2: 60.0}, 0.5)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_it_is_said_what_to_install() -> None:
    with pytest.raises(RunError, match=r"pip install 'azr\[openrlhf\]'"):
        run_scaling(None, num_jobs=50, as_json=False)
