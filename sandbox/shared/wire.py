"""The bytes between host and guest: fixed headers of numbers, then raw text. Standard library only; both sides use it.

::

    request  numbers (`REQUEST`), then the body: a nonce, then the marshalled texts
    reply    numbers that the supervisor measured (`REPLY`), then what came through the hostile process's result pipe
    a line   nonce | kind, 1 byte | text | newline

The supervisor reads and writes the numbers only. A body is read by the fork that it is meant for, lines by the host.
"""

from __future__ import annotations

import marshal
import math
import struct
from enum import IntEnum
from typing import Any, NamedTuple

from sandbox.shared.limits import Limits
from sandbox.shared.literals import decode_arguments

REQUEST = struct.Struct(">4sQBBIIIIHHI")
REPLY = struct.Struct(">4sQBBBBQQQQI")
MAGIC = b"AZR2"
NONCE_BYTES = 8
"""Of hexadecimal digits: a newline in it would split its line."""
MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_RESULT_BYTES = 8 * 1024 * 1024
MAX_ERROR_CHARS = 500
CALLS = 2
"""How often a program is called on each input: always, so that a program cannot tell who asks."""

VALUE, ERROR, NOT_A_VALUE, SYNTAX_ERROR, MEMORY, TOO_LARGE, FORBIDDEN = b"v", b"e", b"n", b"s", b"m", b"o", b"f"
BROKEN_EXIT = 113
"""A fork that could not be confined ends with this code, and has run nothing."""


class BrokenFrame(ValueError):
    """The bytes are no frame of ours, or their content is not what the format says."""


class Kind(IntEnum):
    """What a fork is asked to do; its texts in brackets."""

    INSPECT = 1
    """Apply the static policy to a program, without running it [program, forbidden names...]."""
    EVALUATE = 2
    """Evaluate the source of an argument list in an empty namespace [source]."""
    CALL = 3
    """Run a program and call its entry on canonical argument lists [entry, program, argument lists...]."""


class Stop(IntEnum):
    """Which limit the supervisor saw passed."""

    NONE = 0
    TIMEOUT = 1
    OUTPUT = 2


class Request(NamedTuple):
    """The numbers in front of a body. Plain ones, because the supervisor pays with a page for every object it makes."""

    run_id: int
    kind: int
    """A `Kind`."""
    inputs: int
    """Argument lists in the body; each has the wall and CPU time anew."""
    wall_ms: int
    cpu_ms: int
    memory_mib: int
    output_bytes: int
    processes: int
    open_files: int
    body_bytes: int

    @property
    def most_result_bytes(self) -> int:
        """Longest honest result: every value at its limit."""
        a_line = self.output_bytes + NONCE_BYTES + 2 + 4 * MAX_ERROR_CHARS
        return min(MAX_RESULT_BYTES, a_line * CALLS * (self.inputs or 1))

    @property
    def worst_case_s(self) -> float:
        """Longest that the fork may take."""
        return self.wall_ms / 1000 * (self.inputs or 1)

    def packed(self) -> bytes:
        return REQUEST.pack(MAGIC, *self)


def request(run_id: int, kind: Kind, *, inputs: int, limits: Limits, body_bytes: int) -> Request:
    """A request under these limits."""
    wall_ms, cpu_ms = math.ceil(limits.wall_s * 1000), math.ceil(limits.cpu_s * 1000)
    sizes = (limits.memory_mib, limits.output_bytes, limits.processes, limits.open_files)
    return Request(run_id, kind, inputs, wall_ms, cpu_ms, *sizes, body_bytes=body_bytes)


def read_request(data: bytes) -> Request:
    """The numbers of a request.

    Raises:
        BrokenFrame: it is none.
    """
    magic, *numbers = REQUEST.unpack(data)
    if magic != MAGIC or numbers[-1] > MAX_BODY_BYTES:
        raise BrokenFrame("this is no request of ours")
    return Request._make(numbers)


def body(nonce: bytes, texts: tuple[str | bytes, ...]) -> bytes:
    """A request's body. Marshalled, because a fork that reads it in C touches few pages; only the host ever writes one,
    and the host never reads one."""
    return nonce + marshal.dumps(texts)


def read_body(data: bytes) -> tuple[bytes, tuple[str | bytes, ...]]:
    """Nonce and texts; only ever called in a fork."""
    return data[:NONCE_BYTES], marshal.loads(data[NONCE_BYTES:])


def packed_arguments(canonical: str) -> str | bytes:
    """A canonical argument list as a fork reads it fastest: marshalled, or as it is where a value type forbids it."""
    arguments = decode_arguments(canonical)
    try:
        return marshal.dumps((arguments.positional, arguments.keywords))
    except ValueError:
        return canonical


def read_arguments(packed: str | bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Fresh values; only ever called in a fork."""
    return marshal.loads(packed) if isinstance(packed, bytes) else decode_arguments(packed)


class Ending(NamedTuple):
    """How a fork ended, as the supervisor measured it; `result_bytes` of lines follow."""

    run_id: int
    stop: int
    """A `Stop`."""
    was_oom: bool
    signal: int
    exit_code: int
    cpu_us: int
    wall_us: int
    peak_kib: int
    printed_bytes: int
    result_bytes: int

    def packed(self) -> bytes:
        return REPLY.pack(MAGIC, *self)


def read_ending(data: bytes) -> Ending:
    """The numbers of a reply.

    Raises:
        BrokenFrame: it is none.
    """
    magic, run_id, stop, was_oom, *numbers = REPLY.unpack(data)
    if magic != MAGIC or stop > Stop.OUTPUT or numbers[-1] > MAX_RESULT_BYTES:
        raise BrokenFrame("this is no reply of ours")
    return Ending(run_id, stop, bool(was_oom), *numbers)
