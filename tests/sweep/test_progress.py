"""The one progress bar: drawn in a terminal, lines alone in a pipe, nothing where it is not wanted."""

import io
from contextlib import redirect_stderr

import pytest

from klnorm_lib.study import Run
from klnorm_lib.study.progress import Reporter
from klnorm_lib.sweep.progress import StudyProgress

RUNS = [Run("trec", "klnorm-nano", seed=s, split_seed=s) for s in range(2)]


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def stderr(request, monkeypatch):
    """What stands for the error stream, a terminal or a pipe."""
    stream = io.StringIO()
    stream.isatty = lambda: request.param
    monkeypatch.setenv("TERM", "xterm")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return stream


def test_a_study(stderr):
    with redirect_stderr(stderr), StudyProgress("final", RUNS, 1, lambda run: 60.0) as progress:
        progress.done(RUNS[0])
        progress.say("failed: [2, 3]")
        progress.done(RUNS[1], failed=True)
    text = stderr.getvalue()
    assert "failed: [2, 3]" in text
    if stderr.isatty():
        assert "2/2" in text
        assert "✓" in text
        assert "1 failed" in text
    else:
        assert text == "failed: [2, 3]\nfinal: 2 of 2, 1 failed\n"


def test_a_run(stderr):
    with redirect_stderr(stderr):
        reporter = Reporter()
        reporter.start(20)
        reporter.step(10, 0.5)
        reporter.evaluation(10, 20, {"accuracy": 0.25, "matthews": None}, best=True)
        reporter.stop()
        reporter.stop()  # a failed run stops it twice
    text = stderr.getvalue()
    if stderr.isatty():
        assert "10/20" in text
        assert "loss 0.500" in text
    else:
        assert text == "  step 10/20  validation  accuracy 0.250  matthews –  best so far\n"


def test_silence(stderr):
    with redirect_stderr(stderr):
        with StudyProgress("final", RUNS[:1], 1, lambda run: None, enabled=False) as progress:
            progress.done(RUNS[0])
        reporter = Reporter(False)
        reporter.start(2)
        reporter.say("nothing")
        reporter.stop()
    assert stderr.getvalue() == ""
