"""Whether what a row is padded with changes its outputs: measured on the model, not read from its name.

An encoder whose normalisation runs over time (Wav2Vec2 with a group norm), or that has no attention mask (FNet), gives
a row other outputs beside a longer one than alone. Rows of such a model are evaluated in batches of one length.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

ROWS = 6  # of the lengths that there are; in some models only odd or even ones show it
NOISE = 10.0  # times what the size of a batch changes by rounding
LEAST = 1e-4  # of the largest output; less is rounding
_known: WeakKeyDictionary[Any, float] = WeakKeyDictionary()


def effect(outputs: Callable[[list], np.ndarray], rows: Sequence[Any], longest: Any) -> float:
    """Largest change of the rows' outputs by padding, as a share of their largest value; 0 if it is rounding.

    ``outputs`` gives those of the rows of one batch (rows, width), in evaluation mode. The rows are seen each alone,
    the first in as many copies, which shows what rounding does, and together beside the longest.
    """
    alone = np.stack([outputs([row])[0] for row in rows])
    copies, padded = outputs([rows[0]] * (len(rows) + 1)), outputs([*rows, longest])[:-1]
    size, rounding, change = (float(np.abs(x).max()) for x in (alone, copies - alone[0], padded - alone))
    return change / size if change > max(NOISE * rounding, LEAST * size) else 0.0


def of_model(model: Any, outputs: Callable[[list], np.ndarray], examples: Sequence[Any], lengths: np.ndarray) -> float:
    """:func:`effect` on some rows of different lengths, measured once a model; 0 where all are as long.

    Warns where there is one.
    """
    different, first = np.unique(lengths, return_index=True)
    if model not in _known and len(different) > 1:
        chosen = np.unique(np.linspace(0, len(different) - 2, ROWS).round().astype(int))
        rows = [examples[int(first[i])] for i in chosen]
        found = _known[model] = effect(outputs, rows, examples[int(first[-1])])
        if found:
            warnings.warn(
                f"the outputs of {type(model).__name__} depend on padding (a row's, beside a longer one, change by up "
                f"to {found:.2g} of the largest): it is evaluated in batches of rows of one length, and trained on "
                "padded ones, as it is elsewhere.",
                stacklevel=3,
            )
    return _known.get(model, 0.0)


def note(record: Any, model: Any) -> None:
    """Write what was measured for a model into the ``encoder`` part of a record; nothing where it is 0."""
    if _known.get(model):
        record.encoder["padding_effect"] = float(f"{_known[model]:.3g}")
