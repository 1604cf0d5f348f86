"""The bytes between host and guest."""

from __future__ import annotations

import pytest

from sandbox import Limits, decode_arguments, wire
from sandbox.wire import Ending, Kind, Request, Stop

LIMITS = Limits(wall_s=0.5, cpu_s=1.25, memory_mib=7, output_bytes=99, processes=3, open_files=5)
ENDING = Ending(7, Stop.TIMEOUT, True, 9, 1, 2, 3, 4, 5, 6)


def test_a_request_survives_the_wire() -> None:
    request = Request(2**40, Kind.CALL, 3, LIMITS, 12)
    assert wire.read_request(request.packed()) == request


def test_a_body_survives_the_wire_with_all_its_odd_characters() -> None:
    texts = ("f", "é\ud800\0\n", b"\xff")
    assert wire.read_body(wire.body(b"12345678", texts)) == (b"12345678", texts)


def test_an_ending_survives_the_wire_and_its_numbers_do_not_overflow() -> None:
    assert wire.read_ending(ENDING.packed()) == ENDING
    endless = Ending(7, Stop.NONE, False, 0, 0, 2**40, 2**40, 2**40, 2**40, 6)
    assert wire.read_ending(endless.packed()).cpu_us == 2**32 - 1


@pytest.mark.parametrize("place", [0, 12])
def test_numbers_that_are_none_of_ours_are_refused(place: int) -> None:
    data = bytearray(ENDING.packed())
    data[place] = 0xEE
    with pytest.raises(wire.BrokenFrame):
        wire.read_ending(bytes(data))


def test_a_request_longer_than_any_is_refused() -> None:
    with pytest.raises(wire.BrokenFrame):
        wire.read_request(Request(1, Kind.CALL, 1, LIMITS, wire.MAX_BODY_BYTES + 1).packed())


@pytest.mark.parametrize("text", ["", "1, 'a'", "[nan, -0.0], x={1: (2,)}", "Counter({'a': 2}), deque([1], maxlen=3)"])
def test_arguments_arrive_as_they_were_written(text: str) -> None:
    positional, keywords = wire.read_arguments(wire.packed_arguments(text))
    expected = decode_arguments(text)
    assert (repr(positional), repr(keywords)) == (repr(expected.positional), repr(expected.keywords))


def test_every_reading_of_arguments_is_fresh() -> None:
    packed = wire.packed_arguments("[1]")
    assert wire.read_arguments(packed)[0][0] is not wire.read_arguments(packed)[0][0]
