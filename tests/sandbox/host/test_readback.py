"""How the host reads the lines that a hostile process wrote, and what the supervisor measured."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from sandbox import Job, Limits, Status
from sandbox.host import readback
from sandbox.host.readback import LONGEST_KEPT, Reply, remembers_short_texts
from sandbox.shared import wire
from sandbox.shared.wire import Exit, Kind, Stop

NONCE = b"01234567"
HEADER = wire.request_header(1, Kind.CALL, inputs=1, limits=Limits(), body_bytes=10)
ENDED = Exit(1, Stop.NONE, False, 0, 0, cpu_us=5000, wall_us=6000, peak_kib=2048, printed_bytes=3, result_bytes=0)


def lines(*texts: str, kind: bytes = wire.VALUE, nonce: bytes = NONCE) -> bytes:
    return b"".join(nonce + kind + text.encode() + b"\n" for text in texts)


def read(data: bytes, num_lines: int = 2, **changes: Any) -> Reply:
    ending = ENDED._replace(result_bytes=len(data), **changes)
    return readback.read_reply(HEADER, NONCE, ending, data, num_lines=num_lines)


def test_a_reply_with_both_values_is_ok() -> None:
    reply = read(lines("1", "1"))
    assert (reply.status, reply.texts) == (Status.OK, ("1", "1"))
    assert (reply.cpu_s, reply.wall_s, reply.peak_memory_mib) == (0.005, 0.006, 2.0)
    assert reply.output_bytes == 3 + len(lines("1", "1"))


@pytest.mark.parametrize(
    "data",
    [
        b"", lines("1"), lines("1", "1", "1"), lines("1", "1")[:-1], lines("1", "1", nonce=b"76543210"),
        lines("1") + b"\n" + lines("1"), b"v1\nv1\n", lines("1", "1", kind=b"?"),
    ],
)  # fmt: skip
def test_anything_but_the_expected_lines_is_an_error(data: bytes) -> None:
    assert read(data).status is Status.ERROR


@pytest.mark.parametrize(("kind", "status"), readback.KINDS.items())
def test_a_line_that_reports_a_failure_gives_its_status(kind: bytes, status: Status) -> None:
    reply = read(lines("why", kind=kind))
    assert (reply.status, reply.error) == (status, "why")


def test_limits_that_the_supervisor_saw_passed_outweigh_what_the_process_wrote() -> None:
    values = lines("1", "1")
    assert read(values, stop=Stop.TIMEOUT).status is Status.TIMEOUT
    assert read(values, stop=Stop.OUTPUT).status is Status.OUTPUT_LIMIT
    assert read(values, cpu_us=2_100_000).status is Status.TIMEOUT
    assert read(b"", signal=signal.SIGXCPU).status is Status.TIMEOUT


def test_a_signal_gives_the_status_that_the_kernel_reported() -> None:
    assert read(b"", signal=signal.SIGSEGV).status is Status.KILLED
    assert read(b"", signal=signal.SIGKILL, was_oom=True).status is Status.MEMORY
    denied = read(b"", signal=signal.SIGSYS)
    assert (denied.status, denied.was_denied) == (Status.KILLED, True)


def test_a_process_that_could_not_be_confined_is_our_fault() -> None:
    with pytest.raises(wire.BrokenFrame):
        read(b"", exit_code=wire.BROKEN_EXIT)


def called(reply: Reply, *inputs: str) -> list[tuple[Status, str, bool]]:
    results = readback.results_of_call(Job("", inputs), inputs, reply)
    return [(result.status, result.value, result.is_repeatable) for result in results]


def test_values_that_differ_are_not_repeatable_and_the_order_of_a_dict_does_not_matter() -> None:
    assert called(read(lines("1", "2")), "0") == [(Status.OK, "1", False)]
    assert called(read(lines("{1: 2, 3: 4}", "{3: 4, 1: 2}")), "0") == [(Status.OK, "{1: 2, 3: 4}", True)]


def test_a_text_that_is_not_canonical_is_not_a_value() -> None:
    assert called(read(lines("1+1", "1+1")), "0") == [(Status.NOT_A_VALUE, "", True)]


def test_inputs_after_the_first_failure_were_not_run() -> None:
    reply = read(lines("1", "1") + lines("boom", kind=wire.ERROR), num_lines=6)
    results = readback.results_of_call(Job("", ()), ("0", "1", "2"), reply)
    assert [result.status for result in results] == [Status.OK, Status.ERROR, Status.ERROR]
    assert [result.error for result in results] == ["", "boom", "not run: an earlier input failed"]


def test_a_process_that_failed_after_its_last_value_fails_its_last_input() -> None:
    reply = read(lines("1", "1", "2", "2"), num_lines=4, stop=Stop.TIMEOUT)
    assert [status for status, _, _ in called(reply, "0", "1")] == [Status.OK, Status.TIMEOUT]


def test_short_texts_are_remembered_and_long_ones_are_not() -> None:
    asked: list[str] = []

    @remembers_short_texts
    def length(text: str) -> int:
        asked.append(text)
        return len(text)

    long = "x" * (LONGEST_KEPT + 1)
    assert [length("a"), length("a"), length(long), length(long)] == [1, 1, LONGEST_KEPT + 1, LONGEST_KEPT + 1]
    assert asked == ["a", long, long]
