"""The attack matrix as a person and a program read it."""

from __future__ import annotations

import io
import json

from rich.console import Console

from azr.commands.attacks import Column, as_plain, show
from sandbox import Status
from sandbox.doctor.attacks import Case, Goal, Outcome, Verdict

FORGES = Case(6, "always \x1b[2J equal", "A", "", Goal.FORGE, frozenset({Status.ERROR}))
HELD = Verdict(FORGES, Outcome.HELD, "error", "")
FORGED = Verdict(FORGES, Outcome.FALSE_REWARD, "ok", "value \x1b[2J\u202e")


def shown(*columns: Column) -> str:
    out = io.StringIO()
    show(columns, Console(file=out, width=120))
    return out.getvalue()


def test_each_family_shows_how_many_attacks_succeed_of_all() -> None:
    text = shown(Column("docker/runc, screen off", verdicts=(HELD, FORGED)))
    assert "1 of 2" in text
    assert "false reward" in text


def test_what_succeeds_in_our_sandbox_is_named_and_cannot_move_the_cursor() -> None:
    text = shown(Column("docker/runc, screen off", verdicts=(FORGED,)))
    assert r"A6 always \x1b[2J equal: false_reward" in text
    assert "\x1b[2J" not in text
    assert "\u202e" not in text


def test_json_has_the_counts_and_every_case() -> None:
    [column] = as_plain([Column("docker/runc, screen off", verdicts=(HELD, FORGED))])
    assert json.loads(json.dumps(column)) == column
    assert (column["attacks"], column["succeeded"]) == (2, 1)
    assert column["families"]["A"]["false_reward"] == 1
    assert [case["is_expected"] for case in column["cases"]] == [True, False]
