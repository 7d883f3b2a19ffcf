"""SpecAugment in a run: measured, said, and turned off on request."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
)

from klnorm_lib import study
from klnorm_lib.study import audio_masking
from klnorm_lib.tasks import audio_cache
from tests import zoo
from tests.study import hearing, small


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv(audio_cache.VARIABLE, str(tmp_path_factory.getbasetemp() / "audio-cache"))


@pytest.fixture(autouse=True)
def same_spans():
    """SpecAugment draws its spans from numpy's global generator, which other tests leave anywhere."""
    before = np.random.get_state()
    np.random.seed(0)
    yield
    np.random.set_state(before)


SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def stock(**config):
    """A model with the front end and the masking of a stock configuration, 49 frames a second."""
    return Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**SMALL, conv_dim=(8,) * 7, **config)).eval()


def rows(seconds, count=200):
    waves = np.random.default_rng(0).normal(size=(count, round(16000 * seconds))).astype(np.float32)
    return Dataset.from_dict({"input_values": list(waves)}).with_format("numpy")


COLLATOR = DataCollatorWithPadding(Wav2Vec2FeatureExtractor(return_attention_mask=True))


@pytest.mark.parametrize(("seconds", "share"), [(0.5, 0.63), (1.0, 0.37)])
def test_stock_settings_hide_much_of_a_short_clip(seconds, share):
    with pytest.warns(
        UserWarning, match=rf"SpecAugment hides {int(100 * share) // 10}\d% .*2 spans of 10 frames or more"
    ):
        assert audio_masking.check(stock(), rows(seconds), COLLATOR, 8) == pytest.approx(share, abs=0.03)


def test_long_clips_and_models_without_it_are_not_warned_of(recwarn):
    assert 0.03 < audio_masking.check(stock(), rows(10, 16), COLLATOR, 8) < 0.08
    assert audio_masking.check(stock(apply_spec_augment=False), rows(1), COLLATOR, 8) == 0
    assert audio_masking.check(stock(mask_time_prob=0.0), rows(1), COLLATOR, 8) == 0
    assert not [w for w in recwarn if "SpecAugment" in str(w.message)]


NAMES = [name for name in zoo.NAMES if name not in zoo.TEXT]


@pytest.mark.parametrize(
    ("name", "features"),
    # over features WavLM cannot mask: its configuration lacks a number that its own code reads
    [(name, features) for name in NAMES for features in (0.0, 0.2) if (name, features) != ("wavlm", 0.2)],
)
def test_the_share_is_that_of_the_forward_pass(name, features):
    """Against a count of the frames that the encoder replaced in a training forward of its own."""
    span = {"mask_time_prob": 0.2, "mask_time_length": 2, "mask_feature_prob": features, "mask_feature_length": 2}
    model = zoo.build(name, apply_spec_augment=True, mask_time_min_masks=1, **span)
    base, seen = model.base_model, []
    waves = [np.random.default_rng(i).normal(size=zoo.SAMPLES - 300 * i).astype(np.float32) for i in range(4)]
    data = Dataset.from_dict({"input_values": waves}).with_format("numpy")
    own = base._mask_hidden_states

    def watched(hidden, mask_time_indices=None, attention_mask=None):
        before = hidden.clone()
        after = own(hidden, mask_time_indices=mask_time_indices, attention_mask=attention_mask)
        seen.append((before != after).all(-1))
        return after

    np.random.seed(0)
    share = audio_masking.masked_share(base, data, COLLATOR, 4)
    state = np.random.get_state()[1].tolist()
    np.random.seed(0)
    assert state == np.random.get_state()[1].tolist()  # the measurement drew nothing
    base._mask_hidden_states = watched
    with torch.no_grad():
        base.training = True
        batch = COLLATOR([dict(row) for row in data])
        model(**batch)
    real = base._get_feature_vector_attention_mask(seen[0].shape[1], batch["attention_mask"]).bool()
    assert share == pytest.approx(float((seen[0] & real).sum() / real.sum()), abs=1e-6)
    assert share > 0


@pytest.fixture(scope="module")
def masking(tmp_path_factory):
    folder = hearing.encoder(tmp_path_factory.mktemp("masking") / "masks")
    zoo.build(
        "wav2vec2", kind="encoder", feat_extract_norm="layer", apply_spec_augment=True, mask_time_prob=0.05,
        mask_time_length=10,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_a_run_says_what_is_hidden_and_can_do_without(masking, tmp_path, capsys):
    data = hearing.table(tmp_path / "clips", rows=24)
    with pytest.warns(UserWarning, match=r"SpecAugment hides \d\d% of the training clips' frames"):
        hidden = study.run(hearing.run(masking, data, steps=2))
    assert hidden.encoder["masked_share"] > 0.2
    assert "--no-spec-augment turns it off" in capsys.readouterr().err
    assert "spec_augment" not in hidden.run
    bare = study.run(hearing.run(masking, data, steps=2, spec_augment=False), progress=False)
    assert "masked_share" not in bare.encoder
    assert bare.run["spec_augment"] is False
    assert "--no-spec-augment" in bare.command
    assert bare.hash != hidden.hash


def test_clips_shorter_than_a_span_are_refused_before_training(tmp_path):
    folder = hearing.encoder(tmp_path / "masks")
    zoo.build(
        "wav2vec2", kind="encoder", feat_extract_norm="layer", apply_spec_augment=True, mask_time_prob=0.05,
        mask_time_length=200,
    ).save_pretrained(folder)  # fmt: skip
    data = hearing.table(tmp_path / "clips", rows=24)
    with pytest.raises(
        study.StudyError, match=r"of \d+ training clips have fewer than the 200 frames .*spec_augment=False"
    ):
        study.run(hearing.run(folder, data), progress=False)
    assert study.run(hearing.run(folder, data, steps=2, spec_augment=False), progress=False).status == "finished"


def test_texts_have_no_masking_to_turn_off(encoder, reviews):
    with pytest.raises(ValueError, match="spec_augment=False is about recordings, and 'reviews' is a text task"):
        study.run(small.run(encoder, reviews, spec_augment=False), progress=False)
    with pytest.raises(ValueError, match="spec_augment must be True or False"):
        small.run(encoder, reviews, spec_augment=None)
