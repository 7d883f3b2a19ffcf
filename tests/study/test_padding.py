"""What padding does to a row's outputs: found by measurement, and then kept out of the evaluation."""

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from transformers import AutoFeatureExtractor, DataCollatorWithPadding

from klnorm_lib import study, tasks
from klnorm_lib.study import evaluation, features, padding
from klnorm_lib.tasks import audio_cache
from tests import zoo
from tests.study import hearing


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv(audio_cache.VARIABLE, str(tmp_path_factory.getbasetemp() / "audio-cache"))


SIZE = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "pad_token_id": 0}
READERS = {
    "bert": lambda: transformers.BertConfig(**SIZE, num_attention_heads=2),
    "deberta-v2": lambda: transformers.DebertaV2Config(
        **SIZE, num_attention_heads=2, relative_attention=True, pos_att_type=["p2c", "c2p"], max_position_embeddings=64
    ),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=90, n_embd=32, n_layer=2, n_head=2, pad_token_id=0),
    "fnet": lambda: transformers.FNetConfig(**SIZE),
    "xlnet": lambda: transformers.XLNetConfig(
        vocab_size=90, d_model=32, n_layer=2, n_head=2, d_inner=64, pad_token_id=0
    ),
}
DEPEND = {"fnet", "xlnet"}


def reader(name):
    torch.manual_seed(0)
    return transformers.AutoModelForSequenceClassification.from_config(READERS[name]()).eval()


class Pads:
    """Pads token ids on the right, with an attention mask where the model has one."""

    def __init__(self, model):
        self.masked = model.config.model_type != "fnet"

    def __call__(self, rows):
        longest = max(len(row["input_ids"]) for row in rows)
        ids = [[*row["input_ids"], *[0] * (longest - len(row["input_ids"]))] for row in rows]
        mask = [[int(at < len(row["input_ids"])) for at in range(longest)] for row in rows]
        return {"input_ids": torch.tensor(ids), **({"attention_mask": torch.tensor(mask)} if self.masked else {})}


def texts(rows=12):
    random = np.random.default_rng(0)
    return Dataset.from_dict({"input_ids": [random.integers(5, 90, 4 + 3 * (i % 5)).tolist() for i in range(rows)]})


@pytest.mark.parametrize("name", READERS)
def test_texts_have_the_same_logits_in_any_company(name, monkeypatch, recwarn):
    model = reader(name)
    together = evaluation.predict(model, texts(), Pads(model))
    said = [str(w.message) for w in recwarn if "depend on padding" in str(w.message)]
    assert bool(said) == (name in DEPEND) == (padding.of_model(model, None, [], np.array([])) > 0)
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 1)
    alone = evaluation.predict(model, texts(), Pads(model))
    np.testing.assert_allclose(together, alone, atol=1e-6)


def speech(name, norm):
    return zoo.build(name, feat_extract_norm=norm)


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("name", ["wav2vec2", "wavlm", "hubert", "sew", "data2vec-audio"])
def test_clips_have_the_same_logits_in_any_company(name, norm, mask, monkeypatch, tmp_path):
    model = speech(name, norm)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=mask)
    random = np.random.default_rng(0)
    waves = [random.normal(size=1600 + 410 * (i % 7)).astype(np.float32) for i in range(8)]
    rows = Dataset.from_dict({"input_values": waves}).with_format("numpy")
    together = evaluation.predict(model, rows, DataCollatorWithPadding(extractor))
    found = padding.of_model(model, None, [], np.array([]))
    invariant = norm == "layer" and mask and name in ("wav2vec2", "wavlm", "hubert")
    assert (found == 0) == invariant
    assert found == 0 or found > 0.01
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 1)
    alone = evaluation.predict(model, rows, DataCollatorWithPadding(extractor))
    np.testing.assert_allclose(together, alone, atol=1e-3 * np.abs(alone).max())


def test_equal_lengths_are_not_measured():
    model = reader("bert")
    padding.of_model(model, lambda rows: pytest.fail("measured"), [1, 2], np.array([4, 4]))


def test_a_run_names_an_encoder_that_depends_on_padding(tmp_path):
    data = hearing.table(tmp_path / "clips", rows=24)
    with pytest.warns(UserWarning, match=r"Wav2Vec2ForSequenceClassification depend on padding .* rows of one length"):
        group = study.run(hearing.run(hearing.encoder(tmp_path / "group", "group"), data, steps=2), progress=False)
    assert 0.001 < group.encoder["padding_effect"] < 2
    layer = study.run(hearing.run(hearing.encoder(tmp_path / "layer"), data, steps=2), progress=False)
    assert "padding_effect" not in layer.encoder


def test_frozen_features_do_not_depend_on_company(encoder, monkeypatch):
    processor = transformers.AutoTokenizer.from_pretrained(encoder)
    torch.manual_seed(0)
    model = transformers.FNetModel(transformers.FNetConfig(**{**SIZE, "vocab_size": len(processor)})).eval()

    class Unmasked(torch.nn.Module):
        config = model.config

        def forward(self, attention_mask=None, **inputs):
            return model(**inputs)

    wordy = ["great film", "a long and a dull film that goes on", "film", "a great story and a dull film"] * 3
    unmasked = Unmasked()
    with pytest.warns(UserWarning, match="depend on padding"):
        together = features._texts(unmasked, processor, wordy, 64, "cpu")
    one_by_one = np.concatenate([features._texts(unmasked, processor, [text], 64, "cpu") for text in wordy])
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)


@pytest.mark.parametrize("mask", [True, False])
def test_a_clip_is_normalised_over_its_own_samples(tmp_path, mask):
    """The stock extractor divides by the deviation of the padded row unless it returns a mask."""
    processor = AutoFeatureExtractor.from_pretrained(hearing.encoder(tmp_path / "hears", return_attention_mask=mask))
    split = tasks.from_file(hearing.table(tmp_path / "clips"), audio="path", label="verdict")[0]["train"]
    batch = DataCollatorWithPadding(processor)([dict(row) for row in study.prepare_audio(split, processor)])
    lengths = [len(wave) for wave in split["audio"]]
    assert min(lengths) < max(lengths)
    for row, length in zip(batch["input_values"], lengths, strict=True):
        assert abs(float(row[:length].std(correction=0)) - 1) < 1e-3
        assert not row[length:].any()
