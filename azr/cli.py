"""The command line: one command is one function here. No logic, and no heavy import before it is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from azr.commands.audit import app as audit_app
from azr.errors import AzrError
from sandbox.types import SandboxError

app = typer.Typer(
    name="azr",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="""Absolute Zero self-play: one language model invents code-reasoning tasks, a Docker-isolated sandbox checks
them, the same model solves them, and both roles are trained from what really ran.

Start with [bold]azr train configs/nano.toml[/bold]: the whole loop on a laptop, in minutes.""",
)
image_app = typer.Typer(no_args_is_help=True, help="The sandbox image.")
bench_app = typer.Typer(no_args_is_help=True, help="Benchmarks of this machine.")
nano_app = typer.Typer(no_args_is_help=True, help="The embedded nano model: a stand-in for a pretrained LLM.")
app.add_typer(image_app, name="image")
app.add_typer(bench_app, name="bench")
app.add_typer(nano_app, name="nano")
app.add_typer(audit_app, name="audit")

Overrides = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one config key, e.g. --set sandbox.wall_s=5. Repeatable."
    ),
]
Input = Annotated[Path, typer.Option("--input", help="File of JSON lines; - is standard input.")]
Output = Annotated[Path, typer.Option("--output", help="File to write, one line per input line; - is standard output.")]
Backend = Annotated[str, typer.Option(help="Isolation to run in: docker or jail.")]
Audit = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Append every execution to this audit log; read it with azr audit."),
]
STDIO = Path("-")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="TOML file; ready-made ones lie in configs/.")],
    run_dir: Annotated[
        Path | None, typer.Option(help="Where everything of the run goes; default runs/<config>-seed<seed>.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run directory's newest checkpoint.")] = False,
    overrides: Overrides = [],  # noqa: B006  # typer reads the default, nobody mutates it
    steps: Annotated[int | None, typer.Option(help="Short for --set steps=N.")] = None,
    seed: Annotated[int | None, typer.Option(help="Short for --set seed=S.")] = None,
) -> None:
    """Run self-play training.

    Ctrl-C finishes the step, writes a checkpoint and stops; the same command with --resume goes on exactly there.
    The run directory holds config.toml, metrics.jsonl, run.db, checkpoints/, log.txt and learning_curve.png.
    """
    from azr.commands.launch import run_training

    short = [f"{key}={value}" for key, value in (("steps", steps), ("seed", seed)) if value is not None]
    raise typer.Exit(run_training(config, run_dir, overrides=[*overrides, *short], resume=resume))


@app.command(name="eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="A run directory (its newest checkpoint), a model folder, or `nano`.")],
    tasks: Annotated[str, typer.Option(help="`nano`, or JSON lines of tasks as `azr verify` takes them.")] = "",
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    thinking: Annotated[
        Literal["free", "off", "forced"],
        typer.Option(help="free: as the policy likes; off: the thought is closed for it; forced: it may not be empty."),
    ] = "free",
    config: Annotated[Path | None, typer.Option(help="Config to use for a model that is not a run.")] = None,
    overrides: Overrides = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure held-out accuracy: every task solved once, judged as in training."""
    from azr.commands.launch import run_evaluation

    run_evaluation(
        model, tasks, temperature=temperature, thinking=thinking, config=config, overrides=overrides, as_json=as_json
    )


@app.command()
def plan(
    config: Annotated[Path, typer.Argument(help="TOML file; ready-made ones lie in configs/.")],
    gpu: Annotated[str, typer.Option(help="a100-80gb, h100-80gb, h200-141gb or rtx4090-24gb.")] = "h100-80gb",
    completion: Annotated[
        int | None, typer.Option("--completion", min=1, help="Mean tokens of a completion; 500 is assumed.")
    ] = None,
    overrides: Overrides = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Calculate what a config needs: memory on each GPU, seconds of a step, the bottleneck. Starts nothing.

    Exit code 0: it fits by calculation. 1: it does not, and what would is named.
    """
    from azr.commands.plan import run_plan

    raise typer.Exit(run_plan(config, gpu=gpu, completion=completion, overrides=overrides, as_json=as_json))


@app.command(name="exec")
def execute(
    source: Input = STDIO,
    target: Output = STDIO,
    backend: Backend = "docker",
    policy: Annotated[
        bool, typer.Option("--policy/--no-policy", help="Refuse forbidden modules before running.")
    ] = True,
    audit: Audit = None,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Run programs in the sandbox.

    In, a line each: {"id", "program", "inputs": ["1, 'a'"], "entry": "f"}; an input is an argument list as source.
    Out: {"id", "status", "results": [{"status", "value", "error"}], "wall_s"}.
    """
    from azr.commands.launch import run_exec

    code = run_exec(source, target, backend=backend, overrides=overrides, applies_policy=policy, audit=audit)
    raise typer.Exit(code)


@app.command()
def validate(
    source: Input = STDIO,
    target: Output = STDIO,
    backend: Backend = "docker",
    audit: Audit = None,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Send proposals through the gate: do they run, return a value, deterministically?

    In: {"id", "task_type": "deduction"|"abduction", "program", "input"} or {..., "induction", "inputs", "message"}.
    Out: {"id", "accepted", "reason", "outputs"}.
    """
    from azr.commands.launch import run_validate

    raise typer.Exit(run_validate(source, target, backend=backend, overrides=overrides, audit=audit))


@app.command()
def verify(
    source: Input = STDIO,
    target: Output = STDIO,
    backend: Backend = "docker",
    audit: Audit = None,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Judge answers to tasks.

    In: the task ("task_type", "program", "input"/"inputs", "output"/"outputs", "message") and "answer".
    Out: {"id", "correct", "reason"}.
    """
    from azr.commands.launch import run_verify

    raise typer.Exit(run_verify(source, target, backend=backend, overrides=overrides, audit=audit))


@app.command()
def doctor(
    backend: Backend = "docker",
    runtime: Annotated[str, typer.Option(help="Docker runtime, e.g. runsc; empty takes the engine's default.")] = "",
    shows_all: Annotated[
        bool, typer.Option("--all", help="Every isolation that can be started here, side by side.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    attacks: Annotated[bool, typer.Option("--attacks", help="Run the hostile programs; print the matrix.")] = False,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Probe from inside what the sandbox really gives on this host: required, found, verdict.

    Exit code 0: every required row is given. 1: one is not, and `azr train` would refuse. 2: it cannot be started.
    """
    if attacks:
        from azr.commands.attacks import run_attacks

        if shows_all:
            raise typer.BadParameter(
                "--attacks runs on one isolation: name it with --backend and --runtime", param_hint="--all"
            )
        raise typer.Exit(run_attacks(backend=backend, runtime=runtime, overrides=overrides, as_json=as_json))
    from azr.commands.doctor import run_doctor

    code = run_doctor(backend=backend, runtime=runtime, shows_all=shows_all, as_json=as_json, overrides=overrides)
    raise typer.Exit(code)


@image_app.command("build")
def image_build(
    name: Annotated[str, typer.Option(help="Name to give the image.")] = "azr-sandbox",
    base: Annotated[
        str, typer.Option(help="Named base image, e.g. python:3.11-slim; empty builds from this machine's own Python.")
    ] = "",
) -> None:
    """Build the sandbox image, unless it is up to date; without --base no registry is needed."""
    from azr.commands.launch import build_image

    build_image(name, base)


@bench_app.command("sandbox")
def bench_sandbox(
    backend: Backend = "docker",
    runtime: Annotated[str, typer.Option(help="Docker runtime, e.g. runsc; empty takes the engine's default.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repeats: under a minute, not to be cited.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    output: Annotated[Path | None, typer.Option(help="Folder for bench.json and bench.png.")] = None,
    programs: Annotated[
        list[Path], typer.Option(help="JSON lines of real programs: snippet, input or inputs, imports. Repeatable.")
    ] = [],  # noqa: B006
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Measure verdicts per second, latency, cold start, memory and a paper-size step, beside a bare fork.

    A verdict's clock stops when its value is decoded on the host and its process is reaped in the guest.
    """
    from azr.commands.bench import run_bench

    run_bench(
        programs, backend=backend, runtime=runtime, is_quick=quick, as_json=as_json, output=output, overrides=overrides
    )


@bench_app.command("rollouts")
def bench_rollouts(
    models: Annotated[list[str], typer.Option("--model", help="nano, 6M or 25M; repeatable. Default: all.")] = [],  # noqa: B006
    threads: Annotated[list[int], typer.Option(min=1, help="CPU threads; repeatable. Default: 1 and 2.")] = [1, 2],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure tokens per second of transformers and of vLLM on CPUs, for the same prompts."""
    from benchmarks.rollouts import run_rollouts

    run_rollouts(models, threads, as_json=as_json)


@bench_app.command("cluster")
def bench_cluster(
    jobs: Annotated[int, typer.Option(min=50, help="Jobs of a batch, a worker.")] = 400,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    output: Annotated[Path | None, typer.Option(help="Folder for cluster-scaling.json and .png.")] = None,
) -> None:
    """Measure sandbox workers under Ray on this host, one and two; play out up to 64 nodes from what was measured."""
    from benchmarks.scaling import run_scaling

    run_scaling(output, num_jobs=jobs, as_json=as_json)


@nano_app.command("pretrain")
def nano_pretrain(
    folder: Annotated[Path, typer.Argument(help="Where the weights go.")],
    seed: Annotated[int, typer.Option(help="Random seed; the shipped weights are seed 0.")] = 0,
) -> None:
    """Pretrain the nano base anew, as the shipped weights were made: at most 20 CPU minutes."""
    from azr.commands.launch import pretrain_nano

    pretrain_nano(folder, seed)


def _complain(message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text.assemble(("error: ", "bold red"), message))
    sys.exit(1)


def main() -> None:
    """Entry point: errors that we foresaw are one paragraph and a non-zero exit code."""
    try:
        app()
    except (AzrError, SandboxError) as error:
        _complain(str(error))
    except OSError as error:
        _complain(f"the system refuses: {error}; check the disk and the permissions, nothing whole was overwritten")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
