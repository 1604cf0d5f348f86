"""The negative controls: what our sandbox holds succeeds where a careless harness runs it, in throwaway containers."""

from __future__ import annotations

import asyncio
import os

import pytest

from sandbox import image
from sandbox.attacks import CASES, Case, Outcome, Verdict
from sandbox.attacks.controls import CONTROLS, run_control
from sandbox.attacks.unsafe_trainer import Request, main

BARE, FORKED = CONTROLS
SUCCEEDS = {
    (BARE, "A1 exit before answering"): Outcome.FALSE_REWARD,
    (BARE, "A9 repr that looks like a value"): Outcome.FALSE_REWARD,
    (BARE, "B41 environment"): Outcome.FALSE_REWARD,
    (BARE, "B40 the parent's memory"): Outcome.FALSE_REWARD,
    (BARE, "D88 daemon"): Outcome.ALIVE,
    (BARE, "D89 kills the parent"): Outcome.ESCAPE,
    (BARE, "F109 a file in the scratch folder"): Outcome.CONTAMINATED,
    (FORKED, "A6 always equal"): Outcome.FALSE_REWARD,
    (FORKED, "B36 frames of the callers"): Outcome.FALSE_REWARD,
    (FORKED, "C54 unseeded random"): Outcome.UNDETECTED,
    (FORKED, "E98 a pickle that acts when it is opened"): Outcome.ESCAPE,
    (FORKED, "F110 a patched builtin"): Outcome.CONTAMINATED,
}
CASE_OF = {case.title: case for case in CASES}


def ended(control: str, *cases: Case) -> list[Verdict]:
    return asyncio.run(run_control(control, cases, image=image.ensure()))


@pytest.fixture(scope="module")
def verdicts() -> dict[tuple[str, str], Verdict]:
    """The sample once: each case in a container of its own."""
    found: dict[tuple[str, str], Verdict] = {}
    for control in CONTROLS:
        titles = [title for name, title in SUCCEEDS if name == control]
        for verdict in ended(control, *(CASE_OF[title] for title in titles)):
            found[control, verdict.case.title] = verdict
    return found


@pytest.mark.parametrize("which", SUCCEEDS, ids=lambda which: f"{which[0]}: {which[1]}")
def test_an_attack_that_we_hold_succeeds_under_a_control(
    verdicts: dict[tuple[str, str], Verdict], which: tuple[str, str]
) -> None:
    assert verdicts[which].outcome is SUCCEEDS[which], verdicts[which]


def test_a_control_does_not_call_everything_a_success() -> None:
    harmless = CASE_OF["A14 values that are equal across types"]
    assert [ended(control, harmless)[0].outcome for control in CONTROLS] == [Outcome.HELD, Outcome.HELD]


def test_a_stand_in_trainer_does_not_run_outside_a_container() -> None:
    assert os.getpid() != 1
    request = Request(BARE, "", "", "", is_wavering=False, may_be_constant=False, is_paid=False, limit_s=1.0)
    with pytest.raises(SystemExit, match="throwaway container"):
        main(request, "token")
