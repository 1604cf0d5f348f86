"""What the isolation on this host really gives, probed from inside. Read `examine` first.

The probes are programs like any other (`sandbox/probes`), run through the executor as hostile ones would be. What they
answer is read here, outside (`sandbox/checks`). A row that could not be proven counts as not given.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from sandbox.doctor.checks import files, identity, limits, network, processes, repeats, syscalls
from sandbox.doctor.checks.check import Answer, Check, Host, Probe, Reading, Verdict
from sandbox.doctor.probes.processes import namespaces
from sandbox.shared.values import NotCanonical, decode, encode
from sandbox.types import Execution, Executor, Job, SandboxError

AREAS: tuple[Callable[[Host], list[Check]], ...] = (
    network.checks, syscalls.checks, files.checks, processes.checks, limits.checks, identity.checks, repeats.checks,
)  # fmt: skip
MAX_FOUND_CHARS = 300
KERNEL = Probe("identity", "kernel")


class IsolationTooWeak(SandboxError):
    """Something that is required of the sandbox is not given here; the message names it and the way out."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One row: what is asked, what is there."""

    area: str
    check: str
    required: str
    found: str
    """Short, from inside, and shown on one line without control characters."""
    verdict: Verdict
    advice: str
    """What to do; empty when all is well."""


async def examine(executor: Executor, environment: Mapping[str, str] | None = None) -> list[Finding]:
    """All rows. The executor has started.

    Args:
        environment: the host's variables, which must not be seen inside; None takes this process's.

    Raises:
        SandboxError: the sandbox failed altogether.
    """
    return await _examine(executor, environment, wants=lambda check: True)


async def required_findings(executor: Executor, environment: Mapping[str, str] | None = None) -> list[Finding]:
    """The rows that training does not start without; about a second.

    Raises:
        SandboxError: the sandbox failed altogether.
    """
    return await _examine(executor, environment, wants=lambda check: check.is_required and bool(check.probes))


async def require_isolation(executor: Executor) -> None:
    """Return when every required row is given.

    Raises:
        IsolationTooWeak: one is not.
    """
    failed = failures(await required_findings(executor))
    if failed:
        raise IsolationTooWeak(refusal(failed))


def failures(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.verdict is Verdict.FAILED]


def refusal(failed: Sequence[Finding]) -> str:
    """Why it does not go on, and what to do."""
    rows = [f"  {each.area}, {each.check}: {each.required} required, found {each.found}" for each in failed]
    ways = [f"  - {advice}" for advice in dict.fromkeys(each.advice for each in failed)]
    return "\n".join(
        [
            "The sandbox on this host does not give what is required; no model's program was run.",
            *rows,
            "What to do:",
            *ways,
            "  - see every row with `azr doctor`, or try another backend: `azr doctor --all`",
        ]
    )


async def _examine(
    executor: Executor, environment: Mapping[str, str] | None, *, wants: Callable[[Check], bool]
) -> list[Finding]:
    with _bait(executor, os.environ if environment is None else environment) as make_host:
        kernel = (await _answers(executor, [KERNEL]))[KERNEL]
        host = make_host(cast(tuple[str, str, str], kernel.value or ("unknown", kernel.told, "unknown")))
        checks = [check for area in AREAS for check in area(host) if wants(check)]
        await _answers(executor, [probe for check in checks for probe in check.before])
        answers = await _answers(executor, [probe for check in checks for probe in check.probes])
    return [_finding(check, [answers[probe] for probe in check.probes], host) for check in checks]


async def _answers(executor: Executor, probes: Sequence[Probe]) -> dict[Probe, Answer]:
    """Each probe once, however many checks look at it."""
    once = list(dict.fromkeys(probes))
    executions = await executor.run([_job(probe) for probe in once])
    return {probe: _answer(execution) for probe, execution in zip(once, executions, strict=True)}


def _job(probe: Probe) -> Job:
    """Without a static policy: it would be no proof of what the kernel does."""
    arguments = ", ".join(encode(argument) for argument in probe.arguments)
    return Job(probe.program, (arguments,), probe.entry, probe.limits, seed_slot=probe.seed_slot)


def _answer(execution: Execution) -> Answer:
    error, value = "", None
    for result in execution.results:
        error = result.error
        if execution.ok:
            with contextlib.suppress(NotCanonical):
                value = decode(result.value)
    is_denied = execution.denied > 0 or "signal 31" in error
    return Answer(execution.status, value, error, is_denied, execution.wall_s)


def _finding(check: Check, answers: Sequence[Answer], host: Host) -> Finding:
    reading = _reading(check, answers, host)
    found = "".join(_visible(char) for char in reading.found[:MAX_FOUND_CHARS])
    verdict = Verdict.OK if reading.ok else Verdict.FAILED if check.is_required else Verdict.WEAK
    advice = "" if reading.ok else check.advice
    return Finding(check.area, check.name, check.required, found, verdict, advice)


def _reading(check: Check, answers: Sequence[Answer], host: Host) -> Reading:
    """What the judge says; an answer that no probe of ours gives proves nothing."""
    try:
        return check.judge(answers, host)
    except (LookupError, TypeError, ValueError, AttributeError):
        return Reading("an answer of no known form", ok=False)


def _visible(char: str) -> str:
    """A weak sandbox is one where programs may have had a hand in the answers."""
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


@contextlib.contextmanager
def _bait(executor: Executor, environment: Mapping[str, str]) -> Generator[Callable[[tuple[str, str, str]], Host]]:
    """Things of the host that a program must not reach: a port, an abstract socket, a file."""
    name = f"azr-doctor-{secrets.token_hex(8)}"
    with contextlib.ExitStack() as open_things:
        port = open_things.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        listener = open_things.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(f"\0{name}")
        listener.listen()
        secret = open_things.enter_context(tempfile.NamedTemporaryFile(prefix="azr-doctor-"))
        secret.write(b"of the host")
        secret.flush()
        os.chmod(secret.name, 0o644)  # noqa: PTH101
        yield lambda kernel: Host(executor.isolation, environment, namespaces(), port, name, secret.name, kernel)
