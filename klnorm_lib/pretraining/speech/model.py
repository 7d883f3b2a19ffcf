"""The architecture of the speech encoder we pretrain, and how it is saved."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch

from klnorm_lib.pretraining.dtype import declare_float32
from klnorm_lib.pretraining.speech.augment import RATE
from klnorm_lib.pretraining.speech.filterbank import envelopes, warm_start


def encoder(config):
    """``Wav2Vec2ForSequenceClassification`` as ``SpeechPretrainConfig`` wants it, drawn from its seed.

    Three convolutions (20 ms windows every 5 ms, then twice half as often) give 50 frames a second; the first starts
    as a filterbank and is not trained here.
    """
    from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

    torch.manual_seed(config.seed)
    network = Wav2Vec2ForSequenceClassification(
        Wav2Vec2Config(
            vocab_size=32,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=4 * config.hidden_size,
            conv_dim=(config.channels,) * 3,
            conv_kernel=(320, 4, 4),
            conv_stride=(80, 2, 2),
            conv_bias=True,
            feat_extract_norm="layer",
            num_conv_pos_embeddings=32,
            num_conv_pos_embedding_groups=16,
            do_stable_layer_norm=True,
            apply_spec_augment=False,  # its masks need clips longer than a spoken digit
            mask_time_prob=0.0,
            mask_feature_prob=0.0,
            layerdrop=0.0,
            hidden_dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
            feat_proj_dropout=0.0,
            final_dropout=0.0,
            use_weighted_layer_sum=True,
            classifier_proj_size=config.projection,
        )
    )
    extractor = network.wav2vec2.feature_extractor
    first, second = (layer.conv for layer in extractor.conv_layers[:2])
    envelopes(second, warm_start(first))
    first.requires_grad_(False)
    extractor._requires_grad = False  # else transformers asks for the gradient of the sound itself
    network.set_attn_implementation("eager")  # on a CPU faster than the fused kernels at such lengths
    return network


def geometry(settings) -> tuple[int, int]:
    """``(samples between frames, samples a frame sees)`` of the convolutions of a Wav2Vec2 configuration."""
    hop, field = 1, 1
    for kernel, stride in zip(settings.conv_kernel, settings.conv_stride, strict=True):
        field += (kernel - 1) * hop
        hop *= stride
    return hop, field


def export(network, out: Path) -> None:
    """Write encoder and projector as float16 safetensors, without a classifier, with the dropout of fine-tuning."""
    from transformers import Wav2Vec2FeatureExtractor

    network = copy.deepcopy(network).to("cpu", torch.float16)
    network.config.hidden_dropout = network.config.attention_dropout = 0.1
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("classifier.")}
    network.save_pretrained(out, state_dict=state)
    declare_float32(out)
    Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=True, return_attention_mask=True).save_pretrained(out)
    for file in ("config.json", "preprocessor_config.json"):
        text = json.dumps(json.loads((out / file).read_text()), indent=2, sort_keys=True)
        (out / file).write_text(text + "\n")
