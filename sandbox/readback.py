"""Turns the guest's reply into an `Execution`. The texts in it came from a hostile process: each must be canonical."""

from __future__ import annotations

from sandbox import wire
from sandbox.types import Execution, Job, RunResult, Status
from sandbox.values import NotAValue, NotCanonical, arguments_text, decode, decode_arguments, encode, same


def execution(job: Job, reply: wire.Reply) -> Execution:
    """What became of the job.

    Raises:
        BrokenFrame: the reply does not fit the job.
    """
    if not reply.results and job.inputs:
        return stopped(job, reply.status, "the whole job was stopped", reply.wall_s)
    if len(reply.results) != len(job.inputs):
        raise wire.BrokenFrame(f"{len(reply.results)} results for {len(job.inputs)} inputs")
    results = tuple(_result(job, raw) for raw in reply.results)
    status = next((result.status for result in results if not result.ok), Status.OK)
    return Execution(status, results, reply.wall_s, reply.cpu_s, reply.peak_memory_mib)


def stopped(job: Job, status: Status, why: str, wall_s: float = 0.0) -> Execution:
    """An execution that gave nothing, every input with the same status."""
    return Execution(status, tuple(RunResult(status, "", "", why) for _ in job.inputs), wall_s, 0.0, 0.0)


def _result(job: Job, raw: wire.RawResult) -> RunResult:
    if raw.status is not Status.OK:
        return RunResult(raw.status, _canonical_arguments(raw.input, job.limits.output_bytes) or "", "", raw.error)
    if len(raw.values) != job.calls:
        raise wire.BrokenFrame(f"{len(raw.values)} values for {job.calls} calls")
    arguments = _canonical_arguments(raw.input, job.limits.output_bytes)
    is_canonical = all(_is_canonical(text, job.limits.output_bytes) for text in set(raw.values))
    if arguments is None or not is_canonical:
        return RunResult(Status.NOT_A_VALUE, arguments or "", "", "the text handed over is not canonical")
    return RunResult(Status.OK, arguments, raw.values[0], "", is_repeatable=_agree(raw.values))


def _is_canonical(text: str, max_bytes: int) -> bool:
    try:
        return encode(decode(text, max_bytes), max_bytes) == text
    except (NotCanonical, NotAValue):
        return False


def _canonical_arguments(text: str, max_bytes: int) -> str | None:
    try:
        return text if arguments_text(decode_arguments(text, max_chars=max_bytes), max_bytes) == text else None
    except (NotCanonical, NotAValue):
        return None


def _agree(values: tuple[str, ...]) -> bool:
    return all(text == values[0] or same(decode(text), decode(values[0])) for text in values[1:])
