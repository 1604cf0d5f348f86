"""Which executions count: of the steps as they were last done, and of lost workers only what was answered in time."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from azr.audit.reader import RunReader
from sandbox.audit.records import Body
from sandbox.audit.worker_logs import told_by
from sandbox.types import AuditError, Execution, Job


class Key(NamedTuple):
    """What makes two jobs the same."""

    program: str
    inputs: tuple[str, ...]
    entry: str
    limits: object
    forbidden: tuple[str, ...]
    seed_slot: int
    together: bool


def key(job: Job) -> Key:
    return Key(job.program, job.inputs, job.entry, job.limits, job.forbidden, job.seed_slot, job.together)


class _Resumed(NamedTuple):
    """A run went on after a step; `ended` is where the logs ended by then, by their ids."""

    after_step: int
    ended: dict[str, int]


class _Lost(NamedTuple):
    """A worker was given up: of its records from `begin` to before `end` only those in `used` became verdicts."""

    begin: int
    end: float
    used: tuple[tuple[int, int], ...]

    def drops(self, sequence: int) -> bool:
        is_used = any(first <= sequence < end for first, end in self.used)
        return self.begin <= sequence < self.end and not is_used


class Timeline:
    """The executions of the steps as they were last done: after a resume, the undone ones do not count."""

    def __init__(self, reader: RunReader) -> None:
        self._reader = reader
        events = [body for body in reader.records("kind IN ('resumed', 'lost')") if "chain" not in body]
        self._resumed = [_resumed(body) for body in events if body["kind"] == "resumed"]
        self._lost = _losses(events)
        self._texts = reader.texts()
        self.num_executions = 0
        self.num_dropped = 0
        self.num_unused = 0

    @property
    def counts(self) -> tuple[int, int, int]:
        """Executions that counted so far, those of undone steps, those of lost workers."""
        return self.num_executions, self.num_dropped, self.num_unused

    def executions(self, step: int) -> dict[Key, list[Execution]]:
        """What ran in a step, by job."""
        found: dict[Key, list[Execution]] = defaultdict(list)
        for body in self._reader.records("kind = 'execution' AND purpose <> 'eval' AND step = ?", step):
            if not self._survives(body, step):
                self.num_dropped += 1
            elif any(lost.drops(body["sequence"]) for lost in self._lost.get(body["run"], [])):
                self.num_unused += 1
            else:
                found[key(self._reader.job(body, self._texts))].append(self._reader.execution(body, self._texts))
                self.num_executions += 1
        self._texts = self._reader.texts()  # a long run's texts would fill the memory
        return found

    def _survives(self, body: Body, step: int) -> bool:
        undone = [one for one in self._resumed if step > one.after_step]
        return not any(body["sequence"] < one.ended.get(body["run"], 0) for one in undone)


def _resumed(body: Body) -> _Resumed:
    workers = {told.head.log: told.head.num_records for told in told_by([body])}
    return _Resumed(int(body["after_step"]), {**workers, body["run"]: body["sequence"]})


def _losses(events: list[Body]) -> dict[str, list[_Lost]]:
    """By log. A log that goes on after a resume is another worker's from there on."""
    found: dict[str, list[_Lost]] = defaultdict(list)
    for number, body in enumerate(events):
        if body["kind"] == "lost":
            for told in told_by([body]):
                later = [_resumed(one) for one in events[number:] if one["kind"] == "resumed"]
                end = next((one.ended[told.head.log] for one in later if told.head.log in one.ended), float("inf"))
                found[told.head.log].append(_Lost(told.head.num_records, end, _used(body)))
    return found


def _used(body: Body) -> tuple[tuple[int, int], ...]:
    try:
        return tuple((int(first), int(end)) for first, end in body["used"])
    except (KeyError, TypeError, ValueError) as error:
        raise AuditError(f"record {body.get('sequence')} does not say what was used: {error!r:.200}") from error
