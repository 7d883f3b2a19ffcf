"""Which frames of a layer are real: those that have read real samples only, layer by layer."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from klnorm_lib.sites.positions import real_positions
from tests import zoo

LENGTHS = (2_000, 1_999, 1_321, 777, 130, 45)


def samples(lengths=LENGTHS, total=LENGTHS[0]):
    return (torch.arange(total) < torch.tensor(lengths)[:, None]).long()


def test_frames_of_every_convolution_that_read_no_padding():
    model = zoo.build("wav2vec2-layer", kind="encoder")
    inputs = []
    for layer in model.feature_extractor.conv_layers:
        layer.conv.register_forward_hook(lambda m, args, out: inputs.append(out))
    mask = samples()
    # A frame that reads one padded sample becomes NaN, and so do those that read it.
    model.feature_extractor(torch.where(mask.bool(), torch.randn(mask.shape), torch.nan))
    assert len(inputs) == 3
    for frames in inputs:
        clean = frames.isfinite().all(1)
        assert torch.equal(real_positions(model.config, mask, frames.shape[-1]), clean)


@pytest.mark.parametrize("name", zoo.AUDIO)
def test_frames_of_the_encoder_are_those_it_attends_to(name):
    model = zoo.build(name, kind="encoder")
    mask = samples()
    length = int(model._get_feat_extract_output_lengths(torch.tensor(mask.shape[1])))
    expected = model._get_feature_vector_attention_mask(length, mask).bool()
    assert torch.equal(real_positions(model.config, mask, length), expected)


def test_frames_that_sew_has_joined():
    model = zoo.build("sew", kind="encoder", squeeze_factor=3)
    mask, lengths = samples(), []
    model.encoder.layers[0].register_forward_pre_hook(lambda m, args: lengths.append(args[0].shape[1]))
    model(torch.randn(mask.shape) * mask, attention_mask=mask)
    long = model._get_feature_vector_attention_mask(50, mask).float()
    joined = F.max_pool1d(long[:, None], 3, 3)[:, 0].bool()
    assert lengths == [joined.shape[1]]
    assert torch.equal(real_positions(model.config, mask, lengths[0]), joined)


def test_text_keeps_its_mask_and_no_mask_means_no_padding():
    config = zoo.build("bert").config
    mask = samples((16, 9), 16)
    assert torch.equal(real_positions(config, mask, 16), mask.bool())
    assert real_positions(config, None, 16) is None
    assert real_positions(config, torch.ones(2, 1, 4, 4), 4) is None


def test_another_encoder_that_shortens_its_input_keeps_the_share():
    mask = samples((100, 50, 1), 100)
    assert real_positions(SimpleNamespace(), mask, 10).sum(1).tolist() == [10, 5, 1]


def test_a_recording_shorter_than_a_frame_keeps_one():
    config = zoo.build("wav2vec2").config
    assert real_positions(config, samples((2_000, 3)), 50).sum(1).tolist() == [50, 1]
