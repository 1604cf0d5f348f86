"""The executor for programs that are not asynchronous."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sandbox import Blocking, Job, SandboxError
from tests.fakes import InProcessExecutor


class Failing(InProcessExecutor):
    async def __aenter__(self) -> Failing:
        raise SandboxError("no engine")


def test_a_plain_program_gets_its_executions_in_order() -> None:
    with Blocking(InProcessExecutor()) as sandbox:
        executions = sandbox.run([Job("def f(x): return x + 1", (str(i),)) for i in range(3)])
        assert sandbox.isolation == InProcessExecutor().isolation
    assert [execution.results[0].value for execution in executions] == ["1", "2", "3"]


def test_threads_may_share_it() -> None:
    with Blocking(InProcessExecutor()) as sandbox, ThreadPoolExecutor(4) as threads:
        batches = [[Job("def f(x): return x", (str(i),))] for i in range(20)]
        executions = [execution for [execution] in threads.map(sandbox.run, batches)]
        assert [execution.results[0].value for execution in executions] == [str(i) for i in range(20)]


def test_an_executor_that_does_not_start_reports_it_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    sandbox = Blocking(Failing())
    with pytest.raises(SandboxError, match="no engine"):
        sandbox.__enter__()
    assert set(threading.enumerate()) <= before


def test_a_failure_of_the_sandbox_travels() -> None:
    with (
        Blocking(InProcessExecutor(failure=SandboxError("gone"))) as sandbox,
        pytest.raises(SandboxError, match="gone"),
    ):
        sandbox.run([Job("", ())])
