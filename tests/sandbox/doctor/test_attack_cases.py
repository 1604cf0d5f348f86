"""The oracle: what was seen decides, the worst of it first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sandbox import Status
from sandbox.doctor.attacks import CASES, Case, Goal, Observation, Outcome
from sandbox.doctor.attacks.cases import REACHED, judged
from sandbox.doctor.attacks.matrix import counts
from sandbox.doctor.attacks.stage import Stage

FORGES = Case(6, "forges", "A", "", Goal.FORGE, frozenset({Status.ERROR}))
STEALS = replace(FORGES, family="B", goal=Goal.STEAL)
WAVERS = replace(FORGES, family="C", goal=Goal.WAVER)
ESCAPES = replace(FORGES, family="E", goal=Goal.REACH)
LINGERS = replace(FORGES, family="F", goal=Goal.LINGER)
REFUSED = Observation("error", accepted=False, value="")
ACCEPTED = Observation("ok", accepted=True, value="'x'")


@pytest.mark.parametrize(
    ("case", "seen", "outcome"),
    [
        (FORGES, REFUSED, Outcome.HELD),
        (FORGES, ACCEPTED, Outcome.FALSE_REWARD),
        (replace(FORGES, honest=("'x'",)), ACCEPTED, Outcome.HELD),
        (FORGES, replace(REFUSED, correct=True), Outcome.FALSE_REWARD),
        (STEALS, ACCEPTED, Outcome.HELD),
        (STEALS, replace(ACCEPTED, correct=True), Outcome.FALSE_REWARD),
        (WAVERS, ACCEPTED, Outcome.HELD),
        (WAVERS, replace(ACCEPTED, has_wavered=True), Outcome.UNDETECTED),
        (ESCAPES, ACCEPTED, Outcome.HELD),
        (ESCAPES, replace(ACCEPTED, value=REACHED), Outcome.ESCAPE),
        (ESCAPES, replace(REFUSED, harm="the host was written"), Outcome.ESCAPE),
        (LINGERS, replace(ACCEPTED, is_found=True), Outcome.CONTAMINATED),
        (LINGERS, replace(REFUSED, is_overdue=True), Outcome.ALIVE),
    ],
)
def test_an_attack_is_judged_by_what_it_achieved(case: Case, seen: Observation, outcome: Outcome) -> None:
    assert judged(case, seen).outcome is outcome


def test_a_program_refused_by_the_static_policy_ended_as_foreseen() -> None:
    assert judged(FORGES, replace(REFUSED, status="forbidden")).is_expected
    assert not judged(FORGES, replace(REFUSED, status="memory")).is_expected


def test_counts_name_every_outcome_of_every_family() -> None:
    found = counts([judged(FORGES, REFUSED), judged(ESCAPES, replace(ACCEPTED, value=REACHED))])
    assert found["A"][Outcome.HELD] == found["E"][Outcome.ESCAPE] == 1
    assert found["A"].keys() == set(Outcome)


def test_a_stage_sees_what_was_touched_once_and_leaves_nothing_behind() -> None:
    with Stage() as stage:
        assert stage.harm() == ""
        Path(stage.fitted("@STAGE@/owned")).write_text("x")
        Path(stage.fitted("@STAGE@/reward.txt")).write_text("1.0")
        assert stage.harm().count(";") == 1
        assert stage.harm() == ""
        folder = stage.folder
    assert not folder.exists()


def test_every_number_of_the_list_has_a_case_and_every_case_a_name_of_its_own() -> None:
    assert {case.number for case in CASES} == set(range(1, 114))
    assert len({case.title for case in CASES}) == len(CASES) >= 130
