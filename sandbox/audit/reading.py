"""What a record of the audit log tells: its texts, its job, what became of it. Written by `sandbox.audit.records`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from sandbox.audit.records import Body, digest, text_bytes
from sandbox.types import AuditError, Execution, Job, Limits, RunResult, Status

Kept = str | dict[str, str]
"""A text in a record: the text itself, or `{"sha256": NAME}`."""


def blob_text(content: bytes) -> str:
    """The text of a blob; damaged bytes become replacement characters, `verify` tells them."""
    try:
        return content.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return content.decode("utf-8", "replace")


def named_blobs(body: Body) -> list[str]:
    """The hashes of every text that a record names."""
    names: list[Any] = [body.get(field) for field in ("program", "forbidden", "isolation")]
    names += [kept["sha256"] for kept in _all_kept(body) if not isinstance(kept, str)]
    return [name for name in names if name]


def texts_in_place(body: Body) -> list[str]:
    """The texts that a record itself holds."""
    return [kept for kept in _all_kept(body) if isinstance(kept, str)]


def _all_kept(body: Body) -> list[Kept]:
    results: list[Body] = body.get("results", [])
    of_results = [result[field] for result in results for field in ("input", "value", "error")]
    return [*body.get("inputs", []), body.get("entry", ""), body.get("failure", ""), *of_results]


def text_of(kept: object, texts: Mapping[str, str]) -> str:
    """A text of a record; `texts` holds the blobs.

    Raises:
        AuditError: that is no text of a record.
    """
    if isinstance(kept, str):
        return kept
    return texts[hash_of(kept)]


def hash_of(kept: object) -> str:
    """The SHA-256 of a text of a record, in hex; empty for an empty text.

    Raises:
        AuditError: that is no text of a record.
    """
    if isinstance(kept, str):
        return digest(text_bytes(kept)) if kept else ""
    name = cast(dict[str, object], kept).get("sha256") if isinstance(kept, dict) else None
    if not isinstance(name, str):
        raise AuditError("a record holds something where a text belongs: `azr audit verify` tells what was changed")
    return name


def job_of(body: Body, texts: Mapping[str, str]) -> Job:
    """The job that a record tells of, to be run again; `texts` holds the blobs that it names."""
    return Job(
        program=texts[body["program"]],
        inputs=tuple(text_of(kept, texts) for kept in body["inputs"]),
        entry=text_of(body["entry"], texts),
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
                input=text_of(result["input"], texts),
                value=text_of(result["value"], texts),
                error=text_of(result["error"], texts),
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
