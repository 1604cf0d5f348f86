"""One attack, what was seen of it, and the verdict: the same oracle for every backend and every control.

::

    Case         number 6, "always equal", the program, goal FORGE, expected statuses
    Observation  what the referee saw: accepted or not, the recorded value, who was harmed, what is still alive
    judged(case, observation) -> Verdict with its Outcome: held, or how the attack succeeded
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sandbox.types import Status

FORGED = "'forged'"
"""What forging programs want on record although `f` never returns it."""
REACHED = "'reached'"
"""What a program returns when it holds in its hands what it should not reach."""
FOUND = "True"
"""What a later run returns when it finds a trace of the run before it."""

VALUELESS = frozenset({Status.ERROR, Status.NOT_A_VALUE, Status.OUTPUT_LIMIT})
OVER_A_LIMIT = frozenset({Status.TIMEOUT, Status.MEMORY, Status.OUTPUT_LIMIT, Status.KILLED, Status.ERROR})
DENIED = frozenset({Status.ERROR, Status.KILLED})
ANY_RUN = DENIED | VALUELESS | {Status.OK}


class Goal(StrEnum):
    """What the attacker is after."""

    FORGE = "forge"
    """To have a value on record that the program did not return, or none at all and yet be accepted."""
    STEAL = "steal"
    """To return the gold answer without knowing it."""
    WAVER = "waver"
    """To pass for deterministic and be otherwise later."""
    EXHAUST = "exhaust"
    """To use more than the limits, or to go on after them."""
    REACH = "reach"
    """To touch something outside."""
    LINGER = "linger"
    """To change a later run."""


class Outcome(StrEnum):
    """What became of an attack."""

    HELD = "held"
    ESCAPE = "escape"
    FALSE_REWARD = "false_reward"
    ALIVE = "alive"
    CONTAMINATED = "contaminated"
    UNDETECTED = "undetected"


@dataclass(frozen=True, slots=True)
class Case:
    """One hostile program. `@STAGE@`, `@PORT@` and `@NAME@` in it stand for what the stage planted."""

    number: int
    """In the list of attacks; sub-cases share it."""
    name: str
    family: str
    program: str
    goal: Goal
    expected: frozenset[Status]
    """Statuses that our sandbox may give, beside `forbidden` where the static policy is on."""
    honest: tuple[str, ...] = ()
    """FORGE: canonical values that the program really returns; none where it returns no value."""
    input: str = ""
    probe: str = ""
    """LINGER: a later program that returns True when it finds a trace."""
    may_be_constant: bool = False
    """WAVER: it reads what may be the same in every run, and is fair where it is."""

    @property
    def title(self) -> str:
        return f"{self.family}{self.number} {self.name}"


@dataclass(frozen=True, slots=True)
class Observation:
    """What the referee saw of one attack."""

    status: str
    accepted: bool
    """The run counts as good: a proposal with it would become a task."""
    value: str
    """What is on record as the value."""
    correct: bool = False
    """The judge takes the answer for the gold answer."""
    has_wavered: bool = False
    """WAVER: accepted as deterministic, and a later run gave something else."""
    is_overdue: bool = False
    """It, or a process of it, was there a second after the limit."""
    harm: str = ""
    """What outside of it was changed; empty when nothing."""
    is_found: bool = False
    """LINGER: the later run found a trace."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one attack ended."""

    case: Case
    outcome: Outcome
    status: str
    detail: str

    @property
    def is_expected(self) -> bool:
        """Whether the status is one that our sandbox may give; family G has none."""
        return not self.case.expected or self.status in {*self.case.expected, Status.FORBIDDEN}


def judged(case: Case, seen: Observation) -> Verdict:
    """The worst that the attack achieved."""
    outcome = _outcome(case, seen)
    detail = seen.harm or (f"value {seen.value[:120]}" if seen.accepted else "")
    return Verdict(case, outcome, seen.status, detail)


def _outcome(case: Case, seen: Observation) -> Outcome:
    if seen.harm:
        return Outcome.ESCAPE
    if seen.is_overdue:
        return Outcome.ALIVE
    if seen.is_found:
        return Outcome.CONTAMINATED
    if seen.accepted and seen.value == REACHED:
        return Outcome.FALSE_REWARD if case.family in "AB" else Outcome.ESCAPE
    if case.goal in (Goal.STEAL, Goal.FORGE) and seen.correct:
        return Outcome.FALSE_REWARD
    if case.goal is Goal.FORGE and seen.accepted and seen.value not in case.honest:
        return Outcome.FALSE_REWARD
    return Outcome.UNDETECTED if case.goal is Goal.WAVER and seen.has_wavered else Outcome.HELD
