"""Pretraining: learns, resumes bit for bit, and refuses what it cannot use."""

import json
import lzma
import shutil
import tarfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from klnorm_lib import encoders
from klnorm_lib.encoders.corpora import documents
from klnorm_lib.pretraining.text import pretrain as module
from klnorm_lib.pretraining.text.pretrain import PretrainConfig, pretrain

SUBJECTS = ("the old fisherman", "a young teacher", "my neighbour", "the captain", "our doctor")
VERBS = ("repairs", "paints", "carries", "watches", "sells")
OBJECTS = ("a small wooden boat", "the red bicycle", "an empty basket", "two heavy chairs", "the garden gate")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    sentences = [f"{s} {v} {o} ." for s in SUBJECTS for v in VERBS for o in OBJECTS]
    blocks = []
    for i in range(400):
        body = " ".join(sentences[(7 * i + 11 * j) % len(sentences)] for j in range(8))
        blocks.append(f'<doc id="{i}">\n{body}\n</doc>\n')
    with lzma.open(folder / "wiki.txt.xz", "wt") as file:
        file.write("".join(blocks))
    return folder


def config(corpus, out, **fields):
    small = {
        "layers": 1, "hidden_size": 16, "heads": 2, "vocab_size": 120, "length": 16, "batch_size": 8, "steps": 12,
        "warmup_steps": 2, "checkpoint_steps": 4, "device": "cpu", "learning_rate": 1e-2,
    }  # fmt: skip
    return PretrainConfig(corpora=(str(corpus),), out=str(out), **small | fields)


def test_learns_and_loads_as_an_encoder(corpus, tmp_path):
    summary = pretrain(config(corpus, tmp_path, steps=60), progress=False)
    untrained = pretrain(config(corpus, tmp_path / "one", steps=1, warm_start=False), progress=False)
    assert summary["heldout_loss"] < untrained["heldout_loss"] - 0.5
    warm = pretrain(config(corpus, tmp_path / "warm", steps=1), progress=False)
    assert warm["heldout_loss"] < untrained["heldout_loss"], "the warm start knows word frequencies"
    assert summary["tokens_seen"] == 60 * 8 * 16
    assert load_file(tmp_path / "model.safetensors")["bert.embeddings.word_embeddings.weight"].dtype == torch.float16
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["hidden_dropout_prob"] == saved["attention_probs_dropout_prob"] == 0.1
    model, tokenizer = encoders.load(str(tmp_path), 2)
    pair = tokenizer("a young teacher", "sells the boat", return_tensors="pt")
    assert pair["token_type_ids"].max() == 1
    assert model(**pair).logits.shape == (1, 2)
    assert model.dtype == torch.float32


def test_resume_is_exact(corpus, tmp_path, monkeypatch):
    pretrain(config(corpus, tmp_path / "whole"), progress=False)
    # Ties between word pieces are broken at random by the tokenizer trainer, so both runs share one vocabulary.
    (tmp_path / "cut").mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "whole" / file, tmp_path / "cut" / file)
    original, calls = module._rows, []

    def interrupted(config, sequences, step):
        calls.append(step)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return original(config, sequences, step)

    monkeypatch.setattr(module, "_rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain(config(corpus, tmp_path / "cut"), progress=False)
    pretrain(config(corpus, tmp_path / "cut"), progress=False)
    assert calls[7] == 4, "resumes at the last checkpoint"
    whole, cut = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "cut"))
    assert all(torch.equal(whole[k], cut[k]) for k in whole)


def test_refuses_checkpoints_it_cannot_use(corpus, tmp_path):
    pretrain(config(corpus, tmp_path), progress=False)
    with pytest.raises(ValueError, match="another configuration"):
        pretrain(config(corpus, tmp_path, learning_rate=1e-3), progress=False)
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(ValueError, match="corrupt or truncated"):
        pretrain(config(corpus, tmp_path), progress=False)


def test_diverging_run_stops(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_masked_loss", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(FloatingPointError, match="step 0"):
        pretrain(config(corpus, tmp_path), progress=False)


@pytest.mark.parametrize("fields", [{"heads": 3}, {"mask_probability": 1.0}, {"steps": 0}, {"length": 4}])
def test_bad_configuration(fields):
    with pytest.raises(ValueError, match=r"heads|mask|steps"):
        PretrainConfig(corpora=("x",), out="y", **fields)


def test_masking_follows_bert(corpus, tmp_path):
    settings = config(corpus, tmp_path, steps=1)
    pretrain(settings, progress=False)
    tokenizer = module._tokenizer(settings, [], tmp_path)
    rows = torch.randint(5, len(tokenizer), (400, 64), generator=torch.Generator().manual_seed(0))
    rows[:, 0] = tokenizer.cls_token_id
    inputs, targets = module._mask(rows, tokenizer, settings, torch.Generator().manual_seed(1), "cpu")
    chosen = targets != -100
    assert not chosen[:, 0].any()
    assert torch.equal(inputs[~chosen], rows[~chosen])
    assert torch.equal(targets[chosen], rows[chosen])
    assert chosen.float().mean().item() == pytest.approx(0.15, abs=0.02)
    assert (inputs[chosen] == tokenizer.mask_token_id).float().mean().item() == pytest.approx(0.8, abs=0.03)


def test_corpora_formats(tmp_path):
    (tmp_path / "a.txt").write_text("plain text here")
    with lzma.open(tmp_path / "b.jsonl.xz", "wt") as file:
        file.write(json.dumps({"text": "&lt;b&gt;news&lt;/b&gt; of the day"}) + "\n")
    with tarfile.open(tmp_path / "c.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "a.txt", "novel.txt")
    assert list(documents([tmp_path], 1)) == ["plain text here", "news  of the day", "plain text here"]
    (tmp_path / "b.jsonl.xz").write_bytes((tmp_path / "b.jsonl.xz").read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"b\.jsonl\.xz is damaged"):
        list(documents([tmp_path], 1))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no .txt"):
        list(documents([tmp_path / "empty"]))


def test_words_in_the_same_places_get_like_vectors():
    from klnorm_lib.pretraining.text.cooccurrence import ppmi_vectors

    rng = np.random.default_rng(0)
    # Tokens 10 and 11 are interchangeable between 20..24; token 12 lives between 30..34.
    rows = []
    for _ in range(600):
        for word, low in ((rng.choice([10, 11]), 20), (12, 30)):
            rows.append([*rng.integers(low, low + 5, 3), word, *rng.integers(low, low + 5, 3)])
    vectors = ppmi_vectors(np.array(rows, np.uint16), 40, 8)
    assert vectors.shape == (40, 8)
    assert vectors.std() == pytest.approx(1.0, abs=1e-3)

    def cosine(a, b):
        return vectors[a] @ vectors[b] / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b])

    assert cosine(10, 11) > 0.9 > 0.5 > cosine(10, 12)
    with pytest.raises(ValueError, match="larger vocabulary"):
        ppmi_vectors(np.array(rows, np.uint16), 40, 40)
