"""Sections, curvature and sharpness of a loss, by Fisher information; writes klnorm_lib/studies/landscape.json.

Needs a mirror (KLNORM_MIRROR) with the corpora and the task named below. An interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from klnorm_lib import encoders, studies, tasks
from klnorm_lib.encoders.corruption import Corruption
from klnorm_lib.encoders.language_model import load_language_model
from klnorm_lib.encoders.windows import checksums, corpus, windows
from klnorm_lib.probes import landscape
from klnorm_lib.probes.fisher import diagonal_fisher
from klnorm_lib.study import machine

TARGET = studies.path("landscape.json")
ENCODER, TASK, LABELS = "klnorm-tiny", "trec", 200
LEARNING, HELD_OUT = "wikinews_en", "wikitext2_valid_test"  # one of the corpora of pretraining, and another
LENGTH, SEED, SHARE = 64, 0, 0.5
RADII = (0.14, 0.5, 0.9, 1.4)  # of those at which means are published (Sharma et al. 2024)
# name: (how the half is counted, whether all directions get the same length)
SCHEMES = {
    "published": ("tensors", False),
    "counts": ("counts", False),
    "counts_length": ("counts", True),
    "parameters_length": ("parameters", True),
    "within_length": ("within", True),
}
SETS = ("top", "bottom", "random")
BY_TASK = ("published", "counts_length", "parameters_length")  # sections by the Fisher of the task as well
SURFACES = ("published", "parameters_length")
FULL = {"fisher": 128, "rows": 12, "task_rows": 24, "draws": 5, "steps": 80, "side": 4, "probes": 10}
QUICK = {"fisher": 4, "rows": 2, "task_rows": 4, "draws": 2, "steps": 2, "side": 1, "probes": 2}
SHARPNESS = {"steps": 4, "draws": 3}
RADIUS = 0.002  # of sharpness, as a share of the norm of all matrices


def covered_loss(model, batch):
    """Mean cross-entropy over the covered tokens of every sequence, (B,); logits are computed only there."""
    hidden = model.base_model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    rows, places = (batch["labels"] != -100).nonzero(as_tuple=True)
    each = F.cross_entropy(model.cls(hidden[rows, places]), batch["labels"][rows, places], reduction="none")
    count = torch.bincount(rows, minlength=len(hidden))
    return torch.zeros(len(hidden)).index_add(0, rows, each) / count


def language_model(how: dict) -> dict:
    """The pretrained model, its batches of held-out text and its Fisher information on a corpus of pretraining."""
    model, tokenizer, origin = load_language_model(ENCODER)
    learning, held_out = corpus(LEARNING), corpus(HELD_OUT)

    def batches(place, number, size):
        rows = windows([place], tokenizer, number, LENGTH, SEED)
        corruption = Corruption("masked", tokenizer, seed=SEED)
        return [corruption(rows[i : i + size], i) for i in range(0, number, size)]

    fisher = diagonal_fisher(model, batches(learning, how["fisher"], 16), loss=covered_loss, method="loop")
    seen = {"text": LEARNING, "sha256": checksums([learning])[LEARNING], "sequences": how["fisher"]}
    text = {"text": HELD_OUT, "sha256": checksums([held_out])[HELD_OUT], "sequences": how["rows"]}
    mask = {"mask_probability": 0.15, "tokens": LENGTH, "seed": SEED}
    return {
        "name": "masked language model",
        "model": model,
        "batches": batches(held_out, how["rows"], how["rows"]),
        "loss": covered_loss,
        "fishers": {"pretraining": (fisher, {**seen, **mask})},
        "facts": {"encoder": origin["encoder"], "loss": "masked tokens", "on": {**text, **mask}},
    }


def classifier(how: dict, pretraining: dict) -> dict:
    """The same encoder after fine-tuning, batches of its training rows, and two Fisher informations of the encoder."""
    torch.manual_seed(SEED)
    rows, provenance = tasks.load_with_provenance(TASK, size=LABELS, split_seed=SEED)
    spec = tasks.spec(TASK)
    model, tokenizer = encoders.load(ENCODER, spec.num_labels)
    train = rows["train"]
    texts, labels = [str(t) for t in train[spec.text_columns[0]]], torch.tensor(list(train["label"]))

    def batch(chosen):
        inputs = tokenizer(
            [texts[i] for i in chosen], padding=True, truncation=True, max_length=48, return_tensors="pt"
        )
        kept = {k: inputs[k] for k in ("input_ids", "attention_mask")}
        return {**kept, "labels": labels[list(chosen)]}

    rate = encoders.sources.learning_rate(ENCODER)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, how["steps"])
    model.train()
    rng, order = np.random.default_rng(SEED), []
    for _ in range(how["steps"]):
        order = order if len(order) >= 16 else [*order, *rng.permutation(len(texts)).tolist()]
        model(**batch(order[:16])).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        decay.step()
        order = order[16:]
    model.eval()
    inside = {n for n, _ in model.named_parameters() if not n.startswith("classifier.")}
    shapes = {n: p.shape for n, p in model.named_parameters()}
    given, seen = pretraining
    kept = {n: f for n, f in given.items() if n in inside and f.shape == shapes[n]}
    one = [batch(range(i, min(i + 16, len(texts)))) for i in range(0, min(len(texts), how["fisher"]), 16)]
    own = {n: f for n, f in diagonal_fisher(model, one, method="loop").items() if n in kept}
    on = {"text": TASK, **{k: provenance[k] for k in ("source", "revision", "checksums", "size", "split_seed")}}
    training = {"steps": how["steps"], "batch": 16, "learning_rate": rate, "seed": SEED}
    return {
        "name": f"classifier of {TASK}",
        "model": model,
        "batches": [batch(range(how["task_rows"]))],
        "loss": None,
        "fishers": {
            "pretraining": (kept, seen),
            "task": (own, {"text": TASK, "sequences": sum(len(b["labels"]) for b in one)}),
        },
        "facts": {
            "encoder": model.klnorm_source.provenance(),
            "loss": "cross-entropy of the label, training rows",
            "on": {**on, "rows": how["task_rows"]},
            "training": training,
        },
    }


def measure(what: dict, how: dict, cache: Path, surfaces: bool) -> dict:
    """The entry of one model."""
    model, batches, loss = what["model"], what["batches"], what["loss"]
    axis = landscape.symmetric(*RADII)
    known = next(iter(what["fishers"].values()))[0]
    every = {n: torch.ones(f.shape, dtype=torch.bool) for n, f in known.items() if f.dim() > 1}
    every = landscape.ParameterSet("all", every)
    length = SHARE**0.5 * landscape.norm(landscape.direction(model, 0, every))
    ask = dict(loss=loss, method="loop", cache=cache, progress=False)
    profiles, grids, chosen, sizes = [], [], {}, {}

    def add(fisher, scheme, name, draw, along):
        losses = landscape.section(model, batches, along, axis, **ask).losses
        labels = {"fisher": fisher, "scheme": scheme, "set": name, "draw": draw}
        profiles.append({**labels, "norm": round(landscape.norm(along), 4), "losses": _short(losses)})

    for draw in range(how["draws"]):
        add("none", "all", "all", draw, landscape.direction(model, draw, every))
        for fisher, (values, _) in what["fishers"].items():
            units = landscape.UNITS if fisher == "pretraining" else [SCHEMES[scheme][0] for scheme in BY_TASK]
            sets = {unit: landscape.split(model, values, unit, SHARE, draw) for unit in units}
            if draw == 0:
                chosen[fisher] = sets
                sizes[fisher] = {u: {name: s.count for name, s in found.items()} for u, found in sets.items()}
            for scheme in SCHEMES if fisher == "pretraining" else BY_TASK:
                unit, equal = SCHEMES[scheme]
                for name in SETS if fisher == "pretraining" else SETS[:2]:
                    along = landscape.direction(model, draw, sets[unit][name], length if equal else None)
                    add(fisher, scheme, name, draw, along)
            print(
                f"{what['name']}: sections of draw {draw}, {fisher}; {time.process_time():.0f} s of processor",
                flush=True,
            )
    side = np.linspace(-1.5, 1.5, 2 * how["side"] + 1).round(6)
    for scheme in SURFACES if surfaces else ():
        unit, equal = SCHEMES[scheme]
        for name in SETS[:2]:
            long = length if equal else None
            pair = [landscape.direction(model, k, chosen["pretraining"][unit][name], long) for k in (0, 1)]
            losses = landscape.section(model, batches, pair, side, side, **ask).losses
            grids.append({"scheme": scheme, "set": name, "axis": side.tolist(), "losses": [_short(r) for r in losses]})
            print(f"{what['name']}: surface {scheme}, {name}; {time.process_time():.0f} s", flush=True)
    return {
        "name": what["name"],
        **what["facts"],
        "fishers": {name: about for name, (_, about) in what["fishers"].items()},
        "parameters": sum(p.numel() for p in model.parameters()),
        "counts": sizes,
        "length": round(length, 4),
        "axis": axis.tolist(),
        "profiles": profiles,
        "surfaces": grids,
        "curvature": curvature(what, chosen, how),
        "sharpness": ball(what, chosen, RADIUS * length / SHARE**0.5),
    }


def curvature(what: dict, chosen: dict, how: dict) -> dict:
    """Draws of the trace on every set of the first draw, of the weights as they are and of filter-normalised ones."""
    sets = {(f, u, s): found[u][s] for f, found in chosen.items() for u in found for s in SETS}
    ask = dict(loss=what["loss"], probes=how["probes"], seed=SEED)
    plain = landscape.hessian_trace(what["model"], what["batches"], sets, **ask)
    scale = landscape.filter_scale(what["model"])
    scaled = landscape.hessian_trace(what["model"], what["batches"], sets, **ask, scale=scale)
    print(f"{what['name']}: curvature; {time.process_time():.0f} s", flush=True)
    return {
        "probes": how["probes"],
        "sets": [
            {"fisher": f, "unit": u, "set": s, "trace": _short(plain[k].draws), "scaled": _short(scaled[k].draws)}
            for k in sets
            for f, u, s in [k]
        ],
    }


def ball(what: dict, chosen: dict, radius: float) -> dict:
    """Sharpness of every set of the first draw, by the Fisher of pretraining."""
    found = []
    for unit, sets in chosen["pretraining"].items():
        for name in SETS:
            s = landscape.sharpness(what["model"], what["batches"], radius, sets[name], what["loss"], **SHARPNESS)
            rises = _short(s.average.draws)
            found.append({"unit": unit, "set": name, "worst": round(s.worst, 6), "average": rises})
    print(f"{what['name']}: sharpness; {time.process_time():.0f} s", flush=True)
    return {"radius": round(radius, 6), **SHARPNESS, "sets": found}


def _short(values) -> list[float]:
    return [float(f"{float(v):.7g}") for v in values]


def main() -> None:
    """Measure, print the verdicts, and write the file."""
    from klnorm_lib.pages import landscape as report

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few points of everything; writes nothing")
    parser.add_argument("--cache", type=Path, default=Path("build/landscape"), help="where values are kept on the way")
    parser.add_argument("--out", type=Path, default=TARGET)
    given = parser.parse_args()
    torch.set_num_threads(1)
    how, began = QUICK if given.quick else FULL, time.monotonic()
    words = language_model(how)
    made = [measure(words, how, given.cache, surfaces=True)]
    made.append(measure(classifier(how, words["fishers"]["pretraining"]), how, given.cache, surfaces=False))
    values = {
        "schema_version": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "what": "mean loss on lines and planes through the weights, moving halves of the parameters by their Fisher",
        "versions": machine.versions(),
        "hardware": {**machine.hardware(), "device": "cpu"},
        "seconds": {"processor": round(time.process_time(), 1), "clock": round(time.monotonic() - began, 1)},
        "share": SHARE,
        "schemes": {name: {"unit": unit, "equal_length": equal} for name, (unit, equal) in SCHEMES.items()},
        "models": made,
    }
    report.check(values)
    print(report.verdicts(values).to_string(index=False))
    if not given.quick:
        given.out.write_text(json.dumps(values, sort_keys=True) + "\n", encoding="utf-8")
        print(f"written: {given.out.name}")


if __name__ == "__main__":
    main()
