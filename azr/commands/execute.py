"""`azr exec`: programs and inputs in, their values out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from azr.commands.options import STDIO, Audit, Backend, Input, Output, Overrides, isolation_overrides
from azr.tasks.rows import Row, text_field, texts_field
from sandbox.types import Execution, Executor, Job, Limits


def execute(
    source: Input = STDIO,
    target: Output = STDIO,
    backend: Backend = "",
    screen: Annotated[
        bool, typer.Option("--screen/--no-screen", help="Refuse programs that use forbidden modules, before running.")
    ] = True,
    policy: Annotated[bool | None, typer.Option("--policy/--no-policy", hidden=True)] = None,
    audit: Audit = None,
    overrides: Overrides = [],
) -> None:
    """Run programs in the sandbox.

    Input, one JSON object per line: {"id", "program", "inputs": ["1, 'a'"], "entry": "f"}. An input is an argument list
    as source text; "entry" is f if it is missing.

    Output: {"id", "status", "results": [{"status", "value", "error"}], "wall_s"}, one result per input.

    Exit code 0: every line was run. 1: a line could not be used; its output line says why.

    Example: echo '{"id": 1, "program": "def f(x): return x + 1", "inputs": ["41"]}' | azr exec
    """
    from azr import configfile
    from azr.commands import jsonlines

    config = configfile.defaults([*isolation_overrides(backend), *overrides])
    forbidden = config.tasks.forbidden_modules if (screen if policy is None else policy) else ()

    def make_work(executor: Executor) -> Exec:
        return Exec(executor, config.sandbox.limits(), forbidden)

    raise typer.Exit(jsonlines.run(source, target, config=config, audit=audit, make_work=make_work))


@dataclass(frozen=True, slots=True)
class Exec:
    """Runs the programs."""

    executor: Executor
    limits: Limits
    forbidden: tuple[str, ...]

    def check(self, row: Row) -> None:
        text_field(row, "program")
        texts_field(row, "inputs")
        if "entry" in row:
            text_field(row, "entry")

    async def work(self, rows: Sequence[Row]) -> list[Row]:
        jobs = [
            Job(
                row["program"],
                tuple(row["inputs"]),
                entry=row.get("entry", "f"),
                limits=self.limits,
                forbidden=self.forbidden,
            )
            for row in rows
        ]
        executions = await self.executor.run(jobs)
        return [_answer(row, execution) for row, execution in zip(rows, executions, strict=True)]


def _answer(row: Row, execution: Execution) -> Row:
    results = [
        {"status": str(run.status), "value": run.value if run.ok else None, "error": run.error or None}
        for run in execution.results
    ]
    return {"id": row.get("id"), "status": str(execution.status), "results": results, "wall_s": execution.wall_s}
