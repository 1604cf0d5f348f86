"""The bytes between host and guest: a fixed header, then JSON. Standard library only; both sides use this file.

::

    header   magic "AZRJ" | job id, 8 bytes | body length, 4 | deadline in ms, 4 (0 in a reply)
    request  {"program": ..., "inputs": [...], "entry": "f", "limits": {...}, "forbidden": [...], "calls": 1}
    reply    {"status": "ok", "results": [["ok", "[3, 1]", ["[1, 3]"], ""]], "wall_s": 0.01, "cpu_s": 0.01,
              "peak_memory_mib": 11.2}
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, cast

from sandbox.types import Job, Limits, Status

MAGIC = b"AZRJ"
HEADER = struct.Struct(">4sQII")
MAX_REQUEST_BYTES = 8 * 1024 * 1024
MAX_ERROR_CHARS = 500


class BrokenFrame(ValueError):
    """The bytes are no frame of ours, or their content is not what the format says."""


class Header(NamedTuple):
    """What stands before every body."""

    job_id: int
    length: int
    deadline_ms: int


class RawResult(NamedTuple):
    """What the guest says about one input; `values` holds one canonical text a call."""

    status: Status
    input: str
    values: tuple[str, ...]
    error: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What the guest says about one job. `status` covers the job when it has no results (it was stopped as a whole)."""

    status: Status
    results: tuple[RawResult, ...]
    wall_s: float
    cpu_s: float
    peak_memory_mib: float


def frame(job_id: int, body: bytes, deadline_ms: int = 0) -> bytes:
    return HEADER.pack(MAGIC, job_id, len(body), deadline_ms) + body


def read_header(data: bytes) -> Header:
    magic, job_id, length, deadline_ms = HEADER.unpack(data)
    if magic != MAGIC:
        raise BrokenFrame("this is no frame of ours")
    return Header(job_id, length, deadline_ms)


def job_bytes(job: Job) -> bytes:
    request = asdict(job)
    del request["seed_slot"]
    return json.dumps(request).encode()


def read_job(body: bytes) -> Job:
    request = json.loads(body)
    return Job(
        program=request["program"],
        inputs=tuple(request["inputs"]),
        entry=request["entry"],
        limits=Limits(**request["limits"]),
        forbidden=tuple(request["forbidden"]),
        calls=request["calls"],
    )


def reply_bytes(reply: Reply) -> bytes:
    return json.dumps(asdict(reply) | {"results": [list(result) for result in reply.results]}).encode()


def max_reply_bytes(job: Job) -> int:
    """Longest honest reply: every text at its limit and every character escaped."""
    a_result = (job.calls + 1) * job.limits.output_bytes + MAX_ERROR_CHARS + 256
    return 1024 + 6 * a_result * len(job.inputs)


def read_reply(body: bytes) -> Reply:
    """The reply, checked field by field: a hostile program may have had a hand in it.

    Raises:
        BrokenFrame: some field is not of its type.
    """
    try:
        fields = json.loads(body)
        return Reply(
            status=Status(fields["status"]),
            results=tuple(_result(entry) for entry in cast(list[Any], _typed(fields["results"], list))),
            wall_s=_typed(fields["wall_s"], float),
            cpu_s=_typed(fields["cpu_s"], float),
            peak_memory_mib=_typed(fields["peak_memory_mib"], float),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BrokenFrame(f"the reply is malformed: {error!r}"[:MAX_ERROR_CHARS]) from None


def _result(entry: Any) -> RawResult:
    status, arguments, values, error = _typed(entry, list)
    texts = tuple(_typed(text, str) for text in _typed(values, list))
    return RawResult(Status(status), _typed(arguments, str), texts, _typed(error, str)[:MAX_ERROR_CHARS])


def _typed(field: Any, kind: type) -> Any:
    if type(field) is not kind:
        raise BrokenFrame(f"{kind.__name__} expected")
    return field
