"""Sees, stops and reads nobody else; a bounded number of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from sandbox.doctor.checks.check import Answer, Check, Host, Judge, Probe, Reading, nothing, unreachable
from sandbox.types import Limits

AREA = "processes"
SHARED = ("pid", "net", "mnt", "ipc", "uts")
"""Namespaces that must not be the host's."""
MOST = 200
FEW = Limits(wall_s=5.0, cpu_s=5.0, processes=16)
SLACK = 16
OWN = "run the guest in namespaces of its own; the runtime in use did not make them"
HIDDEN = "this runtime does not keep an undumpable process to itself: use docker with runc, or the jail"
RESTART = "a program can end its container here: it gets no verdict, and the container is replaced"
USERS = "one more wall where wanted: run the engine with userns-remap"
BOUNDED = "set a process limit: pids_limit in Docker, a cgroup or RLIMIT_NPROC in the jail"


def checks(host: Host) -> list[Check]:
    del host
    return [
        Check(AREA, "namespaces", "its own", (Probe("processes", "namespaces"),), _separate, OWN),
        Check(AREA, "user namespace", "its own", (Probe("processes", "namespaces"),), _user, USERS, False),
        Check(AREA, "other processes", "none seen", (Probe("processes", "strangers"),), nothing, OWN),
        Check(AREA, "supervisor's pipes", "closed", (Probe("processes", "open_ancestors"),), nothing, HIDDEN),
        Check(
            AREA, "supervisor's layout", "hidden", (Probe("processes", "told_of_ancestors"),), nothing, HIDDEN, False
        ),
        Check(AREA, "kill PID 1", "outlived", (Probe("processes", "kill_first"),), _outlived, RESTART, False),
        Check(AREA, "processes at once", f"at most {FEW.processes + SLACK}", _many("fork_many"), _few, BOUNDED),
        Check(AREA, "threads at once", f"at most {FEW.processes + SLACK}", _many("thread_many"), _few, BOUNDED, False),
        Check(AREA, "raise own bounds", "none", (Probe("processes", "raised"),), nothing, "drop all capabilities"),
        Check(
            AREA, "terminal", "none", (Probe("processes", "terminal"),), unreachable, "run the guest in its own session"
        ),
    ]


def _many(entry: str) -> tuple[Probe, ...]:
    return (Probe("processes", entry, (MOST,), FEW),)


def _separate(answers: Sequence[Answer], host: Host) -> Reading:
    named = answers[0].value
    if not isinstance(named, dict):
        return Reading(answers[0].told, ok=False)
    inside = cast(dict[str, str], named)
    if host.has_own_kernel:
        return Reading("in a kernel of its own", ok=True)
    shared = [name for name in SHARED if name not in inside or inside[name] == host.namespaces.get(name)]
    return Reading(f"the host's: {', '.join(shared)}" if shared else ", ".join(SHARED), not shared)


def _user(answers: Sequence[Answer], host: Host) -> Reading:
    named = answers[0].value
    inside = cast(dict[str, str], named) if isinstance(named, dict) else {}
    if host.has_own_kernel:
        return Reading("in a kernel of its own", ok=True)
    if "user" not in inside:
        return Reading("not told", ok=False)
    is_shared = inside["user"] == host.namespaces.get("user")
    return Reading("the host's" if is_shared else "its own", not is_shared)


def _outlived(answers: Sequence[Answer], host: Host) -> Reading:
    del host
    [answer] = answers
    return Reading(answer.told, answer.value == "outlived" or answer.errno > 0)


def _at_most(most: int) -> Judge:
    """Some were given, and then no more: none at all would prove nothing."""

    def judge(answers: Sequence[Answer], host: Host) -> Reading:
        del host
        count = answers[0].value
        if not isinstance(count, int):
            return Reading(answers[0].told, ok=False)
        return Reading(f"{count} and no end" if count >= MOST else str(count), 0 < count <= most)

    return judge


_few = _at_most(FEW.processes + SLACK)
