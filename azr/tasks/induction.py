"""Induction: given some runs of a hidden program and a message, write the program (`code_f` in the official code)."""

from __future__ import annotations

from collections.abc import Sequence

from azr.errors import Malformed, Rejected
from azr.tasks.base import CORRECT, Proposal, TaskType, any_slot, run_outcome, wrong
from azr.tasks.parsing import block_bodies, only_block, read_reply
from azr.tasks.source import entry_program
from azr.tasks.validation import fair_runs
from azr.types import Example, Outcome, Role, Task
from sandbox.types import Executor, Job


def shown(task: Task) -> tuple[Example, ...]:
    """The half of the runs that the solver sees."""
    return task.examples[: len(task.examples) // 2]


def hidden(task: Task) -> tuple[Example, ...]:
    """The half that the answer is verified on; its outputs never leave the host."""
    return task.examples[len(task.examples) // 2 :]


class Induction(TaskType):
    """The program is hidden. The proposer is given a program and adds inputs and a message."""

    name = "induction"
    reference_types = ("deduction", "abduction")

    def seed_task(self) -> Task:
        values = ["'hello'", "7", "[1, 2]", "(3, 'a')", "True", "0.5", "{'k': 1}", "None", "'a b'", "[]"]
        texts = (values + [str(100 + extra) for extra in range(self.rules.num_inputs)])[: self.rules.num_inputs]
        examples = tuple(Example(text, text) for text in texts)
        return Task(self.name, "def f(x):\n return x", examples, message="gives back what it is given")

    def num_references(self, k: int) -> int:
        return 1

    def propose_prompt(self, references: Sequence[Task]) -> str:
        variables = {"program": references[0].program, "num_inputs": self.rules.num_inputs}
        return self.rules.prompts.render(Role.PROPOSER, self.name, {**variables, "forbidden": self.rules.forbidden})

    def parse_proposal(self, reply: str, references: Sequence[Task]) -> Proposal:
        answer = read_reply(reply).answer
        inputs = block_bodies(answer, "input")
        messages = block_bodies(answer, "message")
        if len(inputs) < self.rules.num_inputs:
            raise Malformed("too few input blocks")
        if not messages:
            raise Malformed("no message block")
        if len(messages[-1]) > self.rules.max_message_chars:
            raise Malformed("message too long")
        return Proposal(references[0].program, tuple(inputs[-self.rules.num_inputs :]), messages[-1].strip())

    async def validate(self, proposal: Proposal, executor: Executor) -> Task:
        examples = await fair_runs(proposal, executor, self.rules)
        task = Task(self.name, proposal.program, examples, proposal.message)
        if {example.input for example in shown(task)} & {example.input for example in hidden(task)}:
            raise Rejected("repeated_inputs")  # a hidden run that the solver was shown tests nothing
        return task

    def solve_prompt(self, task: Task) -> str:
        variables = {"examples": shown(task), "message": task.message}
        return self.rules.prompts.render(Role.SOLVER, self.name, variables)

    def read_answer(self, text: str) -> str:
        return only_block(text, "python")

    async def verify(self, task: Task, answer: str, executor: Executor) -> Outcome:
        try:
            program = entry_program(answer)
        except Malformed as fault:
            return wrong(fault.reason)
        if program.strip() == task.program.strip():
            return CORRECT  # the program itself needs no run; in other names it may, where inputs are keywords
        for example in hidden(task):  # a job each: a program that searches its memory finds no other hidden input
            slot = any_slot(program, example.input)
            [execution] = await executor.run([Job(program, (example.input,), limits=self.rules.limits, seed_slot=slot)])
            outcome = run_outcome(execution.results[0], example.output, is_strict=self.rules.is_strict)
            if outcome is not CORRECT:
                return outcome
        return CORRECT
