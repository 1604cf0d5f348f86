"""Held-out accuracy: fixed tasks that self-play never trains on, solved once each and judged like any answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, cast

from azr.errors import InputError, Malformed
from azr.tasks.base import TaskType
from azr.tasks.parsing import has_thought
from azr.types import Completion, Example, Generate, Outcome, Task, Verdict
from sandbox.audit.log import labelled
from sandbox.shared.values import decode
from sandbox.types import Executor


@dataclass(frozen=True, slots=True)
class Score:
    """What the policy reached on the tasks of one type."""

    num_tasks: int
    accuracy: float
    thinks: float
    """Share of replies with a thought."""
    accuracy_thinking: float
    """Accuracy among the replies with a thought; 0 when there were none."""
    length: float
    """Mean tokens a reply."""


def nano_heldout() -> Path:
    """The held-out set of the embedded model."""
    return Path(__file__).parent.parent / "nano" / "heldout.jsonl"


def load_tasks(name: str) -> list[Task]:
    """`nano`, or a file of JSON lines in the form of `azr verify` without answers.

    Raises:
        InputError: the file cannot be read; names file and line.
    """
    path = nano_heldout() if name == "nano" else Path(name)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # `splitlines` also splits inside texts, at U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the evaluation tasks {path}: {error}") from error
    tasks: list[Task] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            tasks.append(read_task(cast(dict[str, Any], json.loads(line))))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}:{number} is no task: {error!r}") from error
    if not tasks:
        raise InputError(f"{path} holds no task")
    return tasks


def read_task(row: Mapping[str, Any]) -> Task:
    """A task from its JSON form.

    Raises:
        KeyError, TypeError, ValueError: a field is missing or has the wrong type.
    """
    inputs = _texts(row["inputs"] if "inputs" in row else [row["input"]])
    outputs = _texts(row["outputs"] if "outputs" in row else [row["output"]])
    task_type, program, message = _texts([row["task_type"], row["program"], row.get("message") or ""])
    if not inputs:
        raise ValueError("there is no run")
    for output in outputs:
        decode(output)
    return Task(task_type, program, tuple(Example(*run) for run in zip(inputs, outputs, strict=True)), message)


def _texts(value: object) -> list[str]:
    texts = cast(list[object], value)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{value!r:.80} is no list of texts")
    return cast(list[str], value)


def first_per_type(tasks: Sequence[Task], count: int) -> list[Task]:
    """The first `count` tasks of each type; all of them for 0."""
    if count == 0:
        return list(tasks)
    taken: dict[str, int] = {}
    chosen: list[Task] = []
    for task in tasks:
        taken[task.task_type] = taken.get(task.task_type, 0) + 1
        if taken[task.task_type] <= count:
            chosen.append(task)
    return chosen


async def evaluate(
    tasks: Sequence[Task], task_types: Mapping[str, TaskType], *, generate: Generate, executor: Executor
) -> dict[str, Score]:
    """Scores by task type, in the order in which the types appear.

    Raises:
        SandboxError: the sandbox failed.
    """
    prompts = [task_types[task.task_type].solve_prompt(task) for task in tasks]
    replies = [group[0] for group in await generate(prompts, 1, "evaluation")]
    outcomes = await asyncio.gather(
        *(_judge(task_types[t.task_type], t, r.text, executor) for t, r in zip(tasks, replies, strict=True))
    )
    judged = list(zip(tasks, replies, outcomes, strict=True))
    return {
        name: _score([(reply, outcome) for task, reply, outcome in judged if task.task_type == name])
        for name in dict.fromkeys(task.task_type for task in tasks)
    }


async def _judge(task_type: TaskType, task: Task, reply: str, executor: Executor) -> Outcome:
    try:
        answer = task_type.parse_answer(reply)
    except Malformed as fault:
        return Outcome(Verdict.MALFORMED, fault.reason)
    return await task_type.verify(task, answer, labelled(executor, purpose="eval", task_type=task.task_type))


def _score(judged: Sequence[tuple[Completion, Outcome]]) -> Score:
    right = [outcome.verdict is Verdict.CORRECT for _, outcome in judged]
    thinks = [has_thought(reply.text) for reply, _ in judged]
    right_thinking = [is_right for is_right, thought in zip(right, thinks, strict=True) if thought]
    return Score(
        num_tasks=len(judged),
        accuracy=fmean(right),
        thinks=fmean(thinks),
        accuracy_thinking=fmean(right_thinking) if right_thinking else 0.0,
        length=fmean(len(reply.token_ids) for reply, _ in judged),
    )


def score_metrics(scores: Mapping[str, Score]) -> dict[str, float]:
    """`eval/<type>`, `eval/mean` and what describes the replies."""
    metrics = {f"eval/{name}": score.accuracy for name, score in scores.items()}
    metrics["eval/mean"] = fmean(score.accuracy for score in scores.values())
    metrics["eval/thinks"] = fmean(score.thinks for score in scores.values())
    for name, score in scores.items():
        metrics[f"eval/{name}/thinks"] = score.thinks
        metrics[f"eval/{name}/length"] = score.length
        metrics[f"eval/{name}/accuracy_thinking"] = score.accuracy_thinking
    return metrics
