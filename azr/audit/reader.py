"""Opens the audit log of a run."""

from __future__ import annotations

from pathlib import Path

from sandbox.audit.reader import AuditReader
from sandbox.types import AuditError

WORKER_KINDS = ("joined", "heads", "lost")
"""Records that only a run with one log per sandbox worker has."""


def log_file(run: Path) -> Path:
    """The log of a run directory; any other path is a log itself."""
    return run / "run.db" if run.is_dir() else run


def open_log(run: Path) -> AuditReader:
    """The log of a run directory, or a log file.

    Raises:
        AuditError: there is no log, it cannot be read, or other logs belong to it that this version cannot read.
    """
    reader = AuditReader.open(log_file(run))
    kinds = ", ".join(f"'{kind}'" for kind in WORKER_KINDS)
    if any((run / "audit").glob("*/audit.db")) or any(True for _ in reader.records(f"kind IN ({kinds})")):
        raise AuditError(
            f"{run} was written by a pre-release of azr 0.1 that kept one log per sandbox worker (audit/*/audit.db in "
            "the run directory). This version reads runs with a single log only: read it with the version that wrote it"
        )
    return reader
