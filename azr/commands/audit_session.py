"""What the `azr audit` commands do, from a typed path to an exit code."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from azr import configfile
from azr.audit.export import write_jsonl, write_parquet
from azr.audit.listing import Filters, chosen, details, list_row, list_table
from azr.audit.reader import RunReader
from azr.audit.replay import replay
from azr.audit.reverify import LogExecutor, Reverified, reverify
from azr.build import make_executor, make_types
from azr.config import Config
from azr.errors import RunError
from azr.evaluation.heldout import load_tasks
from azr.runs.directory import RunDirectory
from azr.runs.printable import printable
from azr.runs.store import RunStore
from azr.selfplay.absolute_zero import Game
from azr.selfplay.buffer import Buffer, task_key
from azr.types import Completion
from sandbox.audit.anchors import anchors_of
from sandbox.audit.chain import Verification, verify
from sandbox.audit.worker_logs import verify_run

console = Console()
_SHOWN = 50
"""Findings and mismatches that are printed; the rest is counted."""


def log_file(run: Path) -> Path:
    """The audit log of a run directory, or the file itself."""
    return run / "run.db" if run.is_dir() else run


@contextmanager
def _reading(run: Path) -> Generator[RunReader]:
    with closing(RunReader.open(run)) as reader:
        yield reader


def run_list(run: Path, filters: Filters, *, limit: int, as_json: bool) -> None:
    """Print the records that pass."""
    with _reading(run) as reader:
        bodies, texts = chosen(reader, filters, limit), reader.texts()
        if as_json:
            for body in bodies:
                sys.stdout.write(json.dumps(list_row(body, texts)) + "\n")
        elif bodies:
            table = list_table(bodies, texts, console.width)
            console.print(table, width=max(console.width, table.width or 0), crop=False)
        else:
            console.print("no record passes")


def run_show(run: Path, record: str) -> None:
    """Print everything of one record."""
    with _reading(run) as reader:
        for line in details(reader, reader.record(record), reader.texts()):
            console.print(line, soft_wrap=True)


def run_replay(run: Path, records: Sequence[str], *, backend: str, overrides: Sequence[str]) -> int:
    """Run records again; the exit code is 1 when one of them gave something else."""
    config = _config(run, [*([f'sandbox.backend="{backend}"'] if backend else []), *overrides])

    async def again() -> int:
        with _reading(run) as reader:
            async with make_executor(config.sandbox) as executor:
                replayed = await replay(reader, records, executor)
        for one in replayed:
            _say(f"{one.identifier}: {'; '.join(one.differences) or 'the same'}")
            for change in one.isolation:
                _say(f"  other than then: {change}")
        return int(any(one.differences for one in replayed))

    return asyncio.run(again())


def run_verify(run: Path, anchors: Path | None) -> int:
    """Check a log; the exit code is 1 when something was changed."""
    usual = anchors_of(log_file(run))
    beside = anchors or (usual if usual.exists() else None)
    if run.is_dir():
        found = verify_run(run, beside)
        named, logs = found.findings, {"": found.own, **found.workers}
    else:
        own = verify(run, beside)
        named, logs = [("", finding) for finding in own.findings], {"": own}
    for worker, finding in named[:_SHOWN]:
        where = f"record {finding.sequence}: " if finding.sequence >= 0 else ""
        _say(f"{finding.kind:<10} {f'worker {worker}: ' if worker else ''}{where}{finding.text}")
    if len(named) > _SHOWN:
        _say(f"... and {len(named) - _SHOWN} more")
    _say(_verdict(len(named), logs[""]))
    for worker, log in logs.items():
        _say_end(worker, log)
    return int(bool(named))


def _verdict(num_findings: int, own: Verification) -> str:
    verdict = f"{num_findings} findings" if num_findings else "nothing was changed"
    return f"{verdict}: {own.head.num_records} records, {own.num_anchors} anchors, log {own.run_id}"


def _say_end(worker: str, log: Verification) -> None:
    if worker:
        _say(f"worker {worker}: {log.head.num_records} records, log {log.run_id}")
    else:
        _say(f"head {log.head.hash}")
    if log.num_after_anchor:
        _say(f"{log.num_after_anchor} records after the last anchor: a cut end would not show there")


def run_reverify(run: Path) -> int:
    """Recompute verdicts and rewards; the exit code is 1 when one differs."""
    folder = RunDirectory.open(run)
    config = folder.config()
    with _reading(run) as reader, closing(RunStore.read(folder.database)) as store:
        found = asyncio.run(reverify(store, reader, _game(config)))
    if found.mismatches:
        console.print(_mismatch_table(found))
    _say(
        f"{found.num_rollouts} rollouts of {found.num_steps} steps judged again from {found.num_executions} executions "
        f"({found.num_dropped} of undone steps left out{_unused(found)}): {len(found.mismatches)} mismatches"
    )
    return int(bool(found.mismatches))


def _unused(found: Reverified) -> str:
    return f", {found.num_unused} of lost workers whose jobs ran again" if found.num_unused else ""


def run_export(run: Path, target: Path, *, form: Literal["jsonl", "parquet"]) -> None:
    """Write a log to a file."""
    with _reading(run) as reader:
        count = (write_jsonl if form == "jsonl" else write_parquet)(reader, target)
    _say(f"{count} records: {target}")


def _game(config: Config) -> Game:
    """The run's game without its policy and its sandbox."""

    async def generate(prompts: Sequence[str], num_samples: int, stream: str = "") -> list[list[Completion]]:
        raise RunError(f"nothing is sampled here, neither {num_samples} replies nor {len(prompts)} {stream}")

    held_out = load_tasks(config.evaluation.tasks) if config.evaluation.tasks else []
    return Game(
        config=config.selfplay,
        task_types=make_types(config),
        generate=generate,
        executor=LogExecutor({}, 0),
        buffer=Buffer(config.tasks.types, config.buffer.capacity),
        rng=random.Random(config.seed),
        fits=lambda _: True,
        held_out=frozenset(task_key(task) for task in held_out if task.task_type in config.tasks.types),
    )


def _mismatch_table(found: Reverified) -> Table:
    table = Table("rollout", "what", "stored", "recomputed")
    for mismatch in found.mismatches[:_SHOWN]:
        table.add_row(*(Text(printable(str(cell), 80)) for cell in mismatch))
    return table


def _config(run: Path, overrides: Sequence[str]) -> Config:
    """The run's own config, or the defaults for a log that is not a run's."""
    file = run / "config.toml"
    return configfile.load(file, overrides) if file.is_file() else configfile.defaults(overrides)


def _say(text: str) -> None:
    console.print(Text(printable(text)), soft_wrap=True)
