"""What a person sees while a study is under way: how many runs are done, how many failed, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from rich.markup import escape

from klnorm_lib.study.progress import Bar
from klnorm_lib.study.spec import Run

PAUSE = 30.0  # seconds between two lines where there is no terminal


class StudyProgress:
    """A bar over the runs of a stage in a terminal, now and then a line elsewhere; silent if ``enabled`` is false.

    ``seconds`` gives the typical time of a run, or ``None``; ``width`` runs go on at a time.
    """

    def __init__(
        self, stage: str, runs: Iterable[Run], width: int, seconds: Callable[[Run], float | None], enabled: bool = True
    ) -> None:
        self.stage, self.waiting, self.width = stage, list(runs), width
        self.total, self.failed = len(self.waiting), 0
        self._seconds = seconds
        self._bar = Bar(enabled, time_left=False)  # the pace so far says little: runs differ, and several go on at once
        self._last_line = 0.0

    def __enter__(self) -> StudyProgress:
        self._bar.start(self.stage, self.total, self.note())
        self._last_line = time.monotonic()
        return self

    def __exit__(self, *error) -> None:
        self._bar.update(note=self.note())
        self._bar.stop()

    def say(self, text: str) -> None:
        """One line."""
        self._bar.say(escape(text))

    def done(self, run: Run, failed: bool = False) -> None:
        """One run has ended."""
        self.waiting.remove(run)
        self.failed += failed
        count = self.total - len(self.waiting)
        self._bar.update(count, self.note())
        if not self._bar.console.is_terminal and (not self.waiting or time.monotonic() - self._last_line > PAUSE):
            self._last_line = time.monotonic()
            self.say(f"{self.stage}: {count} of {self.total}{self.note(', ')}")

    def left(self) -> float | None:
        """Seconds that the runs left will take, by the recorded times of similar ones; ``None`` if there are none."""
        times = [self._seconds(run) for run in self.waiting]
        recorded = [t for t in times if t is not None]
        if not recorded:
            return None
        return sum(recorded) * len(times) / len(recorded) / min(self.width, len(times))

    def note(self, before: str = "") -> str:
        """Failures and time left, in words."""
        left = self.left()
        parts = [f"{self.failed} failed"] if self.failed else []
        parts += [] if left is None else [f"about {spell(left)} left"]
        return before * bool(parts) + ", ".join(parts)


def spell(seconds: float) -> str:
    """A time in words: ``40 s``, ``7 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
