"""Hostile programs, and the rules that decide whether one succeeded. Read `cases.py`, then `matrix.py`.

`CASES` holds the families A to F, which need only an executor. `texts.py` holds family G: texts that attack the
parsers, validation, prompts and audit log of self-play.
"""

from sandbox.doctor.attacks import contamination, escapes, exhaustion, forging, nondeterminism, theft
from sandbox.doctor.attacks.cases import AttackOutcome, AttackResult, Case, Goal, Observation

CASES: tuple[Case, ...] = (
    *forging.CASES,
    *theft.CASES,
    *nondeterminism.CASES,
    *exhaustion.CASES,
    *escapes.CASES,
    *contamination.CASES,
)
FAMILIES = {
    "A": "verdict forging",
    "B": "theft of gold answers",
    "C": "hidden nondeterminism",
    "D": "resource abuse",
    "E": "escapes",
    "F": "cross-run contamination",
    "G": "proposals, templates, log",
}

__all__ = ["CASES", "FAMILIES", "AttackOutcome", "AttackResult", "Case", "Goal", "Observation"]
