"""What the cards of the encoders rest on: tasks, sizes, arms, rates and seeds, fixed before anything was measured.

An arm is an encoder and a method. Fine-tuned arms are tried at every rate and every seed, so that the budget is equal;
the baseline chooses its C on the validation rows among at least as many values. Data split and model seed change
together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from klnorm_lib.encoders.sources import RANDOM
from klnorm_lib.study import Run

FINE_TUNED, FROZEN = "plain", "frozen"


@dataclass(frozen=True)
class Plan:
    """One comparison of a card: ``sizes`` by task, ``arms`` as (encoder, method), and the settings of the runs.

    ``claims`` are the tasks that the card's claim is about; the others are reported beside them.
    """

    encoder: str
    sizes: Mapping[str, Sequence[int]]
    arms: Sequence[tuple[str, str]]
    claims: Sequence[str] = ()
    rates: Sequence[float] = (3e-4, 1e-3)
    seeds: int = 5
    training: Mapping[str, Any] = field(default_factory=lambda: {"steps": 80, "batch_size": 8})
    common: Mapping[str, Any] = field(default_factory=lambda: {"max_length": 64, "ood": False, "test_rows": 1000})

    def runs(self) -> Iterator[Run]:
        """Every run, tasks outermost, so that what one task needs is near in time."""
        for task, sizes in self.sizes.items():
            for encoder, method in self.arms:
                for size in sizes:
                    for seed in range(self.seeds):
                        where = {"size": size, "seed": seed, "split_seed": seed, "device": "cpu", **self.common}
                        if method == FROZEN:
                            yield Run(task, encoder, method, **where)
                            continue
                        for rate in self.rates:
                            yield Run(task, encoder, method, learning_rate=rate, **where, **self.training)


def twins(encoder: str) -> list[tuple[str, str]]:
    """The encoder and the same architecture with random weights, both fine-tuned."""
    return [(encoder, FINE_TUNED), (encoder + RANDOM, FINE_TUNED)]


TEXT, SPEECH = "klnorm-tiny", "klnorm-tiny-speech"
FIVE = ("sst2", "trec", "subj", "ag_news", "cr")
TEN = (*FIVE, "mr", "cola", "mrpc", "rte", "mpqa")
TABLE_SIZES = (100, 200, 500)
LADDER = ("tf-idf", TEXT + RANDOM, "klnorm-nano", TEXT, "sentence-transformers/all-MiniLM-L6-v2")
# Ten labels a class in all; esc10 needs a validation row of each class, and has four to train on.
SPOKEN = {"arabic_speech_commands": 100, "fsdd": 100, "speech_commands_3words": 30, "emodb4": 40, "esc10": 50}

PLANS: dict[str, Plan] = {
    "text": Plan(TEXT, {task: (200,) for task in FIVE}, [*twins(TEXT), ("tf-idf", FROZEN)], FIVE),
    "text-table": Plan(TEXT, {task: TABLE_SIZES for task in TEN}, [(name, FROZEN) for name in LADDER]),
    "speech": Plan(
        SPEECH,
        {task: (size,) for task, size in SPOKEN.items()},
        [*twins(SPEECH), ("log-mel", FROZEN), (SPEECH, FROZEN)],
        tuple(SPOKEN),
        training={"steps": 60, "batch_size": 8},
        common={"max_seconds": 2.0, "ood": False},
    ),
}
