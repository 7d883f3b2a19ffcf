"""The application that the commands of ``klnorm`` join, and how errors are shown."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Annotated

import typer
from rich.markup import escape
from typer.core import TyperGroup

from klnorm_lib.cli.output import stderr

HELP = "Fine-tuning with few labels: KL-Norm, guided dropout and their controls."


class Commands(TyperGroup):
    """Turns an error that a user can mend into one message and exit code 2; ``--debug`` shows the traceback."""

    def invoke(self, ctx):
        """Run a command; see the class."""
        warnings.showwarning = _show_warning
        try:
            return super().invoke(ctx)
        except Exception as error:
            if ctx.params.get("debug") or not can_be_mended(error):
                raise
            message = str(error) or type(error).__name__
            if "--json" in sys.argv or ctx.meta.get("json"):
                typer.echo(json.dumps({"error": message, "type": type(error).__name__}))
            else:
                stderr().print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            stderr().print(
                "interrupted; the same command starts a run again, and resumes a pretraining at its last checkpoint"
            )
            raise typer.Exit(130) from None


def can_be_mended(error: Exception) -> bool:
    """Whether ``error`` is about what the user gave: one of the library's own errors, or one of Python's for that."""
    # The library's errors are known by their module: importing their classes would import torch for `--help`.
    ours = type(error).__module__.startswith("klnorm_lib.")
    theirs = isinstance(error, ValueError | LookupError | OSError | FloatingPointError)
    return ours or (theirs and not isinstance(error, BrokenPipeError))


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    if issubclass(category, UserWarning):  # ours; the others are for developers
        stderr().print(f"[yellow]Note:[/] {escape(str(message))}", soft_wrap=True)


app = typer.Typer(
    cls=Commands,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)


def _version(value: bool) -> None:
    if value:
        from klnorm_lib import __version__

        typer.echo(f"klnorm {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Fine-tuning with few labels: KL-Norm, guided dropout and their controls."""
