"""A BPF interpreter for what seccomp filters use, so that a filter's logic is tested without a kernel."""

from __future__ import annotations

import struct
from collections.abc import Sequence

LOAD, AND, RETURN = 0x20, 0x54, 0x06
JUMPS = {0x15: int.__eq__, 0x25: int.__gt__, 0x35: int.__ge__}


def verdict(program: bytes, number: int, arguments: Sequence[int] = (), *, architecture: int) -> int:
    """What the kernel would do with the call.

    Raises:
        ValueError: an instruction that the kernel would refuse, or a program that runs off its end.
    """
    code = list(struct.iter_unpack("=HBBI", program))
    padded = [argument & ((1 << 64) - 1) for argument in [*arguments, *[0] * 6][:6]]
    data = struct.pack("=iIQ6Q", number - (1 << 32) if number >> 31 else number, architecture, 0, *padded)
    accumulator = place = 0
    while place < len(code):
        kind, when_true, when_false, operand = code[place]
        place += 1
        if kind == LOAD:
            if operand % 4 or operand + 4 > len(data):
                raise ValueError(f"a load from {operand}")
            accumulator = struct.unpack_from("=I", data, operand)[0]
        elif kind == AND:
            accumulator &= operand
        elif kind == RETURN:
            return operand
        elif kind in JUMPS:
            place += when_true if JUMPS[kind](accumulator, operand) else when_false
        else:
            raise ValueError(f"instruction {kind:#x}")
    raise ValueError("the program runs off its end")
