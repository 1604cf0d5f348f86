"""What the audit log says of one execution: a JSON object that names every text by its hash.

Encoding version 1. A record's body is one JSON object: keys sorted, no spaces, ASCII (any other code point, lone
surrogates too, as \\uXXXX), no NaN. Texts that a model or a user wrote are blobs, stored once: UTF-8 with surrogates
passed through, named by the SHA-256 of these bytes; an empty text is the empty name and no blob.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple, TypedDict

from sandbox.types import Execution, Isolation, Job, Limits, RunResult, Status

VERSION = 1
NO_HASH = "0" * 64
"""What stands before the first record."""

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


def blob_text(content: bytes) -> str:
    """The text of a blob; damaged bytes become replacement characters, `verify` tells them."""
    try:
        return content.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return content.decode("utf-8", "replace")


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

    def body(self) -> Body:
        return {
            "begun_s": self.begun.wall_s,
            "ended_s": self.ended.wall_s,
            "begun_monotonic_ns": self.begun.monotonic_ns,
            "ended_monotonic_ns": self.ended.monotonic_ns,
        }


@dataclass(frozen=True, slots=True)
class Executed:
    """A job that ran."""

    label: Label
    job: Job
    execution: Execution
    isolation: Isolation
    span: Span

    def body(self, blobs: Blobs) -> Body:
        """The record without its place in the chain; the texts that it names are put into `blobs`."""
        execution = self.execution
        return {
            "kind": "execution",
            **_asked(self.label, self.job, self.isolation, self.span, blobs),
            "status": str(execution.status),
            "results": [_result(result, blobs) for result in execution.results],
            "wall_s": execution.wall_s,
            "cpu_s": execution.cpu_s,
            "peak_memory_mib": execution.peak_memory_mib,
            "output_bytes": execution.output_bytes,
            "kept_bytes": sum(len(text_bytes(result.value)) for result in execution.results),
            "denied": execution.denied,
        }


@dataclass(frozen=True, slots=True)
class Broken:
    """A job that was asked for when the sandbox itself failed: no verdict was drawn from it, but it may have run."""

    label: Label
    job: Job
    failure: str
    isolation: Isolation
    span: Span

    def body(self, blobs: Blobs) -> Body:
        asked = _asked(self.label, self.job, self.isolation, self.span, blobs)
        return {"kind": "broken", **asked, "status": "broken", "failure": _name(self.failure, blobs)}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that is no execution: `genesis`, `resumed`."""

    kind: str
    details: Mapping[str, int | str]

    def body(self, blobs: Blobs) -> Body:
        del blobs
        now = Moment.now()
        return {"kind": self.kind, **self.details, "time": Span(now, now).body()}


Entry = Executed | Broken | Event


def _asked(label: Label, job: Job, isolation: Isolation, span: Span, blobs: Blobs) -> Body:
    return {
        "purpose": label.purpose,
        "task_type": label.task_type,
        "step": label.step,
        "policy_version": label.policy_version,
        "program": _name(job.program, blobs),
        "inputs": _name(canonical(job.inputs), blobs),
        "entry": _name(job.entry, blobs),
        "limits": _limits(job.limits),
        "forbidden": _name(_list_text(job.forbidden), blobs),
        "seed_slot": job.seed_slot,
        "together": job.together,
        "isolation": _name(_isolation_text(isolation), blobs),
        "time": span.body(),
    }


def _result(result: RunResult, blobs: Blobs) -> Body:
    return {
        "status": str(result.status),
        "input": _name(result.input, blobs),
        "value": _name(result.value, blobs),
        "error": _name(result.error, blobs),
        "is_repeatable": result.is_repeatable,
    }


def _name(text: str, blobs: Blobs) -> str:
    if not text:
        return ""
    content = text_bytes(text)
    name = digest(content)
    blobs[name] = content
    return name


@lru_cache(maxsize=64)
def _limits(limits: Limits) -> Mapping[str, float]:
    return asdict(limits)


@lru_cache(maxsize=64)
def _list_text(texts: tuple[str, ...]) -> str:
    return canonical(texts)


@lru_cache(maxsize=8)
def _isolation_text(isolation: Isolation) -> str:
    return canonical(asdict(isolation))


def named_blobs(body: Body) -> list[str]:
    """The hashes of every text that a record names."""
    fields = ("program", "inputs", "entry", "forbidden", "isolation", "failure")
    names: list[Any] = [body.get(field) for field in fields]
    for result in body.get("results", []):
        names += [result.get(field) for field in ("input", "value", "error")]
    return [name for name in names if name]


def job_of(body: Body, texts: Mapping[str, str]) -> Job:
    """The job that a record tells of, to be run again; `texts` holds the blobs that it names."""
    return Job(
        program=texts[body["program"]],
        inputs=tuple(json.loads(texts[body["inputs"]])),
        entry=texts[body["entry"]],
        limits=Limits(**body["limits"]),
        forbidden=tuple(json.loads(texts[body["forbidden"]])),
        seed_slot=body["seed_slot"],
        together=body["together"],
    )


def execution_of(body: Body, texts: Mapping[str, str]) -> Execution:
    """The execution as it was given to whoever drew the verdict."""
    return Execution(
        status=Status(body["status"]),
        results=tuple(
            RunResult(
                status=Status(result["status"]),
                input=texts[result["input"]],
                value=texts[result["value"]],
                error=texts[result["error"]],
                is_repeatable=result["is_repeatable"],
            )
            for result in body["results"]
        ),
        wall_s=body["wall_s"],
        cpu_s=body["cpu_s"],
        peak_memory_mib=body["peak_memory_mib"],
        output_bytes=body["output_bytes"],
        denied=body["denied"],
    )
