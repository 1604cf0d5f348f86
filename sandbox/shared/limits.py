"""What one run may use and what became of it: the numbers and words that host and guest share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """What became of a program, as the supervisor measured it."""

    OK = "ok"
    ERROR = "error"
    """The program raised, or ended without handing over a value."""
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT_LIMIT = "output_limit"
    KILLED = "killed"
    """A signal ended it, or it took its container down twice."""
    NOT_A_VALUE = "not_a_value"
    """It returned something that is no canonical value."""
    SYNTAX_ERROR = "syntax_error"
    FORBIDDEN = "forbidden"
    """The static policy found a forbidden module or name; nothing was run."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run of a program, a fresh process with two calls on one input, may use."""

    wall_s: float = 2.0
    cpu_s: float = 2.0
    memory_mib: int = 256
    """Address space that the program may add to the bare interpreter's."""
    output_bytes: int = 64 * 1024
    """Longest canonical value text; also what is kept of printed text."""
    processes: int = 16
    open_files: int = 32
