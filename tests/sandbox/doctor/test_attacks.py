"""Every attack of `sandbox.doctor.attacks` on every backend, with the static policy off and on: each must be held."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import pytest

from azr.build import make_rules
from azr.commands.hostile_texts import run_texts
from azr.config import PAPER_FORBIDDEN, SandboxConfig, TasksConfig
from sandbox import Execution, Isolation, Job, decode
from sandbox.doctor.attacks import CASES, Case, Outcome, Verdict
from sandbox.doctor.attacks.matrix import run_matrix
from sandbox.doctor.attacks.texts import TEXTS, Text
from tests.sandbox.conftest import Running

POLICIES = {"policy off": (), "policy on": PAPER_FORBIDDEN}


class Borrowed:
    """The running executor of the session, awaited from another loop."""

    def __init__(self, running: Running) -> None:
        self._running = running

    @property
    def isolation(self) -> Isolation:
        return self._running.isolation

    async def run(self, jobs: Sequence[Job]) -> list[Execution]:
        return await asyncio.to_thread(self._running.run, *jobs)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It goes on running for the next test."""


@pytest.fixture(scope="module", params=sorted(POLICIES))
def verdicts(sandboxed: Running, request: pytest.FixtureRequest) -> dict[str, Verdict]:
    """The whole matrix once for a backend and a policy; the tests below read it case by case."""
    found = asyncio.run(run_matrix(Borrowed(sandboxed), CASES, forbidden=POLICIES[request.param]))
    return {verdict.case.title: verdict for verdict in found}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_an_attack_gains_nothing_and_ends_as_foreseen(verdicts: dict[str, Verdict], case: Case) -> None:
    verdict = verdicts[case.title]
    assert verdict.outcome is Outcome.HELD, f"{verdict.status}: {verdict.detail}"
    assert verdict.is_expected, verdict.status


@pytest.fixture(scope="module")
def text_verdicts(sandboxed: Running) -> dict[str, Verdict]:
    rules = make_rules(TasksConfig(), SandboxConfig())
    return {verdict.case.name: verdict for verdict in asyncio.run(run_texts(Borrowed(sandboxed), TEXTS, rules=rules))}


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.name)
def test_a_hostile_text_cheats_neither_gate_nor_judge_nor_log(text_verdicts: dict[str, Verdict], text: Text) -> None:
    verdict = text_verdicts[text.name]
    assert verdict.outcome is Outcome.HELD, verdict.detail


def test_nothing_of_the_host_is_in_the_environment(sandboxed: Running) -> None:
    result = sandboxed.call("import os, sys\ndef f(): return sorted(os.environ), len(sys.argv)").results[0]
    allowed = {
        "HOME",
        "HOSTNAME",
        "LANG",
        "LD_BIND_NOW",
        "LD_LIBRARY_PATH",
        "PATH",
        "PWD",
        "PYTHONHASHSEED",
        "PYTHONNOUSERSITE",
        "PYTHONPATH",
        "TMPDIR",
        "TZ",
    }
    names, num_arguments = decode(result.value)
    assert set(names) <= allowed
    assert num_arguments == 1


def test_nothing_survives_from_one_input_to_the_next(sandboxed: Running) -> None:
    program = "import os\ndef f(x):\n seen = os.listdir('/tmp')\n open(f'/tmp/{x}', 'w')\n return len(seen)"
    assert len({result.value for result in sandboxed.call(program, "1", "2", "3").results}) == 1
