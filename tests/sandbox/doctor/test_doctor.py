"""The doctor against fakes that answer like weak, strong and broken sandboxes, then against the real ones."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

import pytest

from sandbox.doctor.check import Level
from sandbox.doctor.examine import Finding, IsolationTooWeak, examine, failures, require_isolation, required_findings
from sandbox.doctor.syscalls import ALL
from sandbox.types import Execution, Job, Status
from tests.sandbox.answering import GVISOR, RUNC, STRONG, WEAK, AnsweringExecutor
from tests.sandbox.conftest import Running


class Started:
    """A running executor of the tests, as an `Executor` for one more loop."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.isolation = running.isolation

    async def run(self, jobs: Sequence[Job]) -> list[Execution]:
        return await asyncio.to_thread(self._running.run, *jobs)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, error, trace


def row(findings: Sequence[Finding], area: str, check: str) -> Finding:
    [found] = [each for each in findings if (each.area, each.check) == (area, check)]
    return found


async def test_a_strong_sandbox_passes_every_check() -> None:
    findings = await examine(AnsweringExecutor(STRONG), {})
    assert [each for each in findings if each.level is not Level.OK] == []
    assert {each.advice for each in findings} == {""}


async def test_every_check_can_fail_and_then_says_what_to_do() -> None:
    findings = await examine(AnsweringExecutor(WEAK, replace(RUNC, seccomp="")), {"HF_TOKEN": "hf_123456"})
    probed = [each for each in findings if each.area != "versions"]
    assert [each for each in probed if each.level is Level.OK] == []
    assert all(each.advice and each.found for each in probed)


@pytest.mark.parametrize(
    "answer",
    [
        TypeError("the probe is broken"),
        Status.SYNTAX_ERROR,
        *(["x"], {"x": 1}, (1, 2), 0, "x"),
        Status.TIMEOUT,
        ModuleNotFoundError(),
    ],
)
async def test_a_check_that_could_not_be_completed_counts_as_failed(answer: object) -> None:
    findings = await examine(AnsweringExecutor(dict.fromkeys(STRONG, answer) | {"kernel": STRONG["kernel"]}), {})
    good = {each.check for each in findings if each.level is Level.OK and each.area != "versions"}
    known_outside = {"filter"}
    that_is_the_limit = {"CPU time", "wall time"} if answer is Status.TIMEOUT else set[str]()
    assert good == known_outside | that_is_the_limit


@pytest.mark.parametrize("kind", [Status.KILLED, OSError(errno.EPERM, "no"), OSError(errno.ENOSYS, "no")])
async def test_a_refusal_passes_and_an_unexplained_kill_does_not(kind: object) -> None:
    denied = AnsweringExecutor(STRONG | {"make_device": kind})
    if kind is Status.KILLED:
        assert row(await examine(denied, {}), "files", "make a device").level is Level.FAILED
    else:
        assert row(await examine(denied, {}), "files", "make a device").level is Level.OK


async def test_one_call_that_succeeds_fails_its_check_and_is_named() -> None:
    calls = dict.fromkeys(ALL, "EPERM") | {"keyctl": "returned 1", "netlink": "returned 4"}
    findings = await examine(AnsweringExecutor(STRONG | {"each": calls}), {})
    assert (row(findings, "system calls", "keyrings").level, row(findings, "system calls", "keyrings").found) == (
        Level.FAILED, "returned 1: keyctl",
    )  # fmt: skip
    assert row(findings, "sockets", "netlink").level is Level.WEAK
    assert [each.check for each in failures(findings)] == ["keyrings"]


async def test_an_error_about_the_arguments_is_not_a_refusal() -> None:
    calls = STRONG | {"each": dict.fromkeys(ALL, "EPERM") | {"mount": "ENODEV"}}
    assert row(await examine(AnsweringExecutor(calls), {}), "system calls", "mounts").level is Level.FAILED


async def test_a_call_that_gvisor_handles_passes() -> None:
    inside = {
        "kernel": ("4.19.0-gvisor", "x86_64", "3.11.7"),
        "each": dict.fromkeys(ALL, "returned 0"),
        "namespaces": {},
    }
    findings = await examine(AnsweringExecutor(STRONG | inside, GVISOR), {})
    assert failures(findings) == []
    assert "gVisor" in row(findings, "system calls", "mounts").found


async def test_a_runtime_named_runsc_on_the_host_kernel_gets_no_credit() -> None:
    granted = STRONG | {"each": dict.fromkeys(ALL, "returned 0")}
    assert failures(await examine(AnsweringExecutor(granted, GVISOR), {}))


async def test_any_environment_variable_of_the_host_is_a_leak() -> None:
    executor = AnsweringExecutor(STRONG | {"environment": {"BILLING": "acc-1234", "LANG": "C.UTF-8"}})
    leaked = row(await examine(executor, {"BILLING": "acc-1234", "LANG": "C.UTF-8"}), "identity", "environment")
    assert (leaked.level, leaked.found) == (Level.FAILED, "BILLING")
    assert row(await examine(executor, {}), "identity", "environment").level is Level.OK


async def test_namespaces_of_the_host_are_recognized() -> None:
    from sandbox.doctor.probes.processes import namespaces

    shared = AnsweringExecutor(STRONG | {"namespaces": namespaces()})
    assert row(await examine(shared, {}), "processes", "namespaces").found == "the host's: pid, net, mnt, ipc, uts"


async def test_what_is_found_cannot_steer_a_terminal() -> None:
    hostile = AnsweringExecutor(STRONG | {"strangers": ["9 \x1b[2Jall well\n\u202eok"]})
    found = row(await examine(hostile, {}), "processes", "other processes").found
    assert found == "9 \\x1b[2Jall well\\n\\u202eok"


async def test_training_runs_only_the_required_checks() -> None:
    whole = await examine(AnsweringExecutor(STRONG), {})
    short = await required_findings(AnsweringExecutor(STRONG), {})
    assert set(short) < set(whole)
    weak = await required_findings(AnsweringExecutor(WEAK), {})
    assert {each.level for each in weak} == {Level.FAILED}


async def test_a_failed_required_check_is_named_with_advice() -> None:
    with pytest.raises(IsolationTooWeak) as refused:
        await require_isolation(AnsweringExecutor(STRONG | {"routes": ["192.0.2.1"], "strangers": ["7 \x1b[2Jsshd"]}))
    message = str(refused.value)
    assert "network, TCP: required no route, found 192.0.2.1" in message
    assert "give the guest no network" in message
    assert "azr doctor" in message
    assert "\x1b" not in message


async def test_weak_rows_do_not_stop_training() -> None:
    await require_isolation(AnsweringExecutor(STRONG | {"surprising": (1, ["/opt/x"]), "kernel_addresses": True}))


async def test_probes_run_once_each_and_without_the_screen() -> None:
    executor = AnsweringExecutor(STRONG)
    await examine(executor, {})
    assert {job.forbidden for job in executor.asked} == {()}
    assert len(set(executor.asked)) == len(executor.asked)


def test_every_required_check_passes_on_this_host(sandboxed: Running) -> None:
    findings = asyncio.run(examine(Started(sandboxed)))
    assert [each.check for each in failures(findings)] == []


def test_training_starts_here(sandboxed: Running) -> None:
    asyncio.run(require_isolation(Started(sandboxed)))
