"""The libraries below without their bars and start-up notes; warnings of ours still show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Within this block ``datasets`` and ``transformers`` report errors only, and draw no bars."""
    import datasets
    from transformers.utils import logging

    level, bars, model_bars = (
        logging.get_verbosity(),
        not datasets.are_progress_bars_disabled(),
        logging.is_progress_bar_enabled(),
    )
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if model_bars:
            logging.enable_progress_bar()
        if bars:
            datasets.enable_progress_bars()
