"""Nobody, without rights, behind a filter, and told nothing of the host."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

from sandbox.doctor.checks.check import Answer, Check, Host, Probe, Reading, some

AREA = "identity"
SETS = ("CapEff", "CapPrm", "CapInh", "CapAmb")
SUSPICIOUS = re.compile(
    r"SECRET|TOKEN|PASSW|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY|SESSION|COOKIE|AUTH", re.IGNORECASE
)
COMMON = frozenset({"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "HOME", "PWD", "TERM", "TMPDIR", "SHLVL"})
"""May be the same inside and outside without telling anything."""
MIN_SECRET_CHARS = 6
HARMLESS_FILES = ("pipe", "/dev/null", "/proc/")
STATUS = (Probe("identity", "status"),)


def checks(host: Host) -> list[Check]:
    del host
    return [
        Check(AREA, "user and groups", "not root", (Probe("identity", "ids"),), _nobody, "give the guest a user id"),
        Check(AREA, "capabilities", "none", STATUS, _capabilities, "drop all: cap_drop ALL, --cap-drop ALL"),
        Check(AREA, "bounding set", "empty", STATUS, _bounding, "drop all capabilities", is_required=False),
        Check(AREA, "no new privileges", "set", STATUS, _no_new, "set no-new-privileges"),
        Check(AREA, "seccomp", "filter (2)", STATUS, _seccomp, "this kernel or runtime applies no system-call filter"),
        Check(AREA, "filter", "our own", STATUS, _filter, "the filter in force is the engine's", is_required=False),
        Check(
            AREA, "environment", "no secrets", (Probe("identity", "environment"),), _no_secrets,
            "pass no variables of the host to the guest",
        ),
        Check(
            AREA, "inherited files", "pipes only", (Probe("identity", "descriptors"),), _pipes,
            "the guest must close what it inherits",
        ),
    ]  # fmt: skip


def _nobody(answers: Sequence[Answer], host: Host) -> Reading:
    del host
    value = answers[0].value
    if not isinstance(value, dict):
        return Reading(answers[0].told, ok=False)
    ids = cast(dict[str, list[int]], value)
    users, groups = sorted(set(ids["user"])), sorted({*ids["group"], *ids["groups"]})
    told = f"user {', '.join(map(str, users))}; group {', '.join(map(str, groups))}"
    return Reading(told, 0 not in users and 0 not in groups)


def _fields(answers: Sequence[Answer]) -> dict[str, str]:
    value = answers[0].value
    return cast(dict[str, str], value) if isinstance(value, dict) else {}


def _capabilities(answers: Sequence[Answer], host: Host) -> Reading:
    del host
    fields = _fields(answers)
    held = [f"{name} {fields.get(name, 'not told')}" for name in SETS if fields.get(name, "?").strip("0")]
    if "CapEff" not in fields:
        return Reading("not told", ok=False)
    told = [name for name in held if not name.endswith("not told")]
    return Reading(some(told) or "none", not told)


def _bounding(answers: Sequence[Answer], host: Host) -> Reading:
    del host
    bounding = _fields(answers).get("CapBnd", "not told")
    is_empty = not bounding.strip("0")
    return Reading("empty" if is_empty else bounding, is_empty)


def _no_new(answers: Sequence[Answer], host: Host) -> Reading:
    if host.has_own_kernel:
        return Reading("always, in gVisor", ok=True)
    is_set = _fields(answers).get("NoNewPrivs", "")
    return Reading({"1": "set", "0": "not set"}.get(is_set, "not told"), is_set == "1")


def _seccomp(answers: Sequence[Answer], host: Host) -> Reading:
    mode = _fields(answers).get("Seccomp", "not told")
    if host.has_own_kernel:
        return Reading(f"{mode}; the host's kernel is behind gVisor", ok=True)
    return Reading(f"filter ({mode})" if mode == "2" else f"mode {mode}", mode == "2")


def _filter(answers: Sequence[Answer], host: Host) -> Reading:
    del answers
    found = host.isolation.seccomp
    if host.has_own_kernel:
        return Reading("gVisor's", ok=True)
    return Reading(found[:19] or "the engine's", bool(found))


def _no_secrets(answers: Sequence[Answer], host: Host) -> Reading:
    value = answers[0].value
    if not isinstance(value, dict):
        return Reading(answers[0].told, ok=False)
    variables = cast(dict[str, str], value)
    leaked = [name for name in variables if _is_leaked(name, variables[name], host)]
    return Reading(some(sorted(leaked)) if leaked else f"{len(variables)} variables, none the host's", not leaked)


def _is_leaked(name: str, text: str, host: Host) -> bool:
    """A name that sounds like a secret, or a value that the host has under the same name."""
    is_copied = len(text) >= MIN_SECRET_CHARS and host.environment.get(name) == text and name not in COMMON
    return is_copied or bool(SUSPICIOUS.search(name))


def _pipes(answers: Sequence[Answer], host: Host) -> Reading:
    del host
    value = answers[0].value
    if not isinstance(value, list):
        return Reading(answers[0].told, ok=False)
    opened = cast(list[tuple[int, str]], value)
    odd = [f"{number} {kind}" for number, kind in opened if not kind.startswith(HARMLESS_FILES)]
    return Reading(some(odd) or f"{len(opened)}, pipes and /dev/null", not odd)
