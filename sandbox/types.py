"""What goes into the sandbox, what comes out, and who promises it.

::

    SandboxError                 our fault or the host's: never a wrong answer, always an exception that travels
    ├── EngineUnavailable        no Docker engine answers
    ├── ImageMissing             the sandbox image is not there
    ├── SandboxBroken            containers keep dying although they are replaced
    └── AuditError               the audit log cannot be written or read
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from sandbox.shared.limits import Limits as Limits
from sandbox.shared.limits import Status as Status


class SandboxError(Exception):
    """The sandbox itself failed; no verdict may be drawn from it."""


class EngineUnavailable(SandboxError):
    """No Docker engine answers; the message says how to get one."""


class ImageMissing(SandboxError):
    """The sandbox image is not there; the message says how to build it."""


class SandboxBroken(SandboxError):
    """Containers die again and again although they are replaced."""


class AuditError(SandboxError):
    """The audit log cannot be written, so no verdict may be drawn; or it cannot be read. The message says why."""


@dataclass(frozen=True, slots=True)
class Job:
    """One program and the inputs to call it with; every input runs in a fresh process."""

    program: str
    inputs: tuple[str, ...]
    """Argument lists as source text: `[3, 1], b='a'`. Evaluated in an empty namespace in a process of their own."""
    entry: str = "f"
    limits: Limits = field(default_factory=Limits)
    forbidden: tuple[str, ...] = ()
    """Dotted module names that the static policy refuses; empty switches it off."""
    seed_slot: int = 0
    """Which PYTHONHASHSEED family runs it: 0 or 1. A determinism check uses both."""
    together: bool = False
    """All inputs in one fresh process, not one each; from last to first in slot 1; ends at the first that fails."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What one input gave."""

    status: Status
    input: str
    """The canonical text of the argument list as evaluated, keywords last; empty when the input itself failed."""
    value: str
    """Canonical text of the returned value; empty unless `status` is ok."""
    error: str
    """Exception type and message, bounded and untrusted; empty when ok."""
    is_repeatable: bool = True
    """False when the two calls in one process disagreed."""

    @property
    def ok(self) -> bool:
        return self.status is Status.OK


@dataclass(frozen=True, slots=True)
class Execution:
    """What became of a job. `status` is the first status that is not ok, else ok."""

    status: Status
    results: tuple[RunResult, ...]
    wall_s: float
    cpu_s: float
    peak_memory_mib: float
    output_bytes: int = 0
    """All that the program printed or handed over; what was kept of it are the values."""
    denied: int = 0
    """Runs that the kernel ended for a system call that no honest program makes."""

    @property
    def ok(self) -> bool:
        return self.status is Status.OK


@dataclass(frozen=True, slots=True)
class Isolation:
    """What stands between the programs and the host, as found when the executor started. The audit log records it."""

    backend: str
    """`docker` or `jail`."""
    runtime: str
    """What makes the walls: `runc`, `runsc`, `bwrap`."""
    image: str
    """Digest of everything that the guest consists of: `sha256:...`."""
    seccomp: str
    """SHA-256 of the system-call filter; empty where there is none."""
    kernel: str
    python: str
    hash_seeds: tuple[str, str]
    """PYTHONHASHSEED of the two seed slots."""


class Executor(Protocol):
    """Runs jobs in isolation. Every backend passes the same contract tests (`tests/sandbox/test_contract.py`)."""

    @property
    def isolation(self) -> Isolation:
        """Known once the executor has started."""
        ...

    async def run(self, jobs: Sequence[Job]) -> list[Execution]:
        """Run all jobs, many in flight; executions come back in the order of the jobs.

        Raises:
            SandboxError: the sandbox failed; programs cannot cause it short of a bug here.
        """
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
