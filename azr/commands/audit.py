"""`azr audit`: one command is one function here. No heavy import before it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="""What the sandbox executed: a log to which records are only ever added, each one holding the hash of the one
before it.

RUN is a run directory, or a file that --audit of azr exec, validate or verify wrote. Start with
**azr audit verify RUN**, then **azr audit list RUN --status timeout** and
**azr audit show RUN ID**.""",
)

Run = Annotated[Path, typer.Argument(help="A run directory, or a log file.")]


@app.command("list")
def list_records(  # noqa: PLR0913  # each argument is an option of the command
    run: Run,
    status: Annotated[str, typer.Option(help="ok, error, timeout, memory, killed, ...; `broken`: the sandbox.")] = "",
    purpose: Annotated[str, typer.Option(help="seed, validate, attempt, solve, eval, cli.")] = "",
    task_type: Annotated[str, typer.Option(help="deduction, abduction, induction, ...")] = "",
    step: Annotated[int | None, typer.Option(help="Of this step.")] = None,
    program: Annotated[str, typer.Option(metavar="HASH", help="How the program's SHA-256 begins.")] = "",
    text: Annotated[str, typer.Option(help="Occurs in the program, an input, a value or an error.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="The newest so many; 0 is all.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List records, the newest last.

    What a model wrote is shown escaped: it cannot move the cursor, colour the screen or forge a line.
    """
    from azr.audit.listing import Filters
    from azr.commands.audit_session import run_list

    filters = Filters(status=status, purpose=purpose, task_type=task_type, step=step, program=program, text=text)
    run_list(run, filters, limit=limit, as_json=as_json)


@app.command()
def show(run: Run, record: Annotated[str, typer.Argument(metavar="ID", help="As `azr audit list` shows it.")]) -> None:
    """Show everything of one record: program, inputs, values, limits, isolation, usage, its place in the chain."""
    from azr.commands.audit_session import run_show

    run_show(run, record)


@app.command()
def replay(
    run: Run,
    records: Annotated[list[str], typer.Argument(metavar="ID...", help="As `azr audit list` shows them.")],
    backend: Annotated[str, typer.Option(help="Isolation to run in; default: the run's own.")] = "",
    overrides: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one config key. Repeatable.")
    ] = [],  # noqa: B006  # typer reads the default, nobody mutates it
) -> None:
    """Run records again under their recorded limits and compare status, inputs and values; exit code 1 on a difference.

    Says when image, system-call filter, kernel or Python are others than then.
    """
    from azr.commands.audit_session import run_replay

    raise typer.Exit(run_replay(run, records, backend=backend, overrides=overrides))


@app.command()
def verify(
    run: Run,
    anchors: Annotated[
        Path | None, typer.Option(help="A copy of anchors.jsonl that lay elsewhere; default: the one beside the log.")
    ] = None,
) -> None:
    """Check that nothing was changed since it was written; exit code 1 on a finding.

    Finds changed bytes, inserted, deleted, exchanged and repeated records, records of other runs, lost texts and
    dropped guards. Only an anchor shows that the end was cut off or all was written anew, and only one that lay where
    the forger could not write: copy anchors.jsonl elsewhere as the run goes on. The logs of a cluster's workers are
    checked as well, and each against what the run's own log says of it.
    """
    from azr.commands.audit_session import run_verify

    raise typer.Exit(run_verify(run, anchors))


@app.command()
def reverify(run: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Recompute every verdict and reward from the log and compare with what was trained on; exit code 1 on a mismatch.

    Nothing is executed. Steps that were done again after a resume count as they were done last.
    """
    from azr.commands.audit_session import run_reverify

    raise typer.Exit(run_reverify(run))


@app.command()
def export(
    run: Run,
    output: Annotated[Path, typer.Option(help="File to write.")],
    form: Annotated[Literal["jsonl", "parquet"], typer.Option("--format", help="parquet: azr[parquet].")] = "jsonl",
) -> None:
    """Write all records to a file, their texts in place: JSON lines in ASCII, or Parquet."""
    from azr.commands.audit_session import run_export

    run_export(run, output, form=form)
