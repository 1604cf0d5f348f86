"""Family G of the attack matrix: hostile texts against self-play's parsers, gate, judge, prompts and log.

Read `run_texts`. The texts are `sandbox.doctor.attacks.texts`; every one meets the code that a run uses; nothing is
mocked.
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
from azr.types import Example, Task
from azr.types import Verdict as Judgement
from sandbox.audit.anchors import anchors_of
from sandbox.audit.chain import verify
from sandbox.audit.log import Audited, AuditLog, Label
from sandbox.doctor.attacks.cases import Case, Goal, Outcome, Verdict
from sandbox.doctor.attacks.matrix import Progress
from sandbox.doctor.attacks.stage import Stage
from sandbox.doctor.attacks.texts import Aim, Text
from sandbox.types import Executor, Job

PROGRAM = "def f(x):\n return x + 1"
EXAMPLES = tuple(Example(str(number), str(number + 1)) for number in range(1, 5))
EXECUTED = str(7 * 191)
"""What the template payloads would become."""
MAX_SHOWN = 2100
LEAKS = 0.9
"""Share of the program in the message from which the metric shows it plainly."""


async def run_texts(
    executor: Executor, texts: Sequence[Text], *, rules: Rules, progress: Progress = lambda verdict: None
) -> list[Verdict]:
    """One verdict a text, in order.

    Raises:
        SandboxError: the sandbox failed.
    """
    verdicts: list[Verdict] = []
    with Stage() as stage:
        judges = _Judges(executor, rules, stage)
        for text in texts:
            told = await judges.of(text)
            harm = stage.harm()
            outcome = Outcome.ESCAPE if harm else _outcome(text, told)
            case = Case(text.number, text.name, "G", text.text, Goal.FORGE, frozenset())
            verdicts.append(Verdict(case, outcome, "ok" if told else "refused", harm or told))
            progress(verdicts[-1])
    return verdicts


def _outcome(text: Text, told: str) -> Outcome:
    if not told:
        return Outcome.HELD
    return Outcome.CONTAMINATED if text.aim in (Aim.LINE, Aim.RECORD) else Outcome.FALSE_REWARD


class _Judges:
    """Each says in words how the text succeeded; nothing when it did not."""

    def __init__(self, executor: Executor, rules: Rules, stage: Stage) -> None:
        self._executor = executor
        self._types: dict[str, TaskType] = make_task_types(("deduction", "abduction", "induction"), rules)
        self._stage = stage

    async def of(self, text: Text) -> str:
        judges: dict[Aim, Callable[[Text], Awaitable[str]]] = {
            Aim.ANSWER: self._answer,
            Aim.PROPOSAL: self._proposal,
            Aim.TRIVIAL: self._trivial,
            Aim.DUPLICATE: self._duplicate,
            Aim.RECORD: self._record,
        }
        if text.aim in judges:
            return await judges[text.aim](replace(text, text=self._stage.fitted(text.text)))
        return {Aim.HINT: _hint, Aim.UNPAID: _unpaid, Aim.LINE: _line, Aim.PROMPT: self._prompt}[text.aim](text)

    async def _answer(self, text: Text) -> str:
        task_type = self._types[text.task_type]
        try:
            answer = task_type.parse_answer(text.text)
        except Malformed:
            return ""
        outcome = await task_type.verify(_task(text.task_type), answer, self._executor)
        return "judged right" if outcome.verdict is Judgement.CORRECT else ""

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
        return "taken for another task" if task and task_key(task) != task_key(_task("deduction")) else ""

    def _prompt(self, text: Text) -> str:
        is_message = text.task_type == "induction"
        task = replace(_task(text.task_type), **({"message": text.text} if is_message else {"program": text.text}))
        return "the template ran" if EXECUTED in self._types[text.task_type].solve_prompt(task) else ""

    async def _record(self, text: Text) -> str:
        """A value that looks like records changes none; a statement against the file is found out by the verifier."""
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
            return "" if seen.damage else "the change is not found"
        is_whole = not seen.damage and seen.head.num_records == before.num_records
        return "" if is_whole else f"the log is disturbed: {seen.damage[:1]}"


def _task(task_type: str) -> Task:
    examples = EXAMPLES if task_type == "induction" else EXAMPLES[:1]
    return Task(task_type, PROGRAM, examples, message="add" if task_type == "induction" else "")


def _hint(text: Text) -> str:
    return "" if message_leak(replace(_task("induction"), message=text.text)) >= LEAKS else "the metric is low"


def _unpaid(text: Text) -> str:
    return "" if learnability(float(text.text)) == 0 else "paid"


def _line(text: Text) -> str:
    shown = printable(text.text)
    if len(shown) > MAX_SHOWN:
        return "the line is too long"
    is_plain = all(unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in shown)
    return "" if is_plain else "something moves the cursor"


def _tamper(path: Path, statement: str) -> None:
    """As somebody would who has the file and a tool."""
    with closing(sqlite3.connect(path)) as connection, connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
        for name in names:
            connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute(statement)
