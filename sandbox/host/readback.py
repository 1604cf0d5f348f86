"""Turns what came out of a fork into results. The lines come from a hostile process: each text must be canonical."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from sandbox.host.remembering import remembers_short_texts
from sandbox.shared import wire
from sandbox.shared.values import NotAValue, NotCanonical, arguments_text, decode, decode_arguments, encode, same_text
from sandbox.shared.wire import Exit, RequestHeader, Stop
from sandbox.types import Job, Limits, RunResult, Status

KINDS = {
    wire.ERROR: Status.ERROR,
    wire.NOT_A_VALUE: Status.NOT_A_VALUE,
    wire.SYNTAX_ERROR: Status.SYNTAX_ERROR,
    wire.MEMORY: Status.MEMORY,
    wire.TOO_LARGE: Status.OUTPUT_LIMIT,
    wire.FORBIDDEN: Status.FORBIDDEN,
}


@dataclass(frozen=True, slots=True)
class Handed:
    """What one fork handed over, and how it ended."""

    status: Status
    """Of the fork as a whole: ok when every line that was wanted is there."""
    texts: tuple[str, ...]
    """The lines before the first failure; not checked yet."""
    error: str
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_mib: float = 0.0
    output_bytes: int = 0
    was_denied: bool = False

    @property
    def ok(self) -> bool:
        return self.status is Status.OK


def stopped(status: Status, why: str) -> Handed:
    """A fork that gave nothing."""
    return Handed(status, (), why)


def handed(request: RequestHeader, nonce: bytes, ending: Exit, data: bytes, *, wanted: int) -> Handed:
    """The verdict on one fork that was to hand over `wanted` lines.

    Raises:
        BrokenFrame: the fork was never confined; nothing ran.
    """
    if ending.exit_code == wire.BROKEN_EXIT and not data:
        raise wire.BrokenFrame("a fork could not be confined")
    status, texts, error = _lines(nonce, data, wanted, ending)
    if (limit := _limit_passed(request, ending)) is not None:
        status, error = limit, f"{limit} limit passed"
    elif status is Status.ERROR and ending.signal:
        status, error = _signalled(ending)
    return Handed(
        status,
        tuple(texts),
        error[: wire.MAX_ERROR_CHARS],
        wall_s=ending.wall_us / 1e6,
        cpu_s=ending.cpu_us / 1e6,
        peak_memory_mib=ending.peak_kib / 1024,
        output_bytes=ending.printed_bytes + ending.result_bytes,
        was_denied=ending.signal == signal.SIGSYS,
    )


def _lines(nonce: bytes, data: bytes, wanted: int, ending: Exit) -> tuple[Status, list[str], str]:
    lines = data.split(b"\n")[:-1]
    if any(not line.startswith(nonce) for line in lines):
        return Status.ERROR, [], "something else than values came through the result pipe"
    place = len(nonce)
    texts: list[str] = []
    for line in lines:
        kind, text = line[place : place + 1], line[place + 1 :].decode("utf-8", "replace")
        if kind != wire.VALUE:
            return KINDS.get(kind, Status.ERROR), texts, text
        texts.append(text)
    if len(texts) == wanted:
        return Status.OK, texts, ""
    return Status.ERROR, texts, f"the program ended without handing over a value (exit code {ending.exit_code})"


def _limit_passed(request: RequestHeader, ending: Exit) -> Status | None:
    if ending.stop == Stop.OUTPUT:
        return Status.OUTPUT_LIMIT
    is_slow = ending.cpu_us > request.cpu_ms * 1000 * (request.inputs or 1) or ending.signal == signal.SIGXCPU
    return Status.TIMEOUT if ending.stop == Stop.TIMEOUT or is_slow else None


def _signalled(ending: Exit) -> tuple[Status, str]:
    if ending.was_oom:
        return Status.MEMORY, "the container ran out of memory"
    if ending.signal == signal.SIGSYS:
        return Status.KILLED, "ended by the kernel for a system call that is denied"
    return Status.KILLED, f"ended by signal {ending.signal}"


def called(job: Job, inputs: tuple[str, ...], ran: Handed) -> list[RunResult]:
    """The results of one fork that called the program on these canonical inputs, in their order."""
    failing = len(inputs) if ran.ok else min(len(ran.texts) // wire.CALLS, len(inputs) - 1)
    results: list[RunResult] = []
    for index, text in enumerate(inputs):
        if index < failing:
            values = ran.texts[index * wire.CALLS : (index + 1) * wire.CALLS]
            results.append(_result(text, values, job.limits))
        else:
            why = ran.error if index == failing else "not run: an input before it failed"
            results.append(RunResult(ran.status, text, "", why))
    return results


def _result(text: str, values: tuple[str, ...], limits: Limits) -> RunResult:
    if not all(_is_canonical(value, limits.output_bytes) for value in set(values)):
        return RunResult(Status.NOT_A_VALUE, text, "", "the text handed over is not canonical")
    return RunResult(Status.OK, text, values[0], "", is_repeatable=_agree(values))


@remembers_short_texts
def _is_canonical(text: str, max_bytes: int) -> bool:
    try:
        return encode(decode(text, max_bytes), max_bytes) == text
    except (NotCanonical, NotAValue):
        return False


def canonical_arguments(text: str, max_bytes: int) -> str:
    """The canonical form of an argument list that is written out.

    Raises:
        NotCanonical, NotAValue: it is not; only evaluating it could tell.
    """
    return arguments_text(decode_arguments(text, max_chars=max_bytes), max_bytes)


def _agree(values: tuple[str, ...]) -> bool:
    return all(same_text(text, values[0]) for text in values[1:])
