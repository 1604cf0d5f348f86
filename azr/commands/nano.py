"""`azr nano pretrain`: the embedded base model, made from random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from azr.commands.installed import require

app = typer.Typer(no_args_is_help=True, help="The embedded nano model, which stands in for a pretrained LLM.")


@app.callback()
def group() -> None:
    """The embedded nano model, which stands in for a pretrained LLM."""


@app.command()
def pretrain(
    folder: Annotated[Path, typer.Argument(help="Folder for the weights and the tokenizer.")],
    seed: Annotated[int, typer.Option(help="Random seed; the packaged weights were made with seed 0.")] = 0,
) -> None:
    """Pretrain the nano base model again, exactly as the packaged weights were made: about 20 minutes on one CPU.

    Example: azr nano pretrain my-nano --seed 1
    """
    require("torch")
    from rich.console import Console

    from azr.nano.pretrain import Pretraining
    from azr.nano.pretrain import pretrain as make_base

    console = Console()

    def report(done: Pretraining, model: object) -> None:
        del model
        left_s = done.wall_s * (done.num_tokens / done.tokens - 1)
        share = done.tokens / done.num_tokens
        console.print(f"{share:4.0%}  {done.tokens:,} tokens  loss {done.loss:.3f}  {left_s / 60:.1f} min left")

    make_base(folder, seed=seed, report=report)
    console.print(f"Weights and tokenizer: {folder}. To evaluate them: azr eval {folder} --config nano", soft_wrap=True)
