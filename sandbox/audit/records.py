"""What the audit log says of one execution: a JSON object that holds short texts and names the others by their hash.

Encoding version 1. A record's body is one JSON object: keys sorted, no spaces, ASCII, no NaN. Program, forbidden names
and isolation are blobs, stored once: UTF-8 with surrogates passed through, named by the SHA-256 of these bytes; an
empty text is the empty name and no blob. Any other text that a model wrote is a string where it is ASCII and short,
else `{"sha256": NAME}` and a blob.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple, TypedDict

from sandbox.types import Execution, Isolation, Job, Limits, RunResult

VERSION = 1
NO_HASH = "0" * 64
"""What stands before the first record."""
IN_PLACE_CHARS = 256
"""The longest text that a record itself holds: a short one costs less there than a row of its own."""

Body = dict[str, Any]
Blobs = dict[str, bytes]
"""Contents by their hash, in hex."""

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode


def canonical(value: Any) -> str:
    """The one text of a JSON value that the chain is computed over."""
    return _encode(value)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def text_bytes(text: str) -> bytes:
    """A text as its blob; NUL and lone surrogates survive."""
    return text.encode("utf-8", "surrogatepass")


class LabelChanges(TypedDict, total=False):
    """Fields of a `Label` to set anew."""

    purpose: str
    task_type: str
    step: int
    policy_version: str


@dataclass(frozen=True, slots=True)
class Label:
    """Why something runs: Label("solve", "induction", step=12, policy_version="step-11")."""

    purpose: str
    """`validate`, `attempt`, `solve`, `eval`, `seed`, `cli`."""
    task_type: str = ""
    step: int = 0
    policy_version: str = ""

    def changed(self, changes: LabelChanges) -> Label:
        return replace(self, **changes)


class Moment(NamedTuple):
    """A point in time on both clocks; the monotonic one tells durations and order within one boot."""

    wall_s: float
    monotonic_ns: int

    @classmethod
    def now(cls) -> Moment:
        return cls(time.time(), time.monotonic_ns())


class Span(NamedTuple):
    """From when the executor was asked until it had answered; all jobs of one call share it."""

    begun: Moment
    ended: Moment


class Place(NamedTuple):
    """Where a record stands in its chain."""

    run: str
    sequence: int
    previous: str


class Head(NamedTuple):
    """The end of a chain."""

    num_records: int
    hash: str


class Columns(NamedTuple):
    """What the table repeats of a record, for queries."""

    kind: str
    step: int | None = None
    purpose: str | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True)
class Executed:
    """A job that ran."""

    label: Label
    job: Job
    execution: Execution
    isolation: Isolation
    span: Span

    @property
    def columns(self) -> Columns:
        return Columns("execution", self.label.step, self.label.purpose, self.execution.status.value)

    def text(self, place: Place, blobs: Blobs) -> str:
        """The record; the texts that it names are put into `blobs`."""
        ran, form = self.execution, _form("execution", _setting(self.label, self.job, self.isolation, place.run))
        blobs.update(form.blobs)
        return form.text % {
            **_varying(self.job, self.span, place, blobs),
            "status": canonical(ran.status),
            "results": ",".join([_result(result, blobs) for result in ran.results]),
            "wall_s": _number(ran.wall_s),
            "cpu_s": _number(ran.cpu_s),
            "peak_memory_mib": _number(ran.peak_memory_mib),
            "output_bytes": ran.output_bytes,
            "kept_bytes": sum([_num_bytes(result.value) for result in ran.results]),
            "denied": ran.denied,
        }


@dataclass(frozen=True, slots=True)
class Broken:
    """A job that was asked for when the sandbox itself failed: no verdict was drawn from it, but it may have run."""

    label: Label
    job: Job
    failure: str
    isolation: Isolation
    span: Span

    @property
    def columns(self) -> Columns:
        return Columns("broken", self.label.step, self.label.purpose, "broken")

    def text(self, place: Place, blobs: Blobs) -> str:
        """The record; the texts that it names are put into `blobs`."""
        form = _form("broken", _setting(self.label, self.job, self.isolation, place.run))
        blobs.update(form.blobs)
        told = {"status": canonical("broken"), "failure": _kept(self.failure, blobs)}
        return form.text % {**_varying(self.job, self.span, place, blobs), **told}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that is no execution: `genesis`, `resumed`, `anchored`; of workers, see `sandbox.worker_logs`."""

    kind: str
    details: Mapping[str, object]

    @property
    def columns(self) -> Columns:
        return Columns(self.kind)

    def text(self, place: Place, blobs: Blobs) -> str:
        """The record; it names no texts."""
        del blobs
        now = Moment.now()
        time = json.loads(_time(Span(now, now)))
        return canonical({"kind": self.kind, "version": VERSION, "time": time, **self.details, **place._asdict()})


Entry = Executed | Broken | Event


class Setting(NamedTuple):
    """What many records have in common."""

    label: Label
    isolation: Isolation
    limits: Limits
    forbidden: tuple[str, ...]
    entry: str
    seed_slot: int
    together: bool
    run: str


class Form(NamedTuple):
    """The text of a record with room, `%(status)s`, for what differs; and the texts that it names."""

    text: str
    blobs: Blobs


_ROOM = {
    "inputs": "[%(inputs)s]",
    **{name: f"%({name})s" for name in ("program", "status", "time", *Place._fields[1:])},
}
_ROOM_OF_KIND = {
    "broken": {"failure": "%(failure)s"},
    "execution": {
        "results": "[%(results)s]",
        **{
            name: f"%({name})s"
            for name in ("wall_s", "cpu_s", "peak_memory_mib", "output_bytes", "kept_bytes", "denied")
        },
    },
}


def _setting(label: Label, job: Job, isolation: Isolation, run: str) -> Setting:
    return Setting(label, isolation, job.limits, job.forbidden, job.entry, job.seed_slot, job.together, run)


@lru_cache(maxsize=256)
def _form(kind: str, setting: Setting) -> Form:
    label, blobs = setting.label, Blobs()
    fixed: dict[str, str] = {
        "entry": _kept(setting.entry, blobs),
        "forbidden": _named(canonical(setting.forbidden), blobs),
        "isolation": _named(canonical(asdict(setting.isolation)), blobs),
        "kind": canonical(kind),
        "limits": canonical(asdict(setting.limits)),
        "policy_version": canonical(label.policy_version),
        "purpose": canonical(label.purpose),
        "run": canonical(setting.run),
        "seed_slot": canonical(setting.seed_slot),
        "step": canonical(label.step),
        "task_type": canonical(label.task_type),
        "together": canonical(setting.together),
        "version": canonical(VERSION),
    }
    fields = {name: text.replace("%", "%%") for name, text in fixed.items()} | _ROOM | _ROOM_OF_KIND[kind]
    return Form("{" + ",".join(f'"{name}":{fields[name]}' for name in sorted(fields)) + "}", blobs)


def _varying(job: Job, span: Span, place: Place, blobs: Blobs) -> dict[str, object]:
    return {
        "program": _named(job.program, blobs),
        "inputs": ",".join([_kept(text, blobs) for text in job.inputs]),
        "time": _time(span),
        "sequence": place.sequence,
        "previous": canonical(place.previous),
    }


def _result(result: RunResult, blobs: Blobs) -> str:
    return (
        f'{{"error":{_kept(result.error, blobs)},"input":{_kept(result.input, blobs)},'
        f'"is_repeatable":{"true" if result.is_repeatable else "false"},'
        f'"status":{canonical(result.status)},"value":{_kept(result.value, blobs)}}}'
    )


def _time(span: Span) -> str:
    begun, ended = span
    return (
        f'{{"begun_monotonic_ns":{begun.monotonic_ns},"begun_s":{begun.wall_s!r},'
        f'"ended_monotonic_ns":{ended.monotonic_ns},"ended_s":{ended.wall_s!r}}}'
    )


def _number(number: float) -> str:
    if not math.isfinite(number):
        raise ValueError(f"the audit log has no word for {number}")
    return repr(number)


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text_bytes(text))


def _named(text: str, blobs: Blobs) -> str:
    if not text:
        return '""'
    content = text_bytes(text)
    name = digest(content)
    blobs[name] = content
    return f'"{name}"'


def _kept(text: str, blobs: Blobs) -> str:
    if len(text) <= IN_PLACE_CHARS and text.isascii():  # JSON would make one character of two surrogates
        return canonical(text)
    return f'{{"sha256":{_named(text, blobs)}}}'
