"""Before the head of a decoder-only classifier one position of each example is penalised: the one it predicts from."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification

from klnorm_lib import KLNorm, NormHead, apply, auxiliary_loss
from klnorm_lib.methods.klnorm import KLNormLayer

PAD = 1
SMALL = {
    "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 32, "pad_token_id": PAD, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
OWN = {
    "gpt_neo": {"num_layers": 1, "num_heads": 2, "attention_types": [[["global"], 1]]},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": 16, "dropout": 0.0},
    "gemma": {"head_dim": 8},
}
DECODERS = ("gpt2", "llama", "qwen2", "mistral", "gemma", "phi", "opt", "gpt_neo", "gpt_neox", "bloom", "falcon")


def decoder(kind, auto=AutoModelForSequenceClassification):
    torch.manual_seed(0)
    return auto.from_config(AutoConfig.for_model(kind, num_labels=2, **SMALL | OWN.get(kind, {})))


def rows(side):
    """Two examples of 5 and 8 tokens, padded to 8."""
    ids = torch.randint(3, 60, (2, 8), generator=torch.Generator().manual_seed(1))
    real = torch.ones_like(ids)
    padding = slice(0, 3) if side == "left" else slice(5, 8)
    ids[0, padding], real[0, padding] = PAD, 0
    return ids, real, torch.tensor([7 if side == "left" else 4, 7])


def kl_of_all(model, **batch):
    """The KL of every position, (2, 8), of a layer that is no longer at its start."""
    (layer,) = (m for m in model.modules() if isinstance(m, KLNormLayer))
    generator = torch.Generator().manual_seed(2)
    for p in layer.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=generator)
    seen = []
    handle = layer.register_forward_hook(lambda m, x, y: seen.append(x[0].detach()))
    out = model(**batch)
    handle.remove()
    _, mean, std = layer._normalise(seen[0])
    return out, layer._kl(mean, std).detach()


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_only_the_classified_position_is_penalised(kind, side):
    model = decoder(kind)
    apply(model, KLNorm(beta=1.0))
    model.eval()
    ids, real, last = rows(side)
    for mask in ({"attention_mask": real}, {}):
        out, kl = kl_of_all(model, input_ids=ids, labels=torch.tensor([0, 1]), **mask)
        expected = kl[torch.arange(2), last].mean()
        torch.testing.assert_close(auxiliary_loss(model).as_subclass(torch.Tensor), expected)
        assert not torch.isclose(kl.mean(), expected, rtol=1e-3)


def test_of_a_head_that_is_still_zero_every_real_position_is_penalised():
    model = decoder("gpt2")
    torch.nn.init.zeros_(model.score.weight)
    apply(model, KLNorm(beta=1.0))
    model.eval()
    ids, real, _ = rows("left")
    _, kl = kl_of_all(model, input_ids=ids, attention_mask=real)
    expected = ((kl * real).sum(1) / real.sum(1)).mean()
    torch.testing.assert_close(auxiliary_loss(model).as_subclass(torch.Tensor), expected)


def test_embeddings_are_classified_at_their_last_position():
    model = decoder("llama")
    apply(model, KLNorm(beta=1.0))
    model.eval()
    _, kl = kl_of_all(model, inputs_embeds=torch.randn(2, 8, 16))
    torch.testing.assert_close(auxiliary_loss(model).as_subclass(torch.Tensor), kl[:, -1].mean())


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_every_real_token_is_penalised_where_tokens_are_classified(kind):
    model = decoder(kind, AutoModelForTokenClassification)
    apply(model, KLNorm(beta=1.0))
    model.eval()
    ids, real, _ = rows("right")
    _, kl = kl_of_all(model, input_ids=ids, attention_mask=real)
    expected = ((kl * real).sum(1) / real.sum(1)).mean()
    torch.testing.assert_close(auxiliary_loss(model).as_subclass(torch.Tensor), expected)


@pytest.mark.parametrize("method", [KLNorm(statistics="batch"), NormHead(kind="batch")], ids=lambda m: m.name)
@pytest.mark.parametrize(
    ("kind", "auto"), [("bert", AutoModelForTokenClassification), ("gpt2", AutoModelForSequenceClassification)]
)
def test_batch_statistics_over_positions_are_refused_since_padding_would_count(method, kind, auto):
    model = decoder(kind, auto)
    apply(model, method)
    ids, real, _ = rows("right")
    with pytest.raises(ValueError, match="one vector an example"):
        model.train()(input_ids=ids, attention_mask=real)


def test_one_position_is_penalised_where_half_precision_gives_several_the_same_score():
    settings = {"num_labels": 1, "n_positions": 512, "n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 100}
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("gpt2", **settings, pad_token_id=PAD))
    apply(model, KLNorm(beta=1.0))
    (layer,) = (m for m in model.modules() if isinstance(m, KLNormLayer))
    ids = torch.randint(3, 100, (8, 512))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.zeros(8))
    assert layer._classified.sum(1).tolist() == [1] * 8


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_a_compiled_model_takes_a_mask(kind):
    model = decoder(kind)
    apply(model, KLNorm(beta=1.0))
    model.eval()
    ids, real, _ = rows("right")
    inputs = {"input_ids": ids, "attention_mask": real, "labels": torch.tensor([0, 1])}
    expected = model(**inputs).loss
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, backend="eager")(**inputs).loss, expected)
