"""Parameters, step time and memory of every method, against no method; writes klnorm_lib/studies/cost.json."""

from __future__ import annotations

import argparse
import copy
import gc
import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from klnorm_lib import VIB, KLNorm, Mixout, MLPHead, NormHead, apply, encoders, methods, studies
from klnorm_lib.probes import cost
from klnorm_lib.study import machine

TARGET = studies.path("cost.json")
ARMS = {
    "plain": None,
    "sham": None,  # the A/A control: plain again, so its true ratio is 1
    "layernorm": NormHead("layer"),
    "klnorm_a": KLNorm(form="A"),
    "klnorm_b": KLNorm(form="B"),
    "klnorm_c": KLNorm(form="C"),
    "mlp": MLPHead(),
    "vib": VIB(schedule="constant"),
    "mixout": Mixout(p=0.5),
}
FEW = ("plain", "sham", "layernorm", "klnorm_b", "vib", "mixout")
MODELS = {  # rows and tokens of a batch, rounds
    "klnorm-tiny": {"rows": 8, "tokens": 32, "rounds": 60, "arms": tuple(ARMS)},
    "bert-base:random": {"rows": 2, "tokens": 32, "rounds": 14, "arms": FEW},
}
LABELS = 2


def build(name: str):
    """A plain model, eager about nothing: the packaged one, or one of BERT-base's size with weights drawn at random."""
    torch.manual_seed(0)
    if name == "bert-base:random":
        return AutoModelForSequenceClassification.from_config(BertConfig(num_labels=LABELS))
    return encoders.load(name, LABELS)[0]


def arms(plain, names) -> dict:
    """Models that share the encoder's parameters, each changed by its method: (model, report) by name."""
    shared = {id(p): p for p in plain.base_model.parameters()}
    made = {}
    for name in names:
        model = copy.deepcopy(plain, dict(shared))
        report = apply(model, *([] if ARMS[name] is None else [ARMS[name]]))
        made[name] = (model.train(), report)
    return made


def step_of(model, optimiser, batch):
    """One training step: forward, backward, AdamW."""

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        model(**batch).loss.backward()
        optimiser.step()

    return step


def measure(name: str, rows: int, tokens: int, rounds: int, arms_named) -> dict:
    """The entry of one model."""
    plain = build(name)
    generator = torch.Generator().manual_seed(0)
    batch = {
        "input_ids": torch.randint(5, plain.config.vocab_size, (rows, tokens), generator=generator),
        "attention_mask": torch.ones(rows, tokens, dtype=torch.long),
        "labels": torch.arange(rows) % LABELS,
    }
    state = defaultdict(dict)  # of the optimiser, shared as the weights are
    steps, entries = {}, {}
    for arm, (model, report) in arms(plain, arms_named).items():
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6)
        optimiser.state = state
        steps[arm] = step_of(model, optimiser, batch)
        steps[arm]()
        optimiser.zero_grad(set_to_none=True)
        parameters = list(model.parameters())
        entries[arm] = {
            "method": methods.to_dict(ARMS[arm]),
            "added_parameters": report.added_parameters,
            "parameters": sum(p.numel() for p in parameters),
            "state_bytes": 3 * _bytes(parameters) + _bytes(model.buffers()),
            "step_bytes": cost.peak_bytes(steps[arm]),
        }
        gc.collect()
    times = cost.in_turns(steps, rounds)
    for arm, entry in entries.items():
        entry["cpu_seconds"] = [round(t, 6) for t in times.cpu[arm]]
        entry["wall_seconds"] = [round(t, 6) for t in times.wall[arm]]
    config = plain.config
    return {
        "encoder": name,
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "rows": rows,
        "tokens": tokens,
        "outputs": LABELS,
        "arms": entries,
    }


def _bytes(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def main() -> None:
    """Measure, print the ratios, and write the file."""
    from klnorm_lib.pages import cost as report

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rounds on the small encoder; writes nothing")
    parser.add_argument("--rounds", type=int, default=10**6, help="at most so many for each model")
    parser.add_argument("--out", type=Path, default=TARGET)
    given = parser.parse_args()
    torch.set_num_threads(1)
    models = {"klnorm-tiny": {**MODELS["klnorm-tiny"], "rounds": 6}} if given.quick else MODELS
    made = {
        "schema_version": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "what": "one training step: forward, backward, AdamW, fp32, one thread; seconds by round",
        "versions": machine.versions(),
        "hardware": {**machine.hardware(), "device": "cpu"},
        "models": [
            measure(name, how["rows"], how["tokens"], min(how["rounds"], given.rounds), how["arms"])
            for name, how in models.items()
        ],
    }
    report.check(made)
    print(report.frame(made).to_string(index=False))
    if not given.quick:
        given.out.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"written: {given.out.name}")


if __name__ == "__main__":
    main()
