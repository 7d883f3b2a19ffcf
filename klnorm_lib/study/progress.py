"""What a person sees while a run or a study is under way, on the error stream, so that results can be piped."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn


class Bar:
    """A bar that counts to a total, and lines above it; silent if ``enabled`` is false.

    The bar is drawn in a terminal; elsewhere (a log, a notebook) the lines remain. ``time_left``: a column that guesses
    the time left from the pace so far.
    """

    def __init__(self, enabled: bool = True, time_left: bool = True) -> None:
        self.console = Console(file=sys.stderr, quiet=not enabled, force_jupyter=False, highlight=False)
        self._drawn, self._time_left = enabled and self.console.is_terminal, time_left
        self._bar: Progress | None = None

    def say(self, text: str) -> None:
        """One line, with rich's markup."""
        self.console.print(text, soft_wrap=True)

    def start(self, description: str, total: int, note: str = "") -> None:
        """Draw the bar; ``note`` stands behind the count."""
        if not self._drawn:
            return
        self._bar = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            *([TimeRemainingColumn(compact=True)] if self._time_left else []),
            console=self.console,
        )
        self._bar.add_task(description, total=total, note=note)
        self._bar.start()

    def update(self, completed: int | None = None, note: str = "") -> None:
        """So many are done; ``None``: as many as before."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=completed, note=note)

    def stop(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Reporter(Bar):
    """Shows a run: its stages, a bar over optimiser steps and one line an evaluation."""

    def start(self, steps: int) -> None:
        """Show the bar for ``steps`` optimiser steps."""
        super().start("training", steps)

    def step(self, step: int, loss: float | None) -> None:
        """``step`` optimiser steps are done; ``loss`` is the mean of the last one."""
        self.update(step, "" if loss is None else f"loss {loss:.3f}")

    def evaluation(self, step: int, steps: int, scores: Mapping[str, float | None], best: bool) -> None:
        """One line about an evaluation of the validation rows."""
        values = "  ".join(f"{name} {show(value)}" for name, value in scores.items())
        mark = "  [green]best so far[/]" if best else ""
        self.say(f"  step {step:>{len(str(steps))}}/{steps}  validation  {values}{mark}")


def show(value: float | None) -> str:
    """A metric with three decimals, or a dash where it is undefined."""
    return "–" if value is None else f"{value:.3f}"
