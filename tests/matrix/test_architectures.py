"""The builder of small classifiers: by rule, seeded, and runnable with its own batch."""

import pytest
import torch

from tests.matrix import architectures

SAMPLE = (
    "text/bert",
    "text/deberta-v2",
    "text/gpt2",
    "text/llama",
    "text/modernbert",
    "audio/audio-spectrogram-transformer",
    "audio/wav2vec2",
    "audio/whisper",
    "image/beit",
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


def test_a_size_that_the_rule_does_not_reach_is_named():
    with pytest.raises(ValueError, match="_OVERRIDES"):
        architectures.build("text/luke")
