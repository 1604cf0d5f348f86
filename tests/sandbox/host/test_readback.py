"""What the host makes of a fork's lines and ending: both may have been written by an enemy."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from sandbox import Job, Limits, Status
from sandbox.host import readback
from sandbox.host.readback import Handed
from sandbox.shared import wire
from sandbox.shared.wire import Exit, Kind, Stop

NONCE = b"01234567"
REQUEST = wire.request_header(1, Kind.CALL, inputs=1, limits=Limits(), body_bytes=10)
ENDED = Exit(1, Stop.NONE, False, 0, 0, cpu_us=5000, wall_us=6000, peak_kib=2048, printed_bytes=3, result_bytes=0)


def lines(*texts: str, kind: bytes = wire.VALUE, nonce: bytes = NONCE) -> bytes:
    return b"".join(nonce + kind + text.encode() + b"\n" for text in texts)


def read(data: bytes, wanted: int = 2, **changes: Any) -> Handed:
    ending = ENDED._replace(result_bytes=len(data), **changes)
    return readback.handed(REQUEST, NONCE, ending, data, wanted=wanted)


def test_both_values_make_a_fork_that_is_ok() -> None:
    handed = read(lines("1", "1"))
    assert (handed.status, handed.texts) == (Status.OK, ("1", "1"))
    assert (handed.cpu_s, handed.wall_s, handed.peak_memory_mib) == (0.005, 0.006, 2.0)
    assert handed.output_bytes == 3 + len(lines("1", "1"))


@pytest.mark.parametrize(
    "data",
    [
        b"", lines("1"), lines("1", "1", "1"), lines("1", "1")[:-1], lines("1", "1", nonce=b"76543210"),
        lines("1") + b"\n" + lines("1"), b"v1\nv1\n", lines("1", "1", kind=b"?"),
    ],
)  # fmt: skip
def test_anything_but_the_lines_that_were_wanted_is_an_error(data: bytes) -> None:
    assert read(data).status is Status.ERROR


@pytest.mark.parametrize(("kind", "status"), readback.KINDS.items())
def test_a_line_of_failure_says_its_status(kind: bytes, status: Status) -> None:
    handed = read(lines("why", kind=kind))
    assert (handed.status, handed.error) == (status, "why")


def test_limits_that_the_supervisor_saw_passed_outweigh_what_the_fork_says() -> None:
    values = lines("1", "1")
    assert read(values, stop=Stop.TIMEOUT).status is Status.TIMEOUT
    assert read(values, stop=Stop.OUTPUT).status is Status.OUTPUT_LIMIT
    assert read(values, cpu_us=2_100_000).status is Status.TIMEOUT
    assert read(b"", signal=signal.SIGXCPU).status is Status.TIMEOUT


def test_a_signal_is_what_the_kernel_says_it_is() -> None:
    assert read(b"", signal=signal.SIGSEGV).status is Status.KILLED
    assert read(b"", signal=signal.SIGKILL, was_oom=True).status is Status.MEMORY
    denied = read(b"", signal=signal.SIGSYS)
    assert (denied.status, denied.was_denied) == (Status.KILLED, True)


def test_a_fork_that_was_never_confined_is_our_fault() -> None:
    with pytest.raises(wire.BrokenFrame):
        read(b"", exit_code=wire.BROKEN_EXIT)


def called(handed: Handed, *inputs: str) -> list[tuple[Status, str, bool]]:
    results = readback.called(Job("", inputs), inputs, handed)
    return [(result.status, result.value, result.is_repeatable) for result in results]


def test_values_that_differ_are_not_repeatable_and_order_of_a_dict_is_no_difference() -> None:
    assert called(read(lines("1", "2")), "0") == [(Status.OK, "1", False)]
    assert called(read(lines("{1: 2, 3: 4}", "{3: 4, 1: 2}")), "0") == [(Status.OK, "{1: 2, 3: 4}", True)]


def test_a_text_that_is_not_canonical_is_no_value() -> None:
    assert called(read(lines("1+1", "1+1")), "0") == [(Status.NOT_A_VALUE, "", True)]


def test_inputs_behind_the_first_failure_were_not_run() -> None:
    handed = read(lines("1", "1") + lines("boom", kind=wire.ERROR), wanted=6)
    results = readback.called(Job("", ()), ("0", "1", "2"), handed)
    assert [result.status for result in results] == [Status.OK, Status.ERROR, Status.ERROR]
    assert [result.error for result in results] == ["", "boom", "not run: an input before it failed"]


def test_a_fork_that_failed_after_its_last_value_fails_its_last_input() -> None:
    handed = read(lines("1", "1", "2", "2"), wanted=4, stop=Stop.TIMEOUT)
    assert [status for status, _, _ in called(handed, "0", "1")] == [Status.OK, Status.TIMEOUT]
