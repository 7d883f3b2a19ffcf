"""Guided dropout on a fixed sample of architectures, measured where torch draws its masks."""

import pytest
import torch
from torch.nn import functional as F

from klnorm_lib import Dropout, apply
from tests.matrix import architectures, dropouts

SAMPLE = (
    "text/albert", "text/deberta-v2", "text/distilbert", "text/gpt2", "text/llama", "text/modernbert", "text/opt",
    "text/xlm", "text/canine", "text/funnel", "text/gemma3", "text/ibert", "text/lilt", "text/mobilebert", "text/xlnet",
    "audio/wav2vec2", "audio/wav2vec2-conformer", "audio/sew-d", "audio/whisper", "image/beit", "image/dinov2",
    "image/swin",
)  # fmt: skip


@pytest.mark.parametrize("name", SAMPLE)
def test_every_mask_has_the_rate_of_its_site(name):
    assert dropouts.guided(name) >= 2


# Their code passes a rate of the config, or none, to the operation, or changes itself for short texts.
REFUSED = {
    "text/falcon": "dropout did not take at .*: 0 runs in h.0.* often the config",
    "text/persimmon": "dropout did not take at .*layer.0.attention_probs: 0 runs in layers.0.self_attn",
    "text/big_bird": 'load it with attention_type="original_full"',
    "text/bigbird_pegasus": 'load it with attention_type="original_full"',
    "text/diffllama": r"no known dropout site in DiffLlamaModel.*add_missing=True\) puts some",
    "image/resnet": "no known dropout site in ResNetModel; .* none was found",
}


def numbers(model):
    plain = (int, float, str)
    return [(type(m), {k: v for k, v in vars(m).items() if isinstance(v, plain)}) for m in model.modules()]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_set_is_refused_by_name_and_left_as_it_was(name):
    model = architectures.build(name)
    before = [
        (type(m), {k: v for k, v in vars(m).items() if isinstance(v, (int, float, str))}) for m in model.modules()
    ]
    with pytest.raises((ValueError, RuntimeError), match=f"(?s){REFUSED[name]}"):
        apply(model, Dropout(p=0.3))
    assert numbers(model) == before


def test_full_attention_of_big_bird_is_measured():
    config = architectures.config("text/big_bird")
    config.attention_type = "original_full"
    model = architectures.auto_class("text/big_bird").from_config(config)
    wanted = dropouts.ask(model)
    assert sum(site.endswith("attention_probs") for site in wanted) == config.num_hidden_layers
    assert dropouts.measured_rates(model, architectures.batch("text/big_bird", model, rows=dropouts.ROWS)) == wanted


def test_block_sparse_attention_of_big_bird_is_measured_and_stays():
    config = architectures.config("text/big_bird")
    config.max_position_embeddings, config.block_size, config.num_random_blocks = 200, 16, 2
    model = architectures.auto_class("text/big_bird").from_config(config)
    with pytest.warns(UserWarning, match="changes to full attention for good at the first batch of up to 144 tokens"):
        wanted = dropouts.ask(model)
    assert not any(site.endswith("attention_probs") for site in wanted)
    assert model.bert.attention_type == "block_sparse"
    batch = {"input_ids": torch.randint(5, 60, (2, 192))}
    assert dropouts.measured_rates(model, batch) == wanted


def test_a_draw_that_is_no_sites_and_a_site_that_does_not_run_are_findings():
    model = architectures.build("text/bert")
    wanted = dropouts.ask(model)
    model.bert.encoder.layer[0].intermediate.register_forward_hook(lambda m, args, out: F.dropout(out, 0.7))
    model.bert.encoder.layer[1].output.dropout.forward = lambda x: x
    seen = dropouts.measured_rates(model, architectures.batch("text/bert", model, rows=dropouts.ROWS))
    extra = {f"{dropouts.OUTSIDE}encoder.layer.0.intermediate": 0.7}
    assert seen == {k: p for k, p in wanted.items() if k != "layer.1.ffn_output"} | extra


def test_a_second_rate_at_one_site_is_a_finding():
    model = architectures.build("text/bert")
    wanted = dropouts.ask(model)
    model.bert.encoder.layer[0].output.dropout.register_forward_hook(lambda m, args, out: F.dropout(out, 0.7))
    seen = dropouts.measured_rates(model, architectures.batch("text/bert", model, rows=dropouts.ROWS))
    assert seen == wanted | {"layer.0.ffn_output again at 0.7": 0.7}
