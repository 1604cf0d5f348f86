"""From a typed command to a finished one: opens what the command needs, in the order in which errors are cheapest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as LineProgress
from rich.table import Table

from azr import configfile
from azr.build import make_executor, make_policy, make_types, sampler
from azr.commands.jsonlines import process
from azr.commands.modelfree import Exec, Validate, Verify
from azr.config import Config
from azr.errors import ConfigError
from azr.evaluation.heldout import Score, evaluate, load_tasks
from azr.policies.base import Policy, Thinking
from azr.policies.openrlhf.preflight import check
from azr.runs.checkpoint import Checkpoint, CheckpointStore
from azr.runs.directory import LOGGERS, OneLineFormatter, RunDirectory
from azr.runs.history import History
from azr.runs.metrics import read as read_metrics
from azr.runs.progress import Progress
from azr.runs.summary import summary
from azr.training.openrlhf import train_distributed
from azr.training.run import played, train_run
from azr.types import Task
from sandbox.audit.log import Audited, AuditLog, Label
from sandbox.types import Executor

INTERRUPTED = 130
console = Console()
errors = Console(stderr=True)


def run_training(config_path: Path, run_dir: Path | None, *, overrides: Sequence[str], resume: bool) -> int:
    """Train as the config says; returns the exit code."""
    _show_warnings()
    config = configfile.load(config_path, overrides)
    folder = run_dir or Path("runs") / f"{config_path.stem}-seed{config.seed}"
    if not resume:
        RunDirectory.require_new(folder)
    if config.policy.kind == "openrlhf":
        check(config, source=config_path)
        done = train_distributed(config, folder, resume=resume, console=console, source=config_path)
    else:
        done = asyncio.run(_train(config, folder, resume=resume))
    return _conclude(folder, done=done, config=config)


def _show_warnings() -> None:
    """Warnings go to the terminal as well as to log.txt: a damaged checkpoint that was passed over must be seen."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(OneLineFormatter("%(levelname)s: %(message)s"))
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)


async def _train(config: Config, folder: Path, *, resume: bool) -> int:
    def watch(history: History) -> Progress:
        return Progress(str(folder), history=history, console=console)

    return await train_run(config, folder, resume=resume, load_policy=lambda: make_policy(config), watch=watch)


def _conclude(folder: Path, *, done: int, config: Config) -> int:
    """What a person sees at the end: summary, picture, where things are."""
    from azr.runs.plot import learning_curve

    console.print(summary(read_metrics(folder / "metrics.jsonl")))
    console.print(f"learning curve  {learning_curve(folder)}", soft_wrap=True, highlight=False)
    console.print(f"run             {folder}", soft_wrap=True, highlight=False)
    if done < config.steps:
        console.print(f"stopped after step {done} of {config.steps}; the same command with --resume goes on")
        return INTERRUPTED
    return 0


def run_evaluation(
    model: str,
    tasks: str,
    *,
    temperature: float,
    thinking: Thinking,
    config: Path | None,
    overrides: Sequence[str],
    as_json: bool,
) -> None:
    """Evaluate a run's newest checkpoint or a model; prints a table or one JSON object."""
    _show_warnings()
    settings = _evaluation_config(model, config, overrides)
    name = tasks or settings.evaluation.tasks
    if not name:
        raise ConfigError("which tasks? give --tasks nano, --tasks FILE, or a config with evaluation.tasks")
    held_out = played(settings, load_tasks(name))
    checkpoint = (
        CheckpointStore(Path(model) / "checkpoints", settings.checkpoint.keep).latest() if is_run(model) else None
    )
    scores = asyncio.run(_evaluate(settings, held_out, checkpoint, temperature=temperature, thinking=thinking))
    if as_json:
        console.print_json(data={kind: asdict(score) for kind, score in scores.items()})
    else:
        console.print(_score_table(scores))


def _evaluation_config(model: str, config: Path | None, overrides: Sequence[str]) -> Config:
    """The run's own config, or the given one (else nano's) with this model."""
    if is_run(model):
        return configfile.load(Path(model) / "config.toml", overrides)
    if config is not None:
        return configfile.load(config, [f'model.path="{model}"', *overrides])
    if model == "nano":
        return configfile.load(configfile.packaged("nano.toml"), overrides)
    raise ConfigError(f"{model} is no run directory; to evaluate a model give its --config as well")


def is_run(path: str) -> bool:
    """Whether a run directory lies there."""
    return (Path(path) / "config.toml").is_file()


async def _evaluate(
    config: Config, tasks: list[Task], checkpoint: Checkpoint | None, *, temperature: float, thinking: Thinking
) -> dict[str, Score]:
    async with make_executor(config.sandbox) as executor:
        policy = _policy_of(config, checkpoint)
        generate = sampler(policy, config.sampling, temperature=temperature, thinking=thinking)
        return await evaluate(tasks, make_types(config), generate=generate, executor=executor)


def _policy_of(config: Config, checkpoint: Checkpoint | None) -> Policy:
    """The policy of a checkpoint, or the base model, in this process; OpenRLHF's checkpoints hold a model as well."""
    if checkpoint is None:
        return make_policy(config)
    folder = checkpoint.folder / "policy"
    if config.policy.kind == "openrlhf":
        model = config.model.model_copy(update={"path": str((folder / "model").absolute())})
        return make_policy(config.model_copy(update={"model": model}))
    policy = make_policy(config)
    policy.load(folder)
    return policy


def _score_table(scores: dict[str, Score]) -> Table:
    table = Table("task type", "tasks", "accuracy", "thinks", "accuracy when thinking", "tokens a reply")
    for name, score in scores.items():
        shares = (score.accuracy, score.thinks, score.accuracy_thinking)
        table.add_row(name, str(score.num_tasks), *(f"{share:.1%}" for share in shares), f"{score.length:.1f}")
    return table


def run_exec(
    source: Path, target: Path, *, backend: str, overrides: Sequence[str], applies_policy: bool, audit: Path | None
) -> int:
    """`azr exec`; returns the exit code: 1 when a line could not be used."""
    config = _model_free_config(backend, overrides)
    forbidden = config.tasks.forbidden_modules if applies_policy else ()

    def make_work(executor: Executor) -> Exec:
        return Exec(executor, config.sandbox.limits(), forbidden)

    return asyncio.run(_lines(source, target, config=config, make_work=make_work, audit=audit))


def run_validate(source: Path, target: Path, *, backend: str, overrides: Sequence[str], audit: Path | None) -> int:
    """`azr validate`; returns the exit code: 1 when a line could not be used."""
    config = _model_free_config(backend, overrides)

    def make_work(executor: Executor) -> Validate:
        return Validate(executor, make_types(config))

    return asyncio.run(_lines(source, target, config=config, make_work=make_work, audit=audit))


def run_verify(source: Path, target: Path, *, backend: str, overrides: Sequence[str], audit: Path | None) -> int:
    """`azr verify`; returns the exit code: 1 when a line could not be used."""
    config = _model_free_config(backend, overrides)

    def make_work(executor: Executor) -> Verify:
        return Verify(executor, make_types(config))

    return asyncio.run(_lines(source, target, config=config, make_work=make_work, audit=audit))


def _model_free_config(backend: str, overrides: Sequence[str]) -> Config:
    return configfile.defaults([f'sandbox.backend="{backend}"', *overrides])


async def _lines(
    source: Path,
    target: Path,
    *,
    config: Config,
    make_work: Callable[[Executor], Exec | Validate | Verify],
    audit: Path | None,
) -> int:
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    async with make_executor(config.sandbox) as executor:
        with (
            _recorded(executor, audit) as recorded,
            LineProgress(*columns, console=errors, disable=not errors.is_terminal) as progress,
        ):
            worker = make_work(recorded)
            bar = progress.add_task("lines", total=None)
            num_bad = await process(
                source,
                target,
                work=worker.work,
                check=worker.check,
                on_progress=lambda count: progress.advance(bar, count),
            )
    if num_bad:
        errors.print(f"[bold red]{num_bad} lines could not be used[/]; their places in the output say why")
    return 1 if num_bad else 0


@contextmanager
def _recorded(executor: Executor, audit: Path | None) -> Generator[Executor]:
    """The executor, with a log where one is wanted; the log is anchored when all went well."""
    if audit is None:
        yield executor
        return
    with closing(AuditLog.open(audit)) as log:
        yield Audited(executor, log, Label("cli"))
        log.anchor(0)


def build_image(name: str, base: str) -> None:
    """Build the sandbox image, unless it is there and made of what lies here now; say which it is."""
    from sandbox.docker.image import build, ensure

    console.print(f"{name}: {build(name, base) if base else ensure(name)}", soft_wrap=True, highlight=False)


def pretrain_nano(folder: Path, seed: int) -> None:
    """Pretrain the nano base into a folder, with a line of progress now and then."""
    from azr.nano.pretrain import Progress as Pretraining
    from azr.nano.pretrain import pretrain

    def report(done: Pretraining, model: object) -> None:
        del model
        left_s = done.wall_s * (done.num_tokens / done.tokens - 1)
        share = done.tokens / done.num_tokens
        console.print(f"{share:4.0%}  {done.tokens:,} tokens  loss {done.loss:.3f}  {left_s / 60:.1f} min left")

    pretrain(folder, seed=seed, report=report)
    console.print(f"weights and tokenizer: {folder}; evaluate them with: python -m azr.nano.evaluate {folder}")
