"""Time, memory and exactness of the Fisher information against a backward pass; writes studies/fisher_cost.json.

Arms: an ordinary forward and backward pass over the batch (``sham``, the A/A control, is the same again: its true
ratio is 1); the same with logits at the labelled tokens only, as the hooks take them; ``hooks`` from the beginning,
the comparison with the loop on a few sequences included, and ``hooks_steady``, a further batch; torch.func; the loop;
and, where they are installed and can do it, Opacus and nngeometry.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path

import fisher_peers as peers
import torch
import transformers as hf

from klnorm_lib import studies
from klnorm_lib.probes import cost, diagonal_fisher
from klnorm_lib.probes.fisher import FisherSum
from klnorm_lib.probes.fisher.losses import loss_for
from klnorm_lib.probes.fisher.selection import Selection, output_layer
from klnorm_lib.study import machine

TARGET = studies.path("fisher_cost.json")
EXACT = 1e-5
OURS = ("ordinary", "sham", "ordinary_selected", "hooks", "hooks_steady", "func", "loop")
QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # Opacus needs training mode


def bert(vocabulary: int, layers: int, width: int, heads: int) -> torch.nn.Module:
    """A BERT with a masked-LM head tied to its word embedding, weights drawn at random."""
    shape = {"vocab_size": vocabulary, "num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    return hf.BertForMaskedLM(hf.BertConfig(**shape, intermediate_size=4 * width, **QUIET))


def gpt2() -> torch.nn.Module:
    """A GPT-2: every token is labelled, so there is nothing to select."""
    shape = {"vocab_size": 2000, "n_layer": 4, "n_embd": 256, "n_head": 4, "n_positions": 128}
    return hf.GPT2LMHeadModel(hf.GPT2Config(**shape, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))


def t5() -> torch.nn.Module:
    """A T5, whose relative position bias has no batch axis: part of it goes to torch.func."""
    shape = {"vocab_size": 2000, "d_model": 256, "d_kv": 64, "d_ff": 1024, "num_layers": 2, "num_heads": 4}
    return hf.T5ForConditionalGeneration(hf.T5Config(**shape, decoder_start_token_id=0, dropout_rate=0.0))


# model, its loss, sequences, tokens, rounds
MODELS = {
    "bert-4x256": (lambda: bert(2000, 4, 256, 4), "masked", 64, 64),
    "klnorm-tiny": (lambda: bert(16384, 4, 256, 4), "masked", 16, 64),
    "all-MiniLM": (lambda: bert(30522, 6, 384, 12), "masked", 8, 64),
    "gpt2-4x256": (gpt2, "causal", 16, 64),
    "t5-2x256": (t5, "seq2seq", 16, 32),
}
ROUNDS = 7


def batch_of(kind: str, vocabulary: int, rows: int, tokens: int, share: float = 0.15) -> dict[str, torch.Tensor]:
    """Random sequences without padding; masked: that share of the tokens is labelled, at least one."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, vocabulary, (rows, tokens), generator=generator)
    labels = ids.clone()
    if kind == "masked":
        labelled = torch.rand(rows, tokens, generator=generator) < share
        labelled[:, 1] = True
        labels[~labelled] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def apart(found: dict, true: dict) -> dict[str, float]:
    """Parameter name -> relative norm of the difference, with a floor for gradients that are rounding noise."""
    noise = 1e-7 * max(float(t.mean()) for t in true.values())
    return {n: float((found[n] - t).norm() / max(float(t.norm()), noise * t.numel() ** 0.5)) for n, t in true.items()}


def measure(name: str, rounds: int) -> dict:
    """The entry of one model."""
    build, kind, rows, tokens = MODELS[name]
    torch.manual_seed(0)
    model = build().eval()
    batch, loss = batch_of(kind, model.config.vocab_size, rows, tokens), loss_for(kind)

    def ordinary() -> None:
        model(**batch).loss.backward()
        model.zero_grad(set_to_none=True)

    def selected() -> None:
        selection = Selection(kind, batch)
        handle = output_layer(model).register_forward_pre_hook(lambda _, given: (selection(given[0]),))
        selection.loss(model).sum().backward()
        handle.remove()
        model.zero_grad(set_to_none=True)

    def ours(method: str):
        return lambda: diagonal_fisher(model, [batch], method=method, progress=False)

    steady = FisherSum(model)
    steps = {"ordinary": ordinary, "sham": ordinary, "ordinary_selected": selected}
    ways = {"hooks": ours("hooks"), "func": ours("func"), "loop": ours("loop")}
    true = ways["loop"]()
    steps |= ways | {"hooks_steady": lambda: steady.add(batch)}
    missing = {}
    for peer in peers.PEERS:
        try:
            ways[peer] = steps[peer] = peers.PEERS[peer](model, loss, batch)
            steps[peer]()
        except Exception as error:  # noqa: BLE001  any way in which a peer may refuse a model
            missing[peer] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            ways.pop(peer, None), steps.pop(peer, None)
    exact = {}
    for way, step in ways.items():
        found = step()
        known = {n: t for n, t in true.items() if n in found}
        differ = apart(found, known)
        worst = max(differ, key=differ.get)
        exact[way] = {
            "tensors": len(true),
            "exact": sum(d < EXACT for d in differ.values()),
            "worst": differ[worst],
            "where": worst,
            "left_out": sorted(true.keys() - found.keys()),
        }
    with steady:
        steps["hooks_steady"]()
        memory = {way: cost.peak_bytes(step) for way, step in steps.items()}
        gc.collect()
        load = os.getloadavg()[0]
        times = cost.in_turns(steps, rounds, warmup=1)
    arms = {
        way: {
            "cpu_seconds": [round(t, 6) for t in times.cpu[way]],
            "wall_seconds": [round(t, 6) for t in times.wall[way]],
            "peak_bytes": memory[way],
            "exactness": exact.get(way),
        }
        for way in steps
    }
    return {
        "model": name,
        "class": type(model).__name__,
        "loss": kind,
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": model.config.vocab_size,
        "rows": rows,
        "tokens": tokens,
        "load": round(load, 2),
        "missing": missing,
        "arms": arms,
    }


def show(entry: dict) -> None:
    """Print the ratios of one model."""
    plain = entry["arms"]["ordinary"]
    for way, arm in entry["arms"].items():
        middle, low, high = cost.ratio(arm["cpu_seconds"], plain["cpu_seconds"])
        memory = arm["peak_bytes"] / (4 * entry["parameters"])
        said = arm["exactness"]
        note = f"{said['exact']} of {said['tensors']} exact, worst {said['worst']:.1e} {said['where']}" if said else ""
        print(f"{entry['model']:12} {way:18} {middle:6.2f} [{low:.2f}, {high:.2f}] {memory:6.1f} x parameters  {note}")
    for peer, why in entry["missing"].items():
        print(f"{entry['model']:12} {peer:18} {why}")


def main() -> None:
    """Measure, print the ratios, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewest rounds on the first model; writes nothing")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS), help="others stay")
    parser.add_argument("--peers", type=Path, help="a folder where Opacus and nngeometry are installed (pip --target)")
    parser.add_argument("--out", type=Path, default=TARGET)
    given = parser.parse_args()
    if given.peers:
        sys.path.append(str(given.peers))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    made = {
        "schema_version": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "what": "one batch of sequences, fp32, one thread; seconds by round, arms in turns",
        "versions": machine.versions() | peers.versions(),
        "hardware": {**machine.hardware(), "device": "cpu"},
    }
    for name in given.models[:1] if given.quick else given.models:
        entry = measure(name, 6 if given.quick else given.rounds)
        show(entry)
        if not given.quick:
            kept = json.loads(given.out.read_text(encoding="utf-8"))["models"] if given.out.exists() else []
            entries = {m["model"]: m for m in [*kept, entry]}
            made["models"] = [entries[m] for m in MODELS if m in entries]
            given.out.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            print(f"written: {given.out.name}")


if __name__ == "__main__":
    main()
