"""Hostile programs, what they are after, and who decides whether they got it. Read `cases.py`, then `matrix.py`.

`CASES` are the families A to F of the list, which need nothing but an executor; `texts.py` holds family G, which
attacks self-play's parsers and log.
"""

from sandbox.doctor.attacks import contamination, escapes, exhaustion, forging, theft, wavering
from sandbox.doctor.attacks.cases import Case, Goal, Observation, Outcome, Verdict

CASES: tuple[Case, ...] = (
    *forging.CASES,
    *theft.CASES,
    *wavering.CASES,
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

__all__ = ["CASES", "FAMILIES", "Case", "Goal", "Observation", "Outcome", "Verdict"]
