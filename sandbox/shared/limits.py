"""What one run of a program may use, and how it can end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a run ended, as the supervisor measured it."""

    OK = "ok"
    ERROR = "error"
    """The program raised an exception, or ended without returning a value."""
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT_LIMIT = "output_limit"
    KILLED = "killed"
    """A signal ended it, or its container died with it twice."""
    NOT_A_VALUE = "not_a_value"
    """It returned an object that is not a canonical value."""
    SYNTAX_ERROR = "syntax_error"
    FORBIDDEN = "forbidden"
    """The screen found a forbidden module or name; the program did not run."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run, a fresh process that calls the program twice on one input, may use."""

    wall_s: float = 2.0
    cpu_s: float = 2.0
    memory_mib: int = 256
    """Address space beyond what the interpreter itself needs."""
    output_bytes: int = 64 * 1024
    """Longest canonical text of a value; also the most that the program may print."""
    processes: int = 16
    open_files: int = 32
