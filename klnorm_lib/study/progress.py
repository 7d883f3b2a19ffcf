"""What a person sees while a run is under way, on the error stream, so that results can be piped."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn


class Reporter:
    """Shows stages, a bar over optimiser steps and one line an evaluation; silent if ``enabled`` is false.

    The bar is drawn in a terminal; elsewhere (a log, a notebook) the lines remain.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self.console = Console(file=sys.stderr, quiet=not enabled, force_jupyter=False, highlight=False)
        self._bar: Progress | None = None
        self._task = None

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, soft_wrap=True)

    def start(self, steps: int) -> None:
        """Show the bar for ``steps`` optimiser steps."""
        self._bar = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            disable=not self.console.is_terminal or not self.enabled,
        )
        self._task = self._bar.add_task("training", total=steps, note="")
        self._bar.start()

    def step(self, step: int, loss: float | None) -> None:
        """``step`` optimiser steps are done; ``loss`` is the mean of the last one."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, note="" if loss is None else f"loss {loss:.3f}")

    def evaluation(self, step: int, steps: int, scores: Mapping[str, float | None], best: bool) -> None:
        """One line about an evaluation of the validation rows."""
        values = "  ".join(f"{name} {show(value)}" for name, value in scores.items())
        mark = "  [green]best so far[/]" if best else ""
        self.console.print(f"  step {step:>{len(str(steps))}}/{steps}  validation  {values}{mark}", soft_wrap=True)

    def stop(self) -> None:
        """Take the bar down."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def show(value: float | None) -> str:
    """A metric with three decimals, or a dash where it is undefined."""
    return "–" if value is None else f"{value:.3f}"
