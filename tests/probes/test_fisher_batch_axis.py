"""Where hooks cannot tell the sequences apart: found out whatever the sizes are, and computed in a slower way."""

import warnings

import pytest
import torch
import transformers as hf
from torch import nn
from torch.nn import functional as F

from klnorm_lib.probes import diagonal_fisher

WIDTH = 32
_DEBERTA = dict(
    vocab_size=120,
    hidden_size=WIDTH,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=64,
    relative_attention=True,
    pos_att_type=["p2c", "c2p"],
    position_biased_input=False,
    type_vocab_size=0,
)
_V2 = _DEBERTA | dict(position_buckets=8, share_att_key=True, norm_rel_ebd="layer_norm")
_SPEECH = dict(
    hidden_size=WIDTH,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    conv_dim=(WIDTH, WIDTH),
    conv_kernel=(10, 8),
    conv_stride=(5, 8),
    num_feat_extract_layers=2,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=2,
    classifier_proj_size=WIDTH,
)
_SEW_D = _SPEECH | dict(
    position_buckets=8,
    max_position_embeddings=64,
    norm_rel_ebd="layer_norm",
    squeeze_factor=1,
    feature_layer_norm_eps=1e-5,
)
_T5 = dict(
    vocab_size=120, d_model=WIDTH, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0,
    relative_attention_num_buckets=8,
)  # fmt: skip
# class, config, and parameters that no batch axis or no call of their module leads to
TABLES = {
    "deberta-v2": (hf.DebertaV2ForSequenceClassification, hf.DebertaV2Config, _V2, "rel_embeddings"),
    "deberta": (hf.DebertaForSequenceClassification, hf.DebertaConfig, _DEBERTA, "rel_embeddings"),
    "sew-d": (hf.SEWDForSequenceClassification, hf.SEWDConfig, _SEW_D, "rel_embeddings"),
    "wavlm": (hf.WavLMForSequenceClassification, hf.WavLMConfig, _SPEECH, "q_proj"),
    "t5": (hf.T5ForSequenceClassification, hf.T5Config, _T5, "relative_attention_bias"),
    "mpnet": (
        hf.MPNetForSequenceClassification,
        hf.MPNetConfig,
        {k: _DEBERTA[k] for k in list(_DEBERTA)[:6]},
        "relative",
    ),
}


def batch_of(name, rows, length=12):
    generator = torch.Generator().manual_seed(rows)
    labels = torch.arange(rows) % 2
    if name in ("sew-d", "wavlm"):
        return {"input_values": torch.randn(rows, 60 * length, generator=generator).double(), "labels": labels}
    ids = torch.randint(5, 100, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1::3, length - 4 :] = 0
    ids[:, -1] = torch.where(mask[:, -1] == 1, 1, ids[:, -1])  # an end of sequence, which T5 reads
    ids[1::3, length - 5] = 1
    ids[mask == 0] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def apart(found, true):
    """The largest relative difference of a tensor; only below a billionth of the largest gradient it is rounding."""
    noise = 1e-18 * max(float(t.mean()) for t in true.values())
    size = {n: float(t.double().norm()) for n, t in true.items()}
    return max(float((found[n].double() - t).norm()) / max(size[n], noise * t.numel() ** 0.5) for n, t in true.items())


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("name", TABLES)
def test_tables_of_relative_positions_are_no_batch_whatever_its_size(name, scale):
    """In double precision, where nothing that is small is rounding."""
    kind, config, sizes, part = TABLES[name]
    torch.manual_seed(0)
    model = kind(config(**sizes)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    for rows in (3, 5, 8, 10):
        batch = batch_of(name, rows)
        with pytest.warns(UserWarning, match="takes longer"):
            found = diagonal_fisher(model, [batch], progress=False)
        true = diagonal_fisher(model, [batch], method="loop", progress=False)
        assert apart(found, true) < 1e-5
        assert all(true[n].any() and found[n].any() for n in true if part in n and n.endswith("weight"))


@pytest.mark.parametrize("rows", [3, 5, 8, 10])
def test_single_precision_finds_the_same_tables(rows):
    kind, config, sizes, _ = TABLES["deberta-v2"]
    torch.manual_seed(0)
    model, batch = kind(config(**sizes)), batch_of("deberta-v2", rows)
    with pytest.warns(UserWarning, match="encoder.LayerNorm sees no batch axis"):
        found = diagonal_fisher(model, [batch], progress=False)
    true = diagonal_fisher(model, [batch], method="loop", progress=False)
    for name in ("deberta.encoder.rel_embeddings.weight", "deberta.encoder.LayerNorm.bias"):
        torch.testing.assert_close(found[name], true[name], rtol=1e-3, atol=1e-4 * float(true[name].max()))


class Own(nn.Module):
    """Two linear layers over (B, T, D), and whatever a test adds as ``part`` to their output."""

    def __init__(self, part):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.part, self.last = nn.Linear(6, 6), part, nn.Linear(6, 6)
        self.table = nn.Parameter(torch.randn(6, 6))

    def forward(self, x):
        return self.last(self.part(self.first(x).sin(), self))


def own_loss(model, batch):
    return model(batch["x"]).square().sum((1, 2))


def inputs(*rows, tokens=4):
    generator = torch.Generator().manual_seed(0)
    return [{"x": torch.randn(r, tokens + i, 6, generator=generator)} for i, r in enumerate(rows)]


def compared(model, batches, match):
    with pytest.warns(UserWarning, match=match):
        found = diagonal_fisher(model, batches, own_loss, progress=False)
    true = diagonal_fisher(model, batches, own_loss, "loop", progress=False)
    equal(found, true)
    return true


def equal(found, true):
    for name, tensor in true.items():
        size = float(tensor.max())
        torch.testing.assert_close(
            found[name], tensor, rtol=1e-3, atol=1e-4 * size, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("rows", [2, 3, 6])
def test_a_table_as_long_as_any_batch_is_found(rows):
    """Six rows: twice a batch of three, three times one of two, and a batch of six."""

    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(6)

        def forward(self, x, whole):
            return x + 1e-4 * self.norm(whole.table).mean(0)

    true = compared(Own(Table()), inputs(rows), "part.norm sees no batch axis")
    assert 0 < true["part.norm.weight"].max() < 1e-4 * true["first.weight"].max()


class Elsewhere(nn.Module):
    """A layer whose weight is used without calling it, for next to nothing; it may be called as well."""

    def __init__(self, called, share):
        super().__init__()
        self.layer, self.called, self.share = nn.Linear(6, 6), called, share

    def forward(self, x, whole):
        beside = self.share * F.linear(x, self.layer.weight, self.layer.bias)
        return x + beside + (self.share * self.layer(x) if self.called else 0)


@pytest.mark.parametrize("share", [1e-6, 1e-12])
@pytest.mark.parametrize(("called", "match"), [(False, "is not called where"), (True, "does not explain")])
def test_a_fault_is_found_however_small_the_parameter_is(called, match, share):
    true = compared(Own(Elsewhere(called, share)), inputs(5), rf"part.layer \(Linear\) {match}")
    assert 0 < true["part.layer.weight"].max() < 1e3 * share**2 * true["first.weight"].max()


class Changing(nn.Module):
    """From the second length on a layer is used in another way than before."""

    def __init__(self, before, after):
        super().__init__()
        self.layer, self.before, self.after = nn.Linear(6, 6), before, after

    def forward(self, x, whole):
        return x + (self.before if x.shape[1] == 4 else self.after)(self.layer, x, whole)


CHANGES = {
    "a table": (lambda layer, x, whole: layer(x), lambda layer, x, whole: layer(whole.table).mean(0)),
    "its first use": (lambda layer, x, whole: 0 * x, lambda layer, x, whole: layer(x)),
}


@pytest.mark.parametrize("rows", [(3, 3), (5, 6, 4), (1, 6)])
@pytest.mark.parametrize("change", CHANGES)
def test_a_layer_that_a_later_batch_uses_in_another_way_is_right(change, rows):
    model, batches = Own(Changing(*CHANGES[change])), inputs(*rows)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = diagonal_fisher(model, batches, own_loss, progress=False)
    assert bool(said) == (change == "a table")
    true = diagonal_fisher(model, batches, own_loss, "loop", progress=False)
    equal(found, true)


def test_an_output_that_is_changed_in_place_keeps_its_hooks():
    """As speech models do with padded frames."""

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x, whole):
            made = self.layer(x)
            made[:, 2:] = 0.0
            return made

    model, batches = Own(Masked()), inputs(4, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = diagonal_fisher(model, batches, own_loss, progress=False)
    true = diagonal_fisher(model, batches, own_loss, "loop", progress=False)
    equal(found, true)


def test_what_no_trial_saw_goes_the_slower_way_when_it_comes():
    """The fourth length, after as many trials as there are."""
    last = Changing(lambda layer, x, whole: 0 * x, lambda layer, x, whole: layer(x) if x.shape[1] == 7 else 0 * x)
    true = compared(Own(last), inputs(4, 4, 4, 4), "part.layer came into play later|takes longer")
    assert true["part.layer.weight"].any()


def test_a_pass_that_fails_with_hooks_only_is_looped_over():
    class Frozen(nn.Module):
        """Asks for gradients by the weight, which are frozen in a pass with hooks."""

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x, whole):
            if x.shape[1] > 4 and not self.layer.weight.requires_grad:
                raise RuntimeError("weights must train")
            return self.layer(x)

    compared(Own(Frozen()), inputs(3, 3), "a pass with hooks failed .*weights must train")
    compared(Own(Frozen()), inputs(3, 3, 4)[1:], "a pass with hooks failed .*weights must train")


def test_a_model_without_gradients_in_evaluation_says_so():
    config = hf.ReformerConfig(
        vocab_size=120, hidden_size=WIDTH, num_attention_heads=2, attention_head_size=16, feed_forward_size=64,
        attn_layers=["local"], local_attn_chunk_length=4, axial_pos_embds=False, max_position_embeddings=64,
        pad_token_id=0, num_labels=2, is_decoder=False,
    )  # fmt: skip
    model = hf.ReformerForSequenceClassification(config)
    for method in ("hooks", "loop"):
        with pytest.raises(ValueError, match="no gradient in evaluation mode"):
            diagonal_fisher(model, [batch_of("reformer", 3)], method=method, progress=False)


def test_batches_of_one_need_no_batch_axis():
    kind, config, sizes, _ = TABLES["deberta-v2"]
    torch.manual_seed(0)
    model = kind(config(**sizes)).double()
    batches = [batch_of("deberta-v2", rows, length) for rows, length in ((1, 12), (4, 12), (1, 9), (3, 10))]
    with pytest.warns(UserWarning, match="takes longer"):
        found = diagonal_fisher(model, batches, progress=False)
    assert apart(found, diagonal_fisher(model, batches, method="loop", progress=False)) < 1e-5
