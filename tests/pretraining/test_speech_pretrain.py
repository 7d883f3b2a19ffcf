"""Pretraining on speech: learns, resumes bit for bit, ships what fine-tuning needs, and refuses what it cannot use."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from klnorm_lib import encoders
from klnorm_lib.pretraining.speech import corpus as speech_corpus
from klnorm_lib.pretraining.speech import pretrain as module
from klnorm_lib.pretraining.speech.pretrain import SpeechPretrainConfig, pretrain
from tests.pretraining.speechless import Hummer, hum_flite

WORDS = ["nebula", "tomato", "kilo", "boat", "mist", "dune", "robin", "zebra", "violin", "postal"]


@pytest.fixture
def quiet_room(monkeypatch):
    """No synthesiser is needed or used."""
    monkeypatch.setattr(speech_corpus, "Espeak", Hummer)
    monkeypatch.setattr(speech_corpus, "flite", hum_flite)


@pytest.fixture
def corpus(tmp_path, quiet_room):
    rng = np.random.default_rng(0)
    for i in range(12):
        text = " ".join(f"The {' '.join(rng.choice(WORDS, 5))}." for _ in range(20))
        (tmp_path / f"document{i:02d}.txt").write_text(text)
    return tmp_path


def config(corpus, out, **fields):
    small = {
        "layers": 1, "hidden_size": 32, "heads": 2, "channels": 32, "projection": 16, "shards": 1, "shard_size": 60,
        "batch_size": 8, "steps": 12, "warmup_steps": 2, "checkpoint_steps": 4, "device": "cpu", "learning_rate": 3e-3,
    }  # fmt: skip
    return SpeechPretrainConfig(corpora=(str(corpus),), out=str(out), **small | fields)


def test_learns_and_loads_as_an_encoder(corpus, tmp_path):
    summary = pretrain(config(corpus, tmp_path / "out", steps=90), progress=False)
    assert summary["heldout_phoneme_accuracy"] > summary["heldout_phoneme_chance"] + 0.1
    assert summary["heldout_frame_accuracy"] > summary["heldout_frame_chance"]
    assert summary["audio_seconds_seen"] > 90 * 3 * 0.2
    assert summary == json.loads((tmp_path / "out" / "pretraining.json").read_text())
    assert str(tmp_path) not in json.dumps(summary)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert not any(name.startswith("classifier.") for name in weights)
    saved = json.loads((tmp_path / "out" / "config.json").read_text())
    assert saved["hidden_dropout"] == saved["attention_dropout"] == 0.1

    model, processor = encoders.load(str(tmp_path / "out"), 6)
    state = model.state_dict()
    missing = set(state) - set(weights)
    assert missing == {"classifier.weight", "classifier.bias"}, "all but the head is pretrained"
    assert all(torch.equal(state[name], tensor.float()) for name, tensor in weights.items())
    clips = [np.random.default_rng(i).normal(size=n).astype(np.float32) for i, n in enumerate((2400, 16_000))]
    inputs = processor(clips, sampling_rate=16_000, padding=True, return_tensors="pt")
    assert model.train()(**inputs).logits.shape == (2, 6)


def test_resume_is_exact(corpus, tmp_path, monkeypatch):
    pretrain(config(corpus, tmp_path / "whole"), progress=False)
    original, calls = module.Batches.batch, []

    def interrupted(self, step, scale):
        calls.append(step)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return original(self, step, scale)

    monkeypatch.setattr(module.Batches, "batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain(config(corpus, tmp_path / "cut"), progress=False)
    spoken = Hummer.calls
    summary = pretrain(config(corpus, tmp_path / "cut"), progress=False)
    assert calls[7] == 4, "resumes at the last checkpoint"
    assert Hummer.calls == spoken, "shards that exist are not spoken again"
    whole, cut = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "cut"))
    assert all(torch.equal(whole[k], cut[k]) for k in whole)
    reference = json.loads((tmp_path / "whole" / "pretraining.json").read_text())
    assert summary["audio_seconds_seen"] == reference["audio_seconds_seen"]


def test_refuses_what_it_cannot_use(corpus, tmp_path):
    out = tmp_path / "out"
    pretrain(config(corpus, out, steps=1), progress=False)
    with pytest.raises(ValueError, match="another configuration"):
        pretrain(config(corpus, out, steps=1, learning_rate=1e-4), progress=False)
    for name, match in (("checkpoint.pt", "checkpoint .* corrupt"), ("shard-000.npz", "shard .* corrupt")):
        kept = (out / name).read_bytes()
        (out / name).write_bytes(kept[:1000])
        with pytest.raises(ValueError, match=match):
            pretrain(config(corpus, out, steps=1), progress=False)
        (out / name).write_bytes(kept)
    weights = (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match="corrupt or truncated"):
        encoders.load(str(out), 2)


def test_diverging_run_stops(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(module.SpeechModel, "total", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(FloatingPointError, match="step 0"):
        pretrain(config(corpus, tmp_path / "out"), progress=False)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"heads": 3}, "heads"),
        ({"channels": 10}, "channels"),
        ({"steps": 0}, "steps"),
        ({"batch_size": 1}, "batch_size"),
        ({"word_fraction": 1.0}, "word_fraction"),
    ],
)
def test_bad_configuration(fields, match):
    with pytest.raises(ValueError, match=match):
        SpeechPretrainConfig(corpora=("x",), out="y", **fields)


def test_the_loss_follows_the_path_of_classification(corpus, tmp_path):
    """The pooled vector that is trained is what the classifier of transformers will be given."""
    settings = config(corpus, tmp_path / "out", steps=1)
    model = module.SpeechModel(module.encoder(settings), 5, {}, {}, {}).eval()
    sound = torch.randn(3, 12_000)
    lengths = torch.tensor([12_000, 8000, 4000])
    seen = []
    model.encoder.classifier.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    with torch.no_grad():
        model.encoder(sound, attention_mask=(torch.arange(12_000) < lengths[:, None]).long())
        _, pooled, _ = model.vectors(sound, lengths)
    assert torch.allclose(seen[0], pooled, atol=1e-5)


def test_batches_are_functions_of_the_step(corpus, tmp_path):
    settings = config(corpus, tmp_path / "out", steps=1)
    pretrain(settings, progress=False)
    files = [tmp_path / "out" / "shard-000.npz"]
    geometry = module.geometry(module.encoder(settings).config)
    assert geometry == (320, 1040)
    one, two = (module.Batches(files, settings, geometry) for _ in range(2))
    scale = one.calibrate(1)
    later = {step: two.batch(step, scale) for step in (3, 5, 2)}  # in another order
    for step in (5, 2, 3):
        a, b = one.batch(step, scale), later[step]
        assert torch.equal(a.sound, b.sound)
        assert torch.equal(a.frames, b.frames)
        assert torch.isfinite(a.sound).all()
        assert torch.isfinite(a.numbers["statistics"]).all()
    speech = a.frames[(a.frames > 0).any(1)]
    assert len(speech) > 4, "frames of speech have phonemes"
    assert not torch.equal(one.batch(0, scale).sound, one.batch(1, scale).sound)
    # Thirds of a word together hold what the word holds, silence apart.
    word = a.bag[a.bag[:, 1, 0] >= 0]
    assert len(word)
    assert torch.equal(word[:, 1:].amax(1)[:, 1:], word[:, 0, 1:])
