"""Fisher information from text: what comes out, what is kept, and that an interruption changes nothing."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer

from klnorm_lib.encoders.corruption import Corruption
from klnorm_lib.encoders.language_model import load_language_model
from klnorm_lib.encoders.windows import windows
from klnorm_lib.probes import diagonal_fisher
from klnorm_lib.probes.fisher import estimate as module
from klnorm_lib.probes.fisher.estimate import FisherConfig, drawn_labels, estimate
from klnorm_lib.probes.fisher.table import FisherTable, load_fisher, without_prefix
from tests import language


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return language.corpus(tmp_path_factory.mktemp("estimate") / "wiki", 40)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return language.model(tmp_path_factory.mktemp("estimate") / "small")


def config(model, text, out, **fields):
    defaults = {"n": 14, "length": 16, "batch_size": 3, "block": 4, "method": "loop", "device": "cpu"}
    return FisherConfig(str(model), (str(text),), str(out), **{**defaults, **fields})


def files(out):
    table, blocks = (json.loads((out / name).read_text()) for name in ("table.json", "blocks.json"))
    for told in (table["provenance"], blocks["provenance"]):
        told.pop("seconds")
    fisher, _ = load_fisher(out / "fisher.safetensors")
    return table, blocks, fisher


@pytest.mark.parametrize("kind", language.KINDS)
def test_it_is_the_fisher_information_of_the_models_own_loss(kind, text, tmp_path):
    folder = language.model(tmp_path / "model", kind)
    told = estimate(config(folder, text, tmp_path / "out"), {"versions": {"torch": "x"}}, progress=False)
    model, tokenizer, _ = load_language_model(str(folder))
    ask = Corruption(kind, tokenizer)
    batch = ask(windows([text], tokenizer, 14, 16), 0)
    direct = diagonal_fisher(model, [batch], method="loop", progress=False)
    found, origin = load_fisher(tmp_path / "out/fisher.safetensors")
    direct = without_prefix(direct, model.base_model_prefix)
    assert found.keys() == direct.keys()
    for name in found:
        torch.testing.assert_close(found[name], direct[name], rtol=1e-4, atol=1e-9)
    counted = batch["labels"][:, 1:] if kind == "causal" else batch["labels"]
    assert told["predicted"] == (counted != -100).sum()
    assert told["tokens"] == 14 * 16
    assert origin == FisherTable.load(tmp_path / "out/table.json").provenance
    assert origin["kind"] == kind
    assert origin["versions"] == {"torch": "x"}
    assert len(origin["sha256"]) == len(origin["corpora"]["wiki"]) == 64


@pytest.mark.parametrize("method", ["loop", "hooks"])
def test_interrupted_and_resumed_is_uninterrupted(small, text, tmp_path, monkeypatch, method):
    estimate(config(small, text, tmp_path / "whole", method=method), progress=False)
    true, calls = module._block, []

    def tripping(*arguments):
        calls.append(1)
        if len(calls) in (2, 4):
            raise KeyboardInterrupt
        return true(*arguments)

    monkeypatch.setattr(module, "_block", tripping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            estimate(config(small, text, tmp_path / "parts", method=method), progress=False)
        assert not (tmp_path / "parts/table.json").exists()
    estimate(config(small, text, tmp_path / "parts", method=method), progress=False)
    assert len(calls) == 6, "four blocks, two of them twice"
    for one, other in zip(files(tmp_path / "whole"), files(tmp_path / "parts"), strict=True):
        if isinstance(one.get("tensors"), (dict, list)):
            assert one == other
        else:
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_more_sequences_go_on_from_fewer(small, text, tmp_path, monkeypatch):
    estimate(config(small, text, tmp_path / "whole"), progress=False)
    estimate(config(small, text, tmp_path / "grown", n=6), progress=False)
    computed = []
    true = module._block
    monkeypatch.setattr(module, "_block", lambda *a: computed.append(a[2]) or true(*a))
    estimate(config(small, text, tmp_path / "grown"), progress=False)
    assert computed[0] == range(4, 8), "the last block of the six was not whole"
    assert files(tmp_path / "grown")[0] == files(tmp_path / "whole")[0]
    with pytest.raises(ValueError, match="12 sequences already, more than the 5"):
        estimate(config(small, text, tmp_path / "grown", n=5), progress=False)


def test_minutes_stop_it_and_the_same_command_goes_on(small, text, tmp_path):
    told = estimate(config(small, text, tmp_path, minutes=1e-9), progress=False)
    assert (told["done"], told["n"]) == (4, 14)
    assert not (tmp_path / "table.json").exists()
    assert estimate(config(small, text, tmp_path), progress=False)["done"] == 14


def test_the_beginning_of_another_computation_is_refused(small, text, tmp_path):
    first = config(small, text, tmp_path / "out", n=4)
    estimate(first, progress=False)
    other_model = language.model(tmp_path / "other" / "small", seed=1)
    other_text = language.corpus(tmp_path / "other" / "wiki", 39)
    changes = {
        "sha256": {"model": str(other_model)},
        "corpora": {"text": (str(other_text),)},
        "seed": {"seed": 1},
        "mask_probability": {"mask_probability": 0.3},
        "length": {"length": 12},
        "labels": {"labels": "model"},
        "batch_size": {"batch_size": 2},
    }
    for what, change in changes.items():
        with pytest.raises(ValueError, match=f"another computation: {what} is .* another --out"):
            estimate(replace(first, n=8, **change), progress=False)
    (tmp_path / "out/partial.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="corrupt or truncated"):
        estimate(first, progress=False)


def test_labels_of_the_true_fisher_information_are_drawn_from_the_model(small, text):
    model, tokenizer, _ = load_language_model(str(small))
    batch = Corruption("masked", tokenizer, 0.5)([sequence for sequence in windows([text], tokenizer, 6, 16)], 0)
    drawn = drawn_labels(model, batch, seed=0, first=0)
    assert torch.equal(drawn == -100, batch["labels"] == -100)
    assert not torch.equal(drawn, batch["labels"])
    part = {key: value[2:] for key, value in batch.items()}
    assert torch.equal(drawn_labels(model, part, seed=0, first=2), drawn[2:]), "of (seed, number) alone"
    with torch.no_grad():  # a model that is sure of one token
        model.cls.predictions.bias[9] = 1e4
    sure = drawn_labels(model, batch, seed=0, first=0)
    assert (sure[sure != -100] == 9).all()


def test_drawn_labels_have_the_variance_that_the_true_fisher_information_is(small, text, tmp_path):
    r"""Of the output bias: E g_v^2 = sum_k p_kv (1 - p_kv) / m^2 over the m masked places k."""
    model, tokenizer, _ = load_language_model(str(small))
    batch = Corruption("masked", tokenizer, 0.3)(windows([text], tokenizer, 1, 32), 0)
    asked = batch["labels"][0] != -100
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[0, asked]
    p, m = logits.double().softmax(-1), int(asked.sum())
    squares = torch.zeros(p.shape[1], dtype=torch.float64)
    draws = 400
    for seed in range(draws):
        drawn = drawn_labels(model, batch, seed, 0)[0, asked]
        gradient = (p - torch.nn.functional.one_hot(drawn, p.shape[1])).mean(0)
        squares += gradient**2 / draws
    expected = (p * (1 - p)).sum(0) / m**2
    assert squares.sum().item() == pytest.approx(expected.sum().item(), rel=0.05)
    estimate(config(small, text, tmp_path, labels="model"), progress=False)
    assert FisherTable.load(tmp_path / "table.json").provenance["labels"] == "model"


@pytest.mark.parametrize(
    ("fields", "what"),
    [({"n": 0}, "at least 1"), ({"labels": "drawn"}, "unknown labels"), ({"dtype": "float16"}, "bfloat16")],
)
def test_what_cannot_be_is_refused(fields, what, tmp_path):
    with pytest.raises(ValueError, match=what):
        config("klnorm-nano", "text", tmp_path, **fields)


def test_a_tokenizer_without_padding_will_do(text, tmp_path):
    folder = language.model(tmp_path / "gpt", "causal")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    told = estimate(config(folder, text, tmp_path / "out", n=3), progress=False)
    assert told["sequences"] == 3
