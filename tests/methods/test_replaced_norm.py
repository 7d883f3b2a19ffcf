"""KL-Norm inside encoders of other families: the same function at the start, or a refusal that says why."""

import pytest
import torch
import transformers as T
from torch import nn

from klnorm_lib import VIB, KLNorm, RDrop, apply
from klnorm_lib.methods.replaced_norm import measure_norm
from klnorm_lib.sites import classifier_path, encoder_of

SIZE = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "pad_token_id": 0,
}  # fmt: skip
GROUPED = SIZE | {"num_key_value_heads": 2}
IDS = torch.arange(1, 25).view(2, 12)

SAME = {
    "gemma": lambda: T.GemmaForSequenceClassification(T.GemmaConfig(**GROUPED, head_dim=8)),
    "gemma2": lambda: T.Gemma2ForSequenceClassification(T.Gemma2Config(**GROUPED, head_dim=8)),
    "gemma3": lambda: T.Gemma3ForCausalLM(T.Gemma3TextConfig(**GROUPED, head_dim=8)),
    "cohere": lambda: T.CohereForCausalLM(T.CohereConfig(**GROUPED)),
    "llama": lambda: T.LlamaForSequenceClassification(T.LlamaConfig(**GROUPED)),
    "squeezebert": lambda: T.SqueezeBertForSequenceClassification(T.SqueezeBertConfig(**SIZE, embedding_size=32)),
    "mpt": lambda: T.MptForSequenceClassification(  # its constructor takes the bias of its norms away
        T.MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=60, expansion_ratio=2, pad_token_id=0)
    ),
    "mamba": lambda: T.MambaForCausalLM(
        T.MambaConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, state_size=4)
    ),
    "t5": lambda: T.T5ForSequenceClassification(
        T.T5Config(
            vocab_size=60,
            d_model=32,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            d_kv=8,
            eos_token_id=24,
            decoder_start_token_id=0,
        )
    ),
}
LAST = torch.cat([IDS[:, :-1], torch.full((2, 1), 24)], 1)


def moved(model, batch):
    """Give norms a scale of their own, so that a wrong reading of it shows."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    model.eval()
    with torch.no_grad():
        before = model(**batch).logits
        state = torch.get_rng_state()
        report = apply(model, KLNorm(placement="internal", form="B"))
        assert torch.equal(torch.get_rng_state(), state)
        after = model.eval()(**batch).logits
    assert report.changed
    return before, after


@pytest.mark.parametrize("name", SAME)
def test_form_b_starts_as_the_same_function(name):
    before, after = moved(SAME[name](), {"input_ids": LAST})
    assert before.std() > 1e-4
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [8, 16])
def test_channels_first_images(width):
    # with a width of 8 the first stage's images are as wide as they have channels
    config = T.ConvNextConfig(hidden_sizes=[width, 16], depths=[1, 1], num_stages=2, patch_size=4, image_size=32)
    model = T.ConvNextForImageClassification(config)
    before, after = moved(
        model, {"pixel_values": torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))}
    )
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


REFUSED = {
    "ibert": (lambda: T.IBertForSequenceClassification(T.IBertConfig(**SIZE, quant_mode=False)), "no normalisation"),
    "mobilebert": (
        lambda: T.MobileBertForSequenceClassification(T.MobileBertConfig(**SIZE, embedding_size=32)),
        "no normalisation",
    ),
}


class Squared(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x) ** 2


class Gated(nn.LayerNorm):
    def forward(self, x, gate):
        return super().forward(x) * gate


class Halved(nn.LayerNorm):
    def forward(self, x):
        return 0.5 * super().forward(x) + 3


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        return nn.functional.layer_norm(x, (8,), self.norm.weight)


class BertPassingBy(T.BertForSequenceClassification):
    def __init__(self, config):
        super().__init__(config)
        self.bert.embeddings.forward = self.embedded

    def embedded(self, input_ids, **kwargs):
        x, norm = self.bert.embeddings.word_embeddings(input_ids), self.bert.embeddings.LayerNorm
        return nn.functional.layer_norm(x, (32,), norm.weight)


def test_code_that_passes_a_layer_by_is_found_when_it_runs():
    model = BertPassingBy(T.BertConfig(**SIZE))
    apply(model, KLNorm(placement="internal"))
    with pytest.raises(RuntimeError, match="passes the KL-Norm layer in its place by"):
        model(IDS, labels=torch.tensor([0, 1]))


def test_norms_that_do_more_are_refused_with_the_reason():
    owner = nn.Module()
    with pytest.raises(ValueError, match="something else than a scale and a shift"):
        measure_norm(Squared(8), owner, "norm", 1e-5)
    with pytest.raises(ValueError, match="takes x, gate"):
        measure_norm(Gated(8), owner, "norm", 1e-5)
    reader = Reader()
    with pytest.raises(ValueError, match="Reader reads"):
        measure_norm(reader.norm, reader, "norm", 1e-5)


def test_a_scale_and_shift_that_no_parameter_shows_are_measured():
    found = measure_norm(Halved(8), nn.Module(), "norm", 1e-5)
    torch.testing.assert_close(found.gamma, torch.full((8,), 0.5))
    torch.testing.assert_close(found.bias, torch.full((8,), 3.0))


def test_a_norm_without_memory_is_measured_by_its_formula():
    found = measure_norm(T.models.gemma.modeling_gemma.GemmaRMSNorm(8).to("meta"), nn.Module(), "norm", 1e-5)
    assert (found.statistics, found.eps) == ("rms", 1e-6)


@pytest.mark.parametrize("name", ["ibert", "mobilebert"])
def test_refused_by_name(name):
    build, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason):
        apply(build(), KLNorm(placement="internal"))


@pytest.mark.parametrize("method", [KLNorm(), VIB(), RDrop(), KLNorm(placement="internal")], ids=str)
def test_whispers_audio_classifier(method):
    config = T.WhisperConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=8, max_source_positions=20, vocab_size=60,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, classifier_proj_size=16,
    )  # fmt: skip
    model = T.WhisperForAudioClassification(config)
    assert encoder_of(model) is model.encoder
    assert classifier_path(model) == "classifier"
    report = apply(model, method)
    model.train()
    output = model(input_features=torch.randn(2, 8, 40), labels=torch.tensor([0, 1]))
    output.loss.backward()
    assert report.changed
    assert output.loss.isfinite()
