"""Runs that must not know of each other, worlds that must differ, and in which versions all this was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from sandbox.doctor.checks.check import Answer, Check, Host, Judge, Probe, Reading, nothing

FRESHNESS, WORLDS, VERSIONS = "freshness", "two worlds", "versions"
VISITS = 3
"""How often something is left and looked for, because the executor picks the container."""
GUEST = "the guest's supervisor did not clean up; report this with `azr doctor --json`"
ROOMS = (Probe("identity", "world"), Probe("identity", "world", seed_slot=1))
SAME = "a program that depends on it would look deterministic: give the two seed slots different ones"


def checks(host: Host) -> list[Check]:
    return [
        Check(
            FRESHNESS,
            "left by a run before",
            "nothing",
            tuple(Probe("traces", "look", (visit,)) for visit in range(VISITS)),
            nothing,
            GUEST,
            before=tuple(Probe("traces", "leave", (visit,)) for visit in range(VISITS)),
        ),
        *(
            Check(WORLDS, name, "differ", ROOMS, _differ(key), SAME, is_required)
            for name, key, is_required in (
                ("hash seeds", "hash", True),
                ("time zones", "zone", True),
                ("addresses", "address", True),
                ("dates", "date", False),
                ("scratch folders", "folder", False),
            )
        ),
        *_versions(host),
    ]


def _differ(key: str) -> Judge:
    def judge(answers: Sequence[Answer], host: Host) -> Reading:
        del host
        if not all(isinstance(answer.value, dict) for answer in answers):
            return Reading("; ".join(answer.told for answer in answers), ok=False)
        first, second = (cast(dict[str, str], answer.value)[key] for answer in answers)
        return Reading(f"{first} | {second}" if first != second else f"both {first}", first != second)

    return judge


def _versions(host: Host) -> list[Check]:
    """For the record; nothing is required of them."""
    inside, machine, python = host.kernel
    isolation = host.isolation
    kernel = isolation.kernel if inside == isolation.kernel else f"{isolation.kernel}, inside {inside}"
    told = {
        "kernel": f"{kernel} {machine}",
        "runtime": f"{isolation.backend}, {isolation.runtime}",
        "Python": python,
        "image": isolation.image[:19],
    }
    return [Check(VERSIONS, name, "", (), _told(text), "") for name, text in told.items()]


def _told(text: str) -> Judge:
    def judge(answers: Sequence[Answer], host: Host) -> Reading:
        del answers, host
        return Reading(text, ok=True)

    return judge
