"""The bytes between host and guest."""

from __future__ import annotations

import pytest

from sandbox import Limits, decode_arguments
from sandbox.shared import wire
from sandbox.shared.wire import Exit, Kind, Stop

LIMITS = Limits(wall_s=0.5, cpu_s=1.25, memory_mib=7, output_bytes=99, processes=3, open_files=5)
EXIT = Exit(7, Stop.TIMEOUT, True, 9, 1, 2, 3, 4, 5, 6)


def test_a_request_survives_the_wire() -> None:
    request = wire.request_header(2**40, Kind.CALL, inputs=3, limits=LIMITS, body_bytes=12)
    assert wire.read_request_header(request.packed()) == request


def test_a_body_survives_the_wire_with_all_its_odd_characters() -> None:
    texts = ("f", "é\ud800\0\n", b"\xff")
    assert wire.read_body(wire.body(b"12345678", texts)) == (b"12345678", texts)


def test_an_exit_survives_the_wire() -> None:
    assert wire.read_exit(EXIT.packed()) == EXIT


@pytest.mark.parametrize("place", [0, 12])
def test_a_reply_header_with_a_number_out_of_range_is_refused(place: int) -> None:
    data = bytearray(EXIT.packed())
    data[place] = 0xEE
    with pytest.raises(wire.BrokenFrame):
        wire.read_exit(bytes(data))


def test_a_request_header_that_announces_too_long_a_body_is_refused() -> None:
    too_long = wire.request_header(1, Kind.CALL, inputs=1, limits=LIMITS, body_bytes=wire.MAX_BODY_BYTES + 1)
    with pytest.raises(wire.BrokenFrame):
        wire.read_request_header(too_long.packed())


@pytest.mark.parametrize("text", ["", "1, 'a'", "[nan, -0.0], x={1: (2,)}", "Counter({'a': 2}), deque([1], maxlen=3)"])
def test_arguments_arrive_as_they_were_written(text: str) -> None:
    positional, keywords = wire.read_arguments(wire.packed_arguments(text))
    expected = decode_arguments(text)
    assert (repr(positional), repr(keywords)) == (repr(expected.positional), repr(expected.keywords))


def test_every_reading_of_arguments_is_fresh() -> None:
    packed = wire.packed_arguments("[1]")
    assert wire.read_arguments(packed)[0][0] is not wire.read_arguments(packed)[0][0]
