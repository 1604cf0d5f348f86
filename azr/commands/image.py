"""`azr image build`: the sandbox image."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The Docker image of the sandbox.")


@app.callback()
def group() -> None:
    """The Docker image of the sandbox."""


@app.command()
def build(
    name: Annotated[str, typer.Option(help="Name of the image.")] = "azr-sandbox",
    base: Annotated[
        str, typer.Option(help="Base image, e.g. python:3.11-slim; default: none, this machine's own Python is copied.")
    ] = "",
) -> None:
    """Build the sandbox image if it is missing or out of date. Without --base no registry is needed.

    Example: azr image build
    """
    from rich.console import Console

    from sandbox.docker import image

    state = image.build(name, base) if base else image.ensure(name)
    Console().print(f"{name}: {state}", soft_wrap=True, highlight=False)
