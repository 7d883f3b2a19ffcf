"""A text padded on the left: the same outputs with position ids, and a warning where the model needs them."""

import warnings

import pytest
import torch
import transformers
from torch.nn import functional as F

from klnorm_lib import KLNorm, apply
from tests import zoo

SIZE = {
    "vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 64, "pad_token_id": 0, "eos_token_id": 3, "bos_token_id": 2, "num_labels": 3,
}  # fmt: skip
OWN = {
    "gpt_neo": {"attention_types": [[["global"], 2]]},
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 64},
    "xlnet": {"max_position_embeddings": None, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
    "llama": {"num_key_value_heads": 2},
}


def model_of(kind, head="classifier"):
    settings = {k: v for k, v in {**SIZE, **OWN.get(kind, {})}.items() if v is not None}
    config = transformers.AutoConfig.for_model(kind, **settings)
    classes = {
        "classifier": transformers.AutoModelForSequenceClassification,
        "tokens": transformers.AutoModelForTokenClassification,
        "words": transformers.AutoModelForCausalLM,
        "bare": transformers.AutoModel,
    }
    torch.manual_seed(0)
    model = classes[head].from_config(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(5)
    return model


def padded(left=6):
    ids = torch.randint(5, 100, (3, 10), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :2] = 0 if left else 1
    ids = ids.masked_fill(mask == 0, 0)
    return {"input_ids": F.pad(ids, (left, 6 - left)), "attention_mask": F.pad(mask, (left, 6 - left))}


def heard(model, **inputs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model(**inputs)
    return [str(w.message) for w in caught if "padding on the left" in str(w.message)]


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("gpt2", "position_ids"),
        ("gpt_neo", "position_ids"),
        ("bert", "Pad on the right"),
        ("roberta", "Pad on the right"),
        ("opt", None),
        ("llama", None),
        ("xlnet", None),
    ],
)
def test_a_model_that_needs_positions_or_padding_on_the_right_says_so_once(kind, remedy):
    model = model_of(kind)
    apply(model, KLNorm(beta=0.1))
    model.train()
    lengths = []
    model.base_model.register_forward_hook(lambda module, args, outputs: lengths.append(outputs[0].shape[1]))
    said = heard(model, **padded())
    assert lengths == [16]
    assert len(said) == (remedy is not None)
    assert remedy is None or f"{remedy}" in said[0]
    assert model.training
    assert not heard(model, **padded())
    assert not heard(model.eval(), **padded(0))


@pytest.mark.parametrize("head", ["tokens", "words", "bare"])
def test_outputs_for_every_token_are_compared_where_they_are_real(head):
    for kind, said in (("gpt2", 1), ("llama", 0)):
        model = model_of(kind, head)
        apply(model, KLNorm(beta=0.1, placement="internal"))
        assert len(heard(model, **padded())) == said


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neo", "opt", "llama"])
@pytest.mark.parametrize("placement", ["pooled", "internal"])
def test_with_position_ids_a_padded_row_has_the_logits_of_the_row_alone(kind, placement):
    model = model_of(kind)
    apply(model, KLNorm(beta=0.1, placement=placement))
    inputs = padded()
    positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    assert not heard(model, **inputs, position_ids=positions)
    with torch.no_grad():
        logits = model(**inputs, position_ids=positions).logits
        for row in range(3):
            real = inputs["attention_mask"][row].bool()
            alone = model(input_ids=inputs["input_ids"][row, real][None]).logits
            torch.testing.assert_close(logits[row], alone[0])


def test_padding_on_the_right_is_left_alone():
    for kind in ("bert", "gpt2"):
        model = model_of(kind)
        apply(model, KLNorm(beta=0.1))
        assert not heard(model, **padded(0))
    model = zoo.build("wav2vec2")
    apply(model, KLNorm(beta=0.1))
    assert not heard(model, **zoo.batch(model))


def test_block_sparse_attention_stays_as_it_is():
    config = transformers.BigBirdConfig(
        vocab_size=120, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, block_size=4,
        num_random_blocks=1, max_position_embeddings=128, attention_type="block_sparse",
    )  # fmt: skip
    model = transformers.BigBirdForSequenceClassification(config).eval()
    apply(model, KLNorm(beta=0.1))
    ids = torch.randint(5, 100, (1, 64))
    mask = (torch.arange(64) >= 60).long()[None]  # alone, the four tokens would be too few for blocks
    model(input_ids=ids, attention_mask=mask)
    assert model.bert.attention_type == "block_sparse"
