"""The part of `azr doctor --attacks` that needs self-play: gives hostile texts (family G) to the code that a run uses.

Read `run_texts`. The texts are in `sandbox.doctor.attacks.texts`, which may not import the parsers, validation, prompts
and log that they attack.
"""

from __future__ import annotations

import sqlite3
import tempfile
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from azr.errors import Malformed, Rejected
from azr.runs.printable import printable
from azr.selfplay.buffer import task_key
from azr.selfplay.rewards import learnability
from azr.tasks.base import Rules, TaskType
from azr.tasks.quality import is_trivial, message_leak
from azr.tasks.registry import make_task_types
from azr.types import Example, Task, Verdict
from sandbox.audit.anchors import anchors_of
from sandbox.audit.chain import verify
from sandbox.audit.log import Audited, AuditLog, Label
from sandbox.doctor.attacks.cases import AttackOutcome, AttackResult, Case, Goal
from sandbox.doctor.attacks.decoys import Decoys
from sandbox.doctor.attacks.matrix import Report
from sandbox.doctor.attacks.texts import Aim, Text
from sandbox.types import Executor, Job

PROGRAM = "def f(x):\n return x + 1"
EXAMPLES = tuple(Example(str(number), str(number + 1)) for number in range(1, 5))
EXECUTED = str(7 * 191)
"""What the template payloads render to if they are executed."""
MAX_SHOWN = 2100
LEAKS = 0.9
"""The metric clearly shows a leak if the message contains this share of the program."""


async def run_texts(
    executor: Executor, texts: Sequence[Text], *, rules: Rules, report: Report = lambda result: None
) -> list[AttackResult]:
    """One result per text, in order.

    Raises:
        SandboxError: the sandbox failed.
    """
    results: list[AttackResult] = []
    with Decoys() as decoys:
        attempts = _Attempts(executor, rules, decoys)
        for text in texts:
            success = await attempts.success(text)
            harm = decoys.harm()
            outcome = AttackOutcome.ESCAPE if harm else _outcome(text, success)
            case = Case(text.number, text.name, "G", text.text, Goal.FORGE, frozenset())
            results.append(AttackResult(case, outcome, "ok" if success else "refused", harm or success))
            report(results[-1])
    return results


def _outcome(text: Text, success: str) -> AttackOutcome:
    if not success:
        return AttackOutcome.HELD
    return AttackOutcome.CONTAMINATED if text.aim in (Aim.LINE, Aim.RECORD) else AttackOutcome.FALSE_REWARD


class _Attempts:
    """One method per aim: describes how the text succeeded, or returns an empty string if it failed."""

    def __init__(self, executor: Executor, rules: Rules, decoys: Decoys) -> None:
        self._executor = executor
        self._types: dict[str, TaskType] = make_task_types(("deduction", "abduction", "induction"), rules)
        self._decoys = decoys

    async def success(self, text: Text) -> str:
        with_sandbox: dict[Aim, Callable[[Text], Awaitable[str]]] = {
            Aim.ANSWER: self._answer,
            Aim.PROPOSAL: self._proposal,
            Aim.TRIVIAL: self._trivial,
            Aim.DUPLICATE: self._duplicate,
            Aim.RECORD: self._record,
        }
        if text.aim in with_sandbox:
            return await with_sandbox[text.aim](replace(text, text=self._decoys.fill_in(text.text)))
        return {Aim.HINT: _hint, Aim.REWARD: _reward, Aim.LINE: _line, Aim.PROMPT: self._prompt}[text.aim](text)

    async def _answer(self, text: Text) -> str:
        task_type = self._types[text.task_type]
        try:
            answer = task_type.parse_answer(text.text)
        except Malformed:
            return ""
        outcome = await task_type.verify(_task(text.task_type), answer, self._executor)
        return "verified as correct" if outcome.verdict is Verdict.CORRECT else ""

    async def _accepted(self, text: Text) -> Task | None:
        task_type = self._types[text.task_type]
        try:
            return await task_type.validate(task_type.parse_proposal(text.text, [_task("deduction")]), self._executor)
        except (Malformed, Rejected):
            return None

    async def _proposal(self, text: Text) -> str:
        return "accepted as a fair task" if await self._accepted(text) else ""

    async def _trivial(self, text: Text) -> str:
        task = await self._accepted(text)
        return "accepted and not flagged" if task and not is_trivial(task) else ""

    async def _duplicate(self, text: Text) -> str:
        task = await self._accepted(text)
        return "accepted as a different task" if task and task_key(task) != task_key(_task("deduction")) else ""

    def _prompt(self, text: Text) -> str:
        is_message = text.task_type == "induction"
        task = replace(_task(text.task_type), **({"message": text.text} if is_message else {"program": text.text}))
        return "the template was executed" if EXECUTED in self._types[text.task_type].solve_prompt(task) else ""

    async def _record(self, text: Text) -> str:
        """A value that looks like records must change none; verification must detect SQL run against the file."""
        is_statement = text.text.startswith(("DELETE", "UPDATE"))
        value = "'honest'" if is_statement else text.text
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "run.db")
            log = AuditLog.open(path)
            audited = Audited(self._executor, log, Label("cli"))
            for number in range(3):
                await audited.run([Job(f"def f(x): return {value}", (str(number),))])
            log.anchor(1)
            before = log.head
            log.close()
            if is_statement:
                _tamper(path, text.text)
            seen = verify(path, anchors_of(path))
        if is_statement:
            return "" if seen.damage else "the change was not detected"
        is_whole = not seen.damage and seen.head.num_records == before.num_records
        return "" if is_whole else f"the log was damaged: {seen.damage[:1]}"


def _task(task_type: str) -> Task:
    examples = EXAMPLES if task_type == "induction" else EXAMPLES[:1]
    return Task(task_type, PROGRAM, examples, message="add" if task_type == "induction" else "")


def _hint(text: Text) -> str:
    return (
        "" if message_leak(replace(_task("induction"), message=text.text)) >= LEAKS else "the metric does not show it"
    )


def _reward(text: Text) -> str:
    return "" if learnability(float(text.text)) == 0 else "rewarded"


def _line(text: Text) -> str:
    shown = printable(text.text)
    if len(shown) > MAX_SHOWN:
        return "the line is too long"
    is_plain = all(unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in shown)
    return "" if is_plain else "a control character remains"


def _tamper(path: Path, statement: str) -> None:
    """Change the file with SQL, as an attacker with write access could."""
    with closing(sqlite3.connect(path)) as connection, connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
        for name in names:
            connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute(statement)
