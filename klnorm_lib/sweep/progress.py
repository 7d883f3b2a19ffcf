"""What a person sees while a study is under way: how many runs are done, how many failed, and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from klnorm_lib.study.spec import Run

PAUSE = 30.0  # seconds between two lines where there is no terminal


class Meter:
    """A bar in a terminal, now and then a line elsewhere, on the error stream; silent if ``enabled`` is false.

    ``seconds`` tells the typical time of a run, or ``None``; ``width`` runs go on at a time.
    """

    def __init__(
        self, stage: str, runs: Iterable[Run], width: int, seconds: Callable[[Run], float | None], enabled: bool = True
    ) -> None:
        self.stage, self.waiting, self.width = stage, list(runs), width
        self.total, self.failed = len(self.waiting), 0
        self._seconds = seconds
        self._console = Console(file=sys.stderr, quiet=not enabled, force_jupyter=False, highlight=False)
        self._said = 0.0
        self._bar = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal or not enabled,
        )

    def __enter__(self) -> Meter:
        self._task = self._bar.add_task(self.stage, total=self.total, note=self.note())
        self._bar.start()
        self._said = time.monotonic()
        return self

    def __exit__(self, *error) -> None:
        self._bar.update(self._task, note=self.note())
        self._bar.stop()

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(escape(text), soft_wrap=True)

    def done(self, run: Run, failed: bool = False) -> None:
        """One run has ended."""
        self.waiting.remove(run)
        self.failed += failed
        count = self.total - len(self.waiting)
        self._bar.update(self._task, completed=count, note=self.note())
        if not self._console.is_terminal and (not self.waiting or time.monotonic() - self._said > PAUSE):
            self._said = time.monotonic()
            self.say(f"{self.stage}: {count} of {self.total}{self.note(', ')}")

    def left(self) -> float | None:
        """Seconds that the runs left will take, by the recorded times of their like; ``None`` if there are none."""
        times = [self._seconds(run) for run in self.waiting]
        known = [t for t in times if t is not None]
        if not known:
            return None
        return sum(known) * len(times) / len(known) / min(self.width, len(times))

    def note(self, before: str = "") -> str:
        """Failures and time left, in words."""
        left = self.left()
        told = [f"{self.failed} failed"] if self.failed else []
        told += [] if left is None else [f"about {spell(left)} left"]
        return before * bool(told) + ", ".join(told)


def spell(seconds: float) -> str:
    """A time in words: ``40 s``, ``7 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
