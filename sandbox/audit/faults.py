"""What the disk and SQLite say while the audit log is written, in the words of this house."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Generator

from sandbox.audit.gathering import WouldWait
from sandbox.types import AuditError


@contextlib.contextmanager
def busy_is_waiting() -> Generator[None]:
    """
    Raises:
        WouldWait: another process writes.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:  # extended codes say why
            raise WouldWait from None
        raise


@contextlib.contextmanager
def faults(doing: str) -> Generator[None]:
    """
    Raises:
        AuditError: for whatever the disk or SQLite refuses in the block.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        is_full = (
            error.errno in (errno.ENOSPC, errno.EDQUOT)
            if isinstance(error, OSError)
            else getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        )
        advice = "the disk is full. Free some space, then go on with --resume" if is_full else str(error)
        raise AuditError(f"cannot {doing} the audit log: {advice}; what was recorded before is intact") from error
