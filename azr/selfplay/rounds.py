"""The nouns of one step's stages: what a proposal and an answer have become so far, each complete when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from azr.types import Completion, Outcome, Prompt, Rollout, Task


@dataclass(frozen=True, slots=True)
class Asked:
    """A propose prompt and the references that it shows."""

    prompt: Prompt
    references: tuple[Task, ...]


@dataclass(frozen=True, slots=True)
class Proposed:
    """One proposer completion after the gate. `task` is there exactly when the outcome is `accepted`."""

    asked: Asked
    completion: Completion
    outcome: Outcome
    task: Task | None
    is_duplicate: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """One solver completion after the judge."""

    prompt: Prompt
    completion: Completion
    task: Task
    outcome: Outcome


class Sampled(NamedTuple):
    """All that the policy wrote in a step, judged."""

    proposed: list[Proposed]
    attempts: list[list[Answered]]
    """A group for each accepted proposal, in order."""
    solved: list[Answered]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A rollout as the store keeps it."""

    rollout: Rollout
    is_trained: bool
    references: tuple[str, ...]
    """Task ids shown to the proposer; empty for the solver."""


@dataclass(frozen=True, slots=True)
class Played:
    """Everything that one step of the game produced, before any update."""

    records: tuple[Recorded, ...]
    tasks: tuple[tuple[Task, float], ...]
    """Accepted tasks with their solve rates."""
    metrics: dict[str, float]

    @property
    def training_rollouts(self) -> list[Rollout]:
        return [record.rollout for record in self.records if record.is_trained]
