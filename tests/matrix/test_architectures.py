"""The builder of small classifiers: by rule, seeded, and runnable with its own batch."""

import pytest
import torch

from tests.matrix import architectures, sizes

SAMPLE = (
    "text/bart",
    "text/bert",
    "text/deepseek_v3",
    "text/deberta-v2",
    "text/gpt2",
    "text/llama",
    "text/modernbert",
    "audio/audio-spectrogram-transformer",
    "audio/wav2vec2",
    "audio/whisper",
    "image/beit",
    "image/convnext",
    "image/siglip2",
    "image/swin",
    "image/vit",
)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_small_model_trains_on_its_batch(name):
    first, second = architectures.build(name), architectures.build(name)
    for key, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[key]), key
    inputs = architectures.batch(name, first, pads=4)
    output = first(**inputs)
    assert output.logits.shape == (3, architectures.LABELS)
    output.loss.backward()
    assert output.loss.isfinite()


def test_a_size_that_the_rule_does_not_reach_is_named(monkeypatch):
    monkeypatch.setattr(architectures, "MAX_PARAMETERS", 1000)
    with pytest.raises(ValueError, match=r"text/luke: [\d,]+ parameters; name its sizes"):
        architectures.build("text/luke")


def test_sizes_are_of_model_types_that_exist():
    known = {*architectures.names(), *architectures.language_models()}
    assert not {*sizes.OVERRIDES, *sizes.NO_CLASSIFIERS} - known


def test_configurations_inside_others_are_small_too():
    small = architectures.config("text/gemma3")
    assert small.text_config.hidden_size == small.vision_config.hidden_size == sizes.WIDTH
    assert small.text_config.pad_token_id == sizes.PAD
