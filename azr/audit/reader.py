"""All logs of a run read as one: its own, and those of its cluster's workers. A record's `chain` names the worker."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from sandbox.audit.reader import AuditReader, Texts
from sandbox.audit.records import Body
from sandbox.audit.worker_logs import logs_of
from sandbox.types import AuditError, Execution, Job


class RunTexts(dict[str, str]):
    """The texts of all logs by their hashes, read when they are asked for."""

    def __init__(self, logs: Sequence[Texts]) -> None:
        super().__init__({"": ""})
        self._logs = logs

    def __missing__(self, name: str) -> str:
        for texts in self._logs[:-1]:
            with suppress(AuditError):
                return texts[name]
        return self._logs[-1][name]


class RunReader:
    """The records of a run, in the order in which they began; within one log in their own order."""

    def __init__(self, readers: Mapping[str, AuditReader]) -> None:
        """
        Args:
            readers: by worker; the empty name is the run's own log.
        """
        self._readers = dict(readers)

    @classmethod
    def open(cls, run: Path) -> Self:
        """A run directory, or one log file.

        Raises:
            AuditError: there is no log, or one of them cannot be read.
        """
        files = {"": run / "run.db", **logs_of(run)} if run.is_dir() else {"": run}
        return cls({name: AuditReader.open(file) for name, file in files.items()})

    @property
    def workers(self) -> list[str]:
        """Whose logs there are beside the run's own."""
        return [name for name in self._readers if name]

    def records(self, where: str = "TRUE", *parameters: int | str) -> Iterator[Body]:
        """Records that meet a condition of yours over the table's columns."""
        every = [_of(name, reader.records(where, *parameters)) for name, reader in self._readers.items()]
        return every[0] if len(every) == 1 else heapq.merge(*every, key=_begun_s)

    def record(self, identifier: str) -> Body:
        """
        Args:
            identifier: 12, or node-a-0:12 in the log of a worker.

        Raises:
            AuditError: there is no such record, or it cannot be read.
        """
        name, _, number = identifier.rpartition(":")
        if name not in self._readers or not number.isascii() or not number.isdigit():
            raise AuditError(f"{identifier!r:.80} is no record of this run; `azr audit list` shows which there are")
        return next(_of(name, iter([self._readers[name].record(int(number))])))

    def hash(self, body: Body) -> str:
        """The record's own hash."""
        return self._readers[str(body.get("chain", ""))].hash(int(body.get("sequence", -1)))

    def holding(self, text: str) -> set[str]:
        """Hashes of the texts in which `text` occurs."""
        return {name for reader in self._readers.values() for name in reader.holding(text)}

    def texts(self) -> RunTexts:
        return RunTexts([reader.texts() for reader in self._readers.values()])

    def job(self, body: Body, texts: RunTexts) -> Job:
        """The job of an execution's record."""
        return self._readers[""].job(body, texts)

    def execution(self, body: Body, texts: RunTexts) -> Execution:
        """What became of the job."""
        return self._readers[""].execution(body, texts)

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()


def identifier(body: Body) -> str:
    """How a person names a record."""
    chain, sequence = body.get("chain", ""), body.get("sequence")
    return f"{chain}:{sequence}" if chain else str(sequence)


def _of(name: str, bodies: Iterator[Body]) -> Iterator[Body]:
    for body in bodies:
        body.pop("chain", None)  # only a forged record has one of its own
        yield {**body, "chain": name} if name else body


def _begun_s(body: Body) -> float:
    try:
        return float(body["time"]["begun_s"])
    except (KeyError, TypeError, ValueError):
        return 0.0
