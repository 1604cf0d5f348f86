"""The nouns of a check, and the ways of reading an answer that several areas share."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, cast

from sandbox.types import Isolation, Limits, Status

PROBES = Path(__file__).parents[1] / "probes"
REFUSALS = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.EROFS})
"""The kernel does not even look at what it was asked."""
MAX_TOLD = 4


class Verdict(StrEnum):
    """How a finding compares with what is asked."""

    OK = "ok"
    WEAK = "weak"
    """Not required, but worth knowing."""
    FAILED = "FAILED"
    """Required, and missing or not proven."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One call of one function of `sandbox/probes`, made inside as a job of its own."""

    room: str
    """File name without its ending."""
    entry: str
    arguments: tuple[object, ...] = ()
    limits: Limits = field(default_factory=lambda: Limits(wall_s=5.0, cpu_s=5.0))
    seed_slot: int = 0

    @property
    def program(self) -> str:
        return (PROBES / f"{self.room}.py").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a probe."""

    status: Status
    value: object
    """The decoded value; None unless the status is ok."""
    error: str
    is_denied: bool
    """The kernel ended it for a system call."""
    wall_s: float

    @property
    def errno(self) -> int:
        """The error that the system gave; 0 where it gave none."""
        found = re.search(r"\[Errno (\d+)\]", self.error) if self.status is Status.ERROR else None
        return int(found[1]) if found else 0

    @property
    def told(self) -> str:
        """In one or two words, what happened."""
        if self.status is Status.OK:
            return str(self.value)
        if self.errno:
            return errno.errorcode.get(self.errno, str(self.errno))
        return "SIGSYS" if self.is_denied else f"{self.status}: {self.error}" if self.error else str(self.status)


class Reading(NamedTuple):
    """What a judge made of the answers."""

    found: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Host:
    """What is known from outside, to compare with what is seen inside."""

    isolation: Isolation
    environment: Mapping[str, str]
    namespaces: Mapping[str, str]
    port: int
    """On which the host listens on its loopback while the probes run; 0 when it cannot."""
    socket_name: str
    """Abstract unix socket on which the host listens."""
    secret_path: str
    """A file of the host."""
    kernel: tuple[str, str, str]
    """Release, machine and Python, as seen inside."""

    @property
    def has_own_kernel(self) -> bool:
        """A kernel in user space answers the system calls (gVisor): what it grants is not granted by this machine's."""
        return self.isolation.runtime.startswith("runsc") and self.kernel[0] != self.isolation.kernel


Judge = Callable[[Sequence[Answer], Host], Reading]


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the table."""

    area: str
    name: str
    required: str
    probes: tuple[Probe, ...]
    judge: Judge
    advice: str
    is_required: bool = True
    before: tuple[Probe, ...] = ()
    """Runs that come first, for what they leave behind."""


def is_stopped(answer: Answer, refusals: Iterable[int] = REFUSALS) -> bool:
    """The kernel refused, or ended the program for asking."""
    return answer.is_denied or answer.errno in refusals


def refused(answers: Sequence[Answer], host: Host) -> Reading:
    """Nothing was reached: the kernel refuses, or ends the program."""
    del host
    return Reading(outcomes(answers), all(is_stopped(answer) for answer in answers))


def unreachable(answers: Sequence[Answer], host: Host) -> Reading:
    """Nothing was reached, whatever the reason that the system gives."""
    del host
    return Reading(outcomes(answers), all(answer.is_denied or answer.errno > 0 for answer in answers))


def nothing(answers: Sequence[Answer], host: Host) -> Reading:
    """Every list is empty; a refused probe has found nothing either."""
    del host
    lists = [cast(list[object], answer.value) for answer in answers if isinstance(answer.value, list)]
    reached = [str(entry) for entries in lists for entry in entries]
    proven = all(isinstance(answer.value, list) or is_stopped(answer) for answer in answers)
    if reached:
        return Reading(some(reached), ok=False)
    return Reading("none" if proven else outcomes(answers), proven)


def some(names: Sequence[str]) -> str:
    """The first of a list, and how many more."""
    told = ", ".join(names[:MAX_TOLD])
    return told if len(names) <= MAX_TOLD else f"{told} and {len(names) - MAX_TOLD} more"


def outcomes(answers: Sequence[Answer]) -> str:
    """What happened, each outcome once."""
    return ", ".join(dict.fromkeys(answer.told for answer in answers))
