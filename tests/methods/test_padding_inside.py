"""The internal penalty counts real positions only, whatever the order of a layer's axes: more pads change nothing."""

import pytest
import torch
import transformers as T
from torch.nn import functional as F

from klnorm_lib import KLNorm, apply, auxiliary_loss
from klnorm_lib.methods.klnorm import KLNormLayer
from klnorm_lib.sites.axes import Positions

SIZE = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "pad_token_id": 0,
}  # fmt: skip
DRY = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
GROUPED = SIZE | {"num_key_value_heads": 2, "head_dim": 8}
MODELS = {
    "bert": lambda: T.BertForSequenceClassification(T.BertConfig(**SIZE, **DRY)),
    "longformer": lambda: T.LongformerForSequenceClassification(
        T.LongformerConfig(**SIZE, **DRY, attention_window=32, max_position_embeddings=80)
    ),
    "opt": lambda: T.OPTForSequenceClassification(
        T.OPTConfig(**(SIZE | {"intermediate_size": 64}), dropout=0.0, ffn_dim=64, word_embed_proj_dim=32)
    ),
    "qwen3": lambda: T.Qwen3ForSequenceClassification(T.Qwen3Config(**GROUPED)),
    "gemma3": lambda: T.Gemma3TextForSequenceClassification(T.Gemma3TextConfig(**GROUPED)),
    "choice": lambda: T.BertForMultipleChoice(T.BertConfig(**SIZE, **DRY)),
    "funnel": lambda: T.FunnelForSequenceClassification(
        T.FunnelConfig(
            vocab_size=60,
            d_model=32,
            n_head=4,
            d_head=8,
            d_inner=64,
            block_sizes=[1, 1],
            hidden_dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
        )  # fmt: skip
    ),
}


def penalties(model, ids, mask, labels, extras=(0, 16)):
    apply(model, KLNorm(beta=1.0, placement="internal"))
    generator = torch.Generator().manual_seed(0)
    layers = [m for m in model.modules() if isinstance(m, KLNormLayer)]
    for layer in layers:
        for name, parameter in layer.named_parameters():
            if "heads" in name:
                parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    model.train()
    found = []
    for extra in extras:
        model(F.pad(ids, (0, extra)), attention_mask=F.pad(mask, (0, extra)), labels=labels)
        found.append(float(auxiliary_loss(model).detach()))
    return found


@pytest.mark.parametrize("length", [12, 4])  # of 4: as many positions as heads, the axes cannot be told by size
@pytest.mark.parametrize("name", MODELS)
def test_more_padding_changes_nothing(name, length):
    torch.manual_seed(0)
    model = MODELS[name]()
    ids = torch.randint(1, 60, (4, length))
    mask = torch.ones_like(ids)
    mask[1, length // 2 :] = 0
    mask[3, length - 1 :] = 0
    ids = ids * mask
    labels = torch.tensor([0, 1, 0, 1])
    if name == "choice":
        ids, mask, labels = ids.view(2, 2, -1), mask.view(2, 2, -1), labels[:2]
    first, second = penalties(model, ids, mask, labels)
    assert first > 1
    assert second == pytest.approx(first, rel=2e-3 if name == "funnel" else 1e-5)


def test_the_penalty_is_the_mean_over_real_tokens():
    torch.manual_seed(0)
    ids, mask = torch.randint(1, 60, (2, 8)), torch.ones(2, 8, dtype=torch.long)
    mask[1, 5:] = 0
    for name in ("opt", "qwen3", "longformer"):
        torch.manual_seed(1)
        together = penalties(MODELS[name](), ids * mask, mask, torch.tensor([0, 1]), (0,))[0]
        alone = []
        for row, length in ((0, 8), (1, 5)):
            torch.manual_seed(1)
            only = ids[row : row + 1, :length]
            alone += penalties(MODELS[name](), only, torch.ones_like(only), torch.tensor([row]), (0,))
        assert together == pytest.approx(sum(alone) / 2, rel=1e-5), name


def test_axes():
    mask = torch.ones(2, 5)
    values = torch.arange(30.0).view(2, 3, 5)
    find = Positions(None, mask).arrange
    assert torch.equal(find(values, {}), values.mean(1))
    assert torch.equal(find(values.mT, {}), values.mean(1))
    assert torch.equal(find(values[:, 0].mT, {}), values[:, 0])  # (length, batch), as XLNet has it
    assert torch.equal(find(values[:, 0].reshape(-1), {}), values[:, 0])
    square = values[:, :, :3]
    find = Positions(None, mask[:, :3]).arrange
    assert torch.equal(find(square, {}, (9, 3, 1, 1)), square.mean(2))
    assert torch.equal(find(square, {}, (9, 1, 3, 1)), square.mean(1))
    assert torch.equal(find(square, {"length": 2}, (9, 3, 1, 1)), square.mean(1))


def test_a_mask_that_does_not_say_what_is_padding_is_refused():
    model = MODELS["bert"]()
    apply(model, KLNorm(placement="internal"))
    ids = torch.ones(2, 6, dtype=torch.long)
    with pytest.raises(ValueError, match="does not say which tokens are real"):
        model.train()(ids, attention_mask=torch.ones(2, 1, 6, 6), labels=torch.tensor([0, 1]))
    model.eval()(ids, attention_mask=torch.ones(2, 1, 6, 6))


def test_a_table_of_relative_positions_counts_once():
    config = T.DebertaV2Config(
        **SIZE, **DRY, relative_attention=True, position_buckets=6, norm_rel_ebd="layer_norm", type_vocab_size=0,
        pos_att_type=["p2c", "c2p"], share_att_key=True,
    )  # fmt: skip
    model = T.DebertaV2ForSequenceClassification(config)
    ids, mask = torch.ones(2, 6, dtype=torch.long), torch.tensor([[1] * 6, [1] * 2 + [0] * 4])  # 12 rows, 12 places
    first, second = penalties(model, ids, mask, torch.tensor([0, 1]))
    assert second == pytest.approx(first, rel=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        T.BartConfig(
            vocab_size=60, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=40,
            pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, dropout=0.0, num_labels=2,
        ),
        T.T5Config(
            vocab_size=60, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0, pad_token_id=0,
            eos_token_id=2, decoder_start_token_id=0, num_labels=2,
        ),
    ],
    ids=["bart", "t5"],
)  # fmt: skip
@pytest.mark.parametrize("own_decoder", [False, True])
def test_the_decoder_of_an_encoder_decoder_model_leaves_padding_out(config, own_decoder):
    torch.manual_seed(0)
    model = T.AutoModelForSequenceClassification.from_config(config)
    apply(model, KLNorm(beta=1.0, placement="internal"))
    for layer in model.modules():
        if isinstance(layer, KLNormLayer):
            for factor in layer.parameters():
                factor.data += 0.2 * torch.randn(factor.shape)
    ids, found = torch.randint(5, 60, (3, 8)), []
    ids[:, -1] = config.eos_token_id
    for pads in (0, 16):
        tokens = F.pad(ids, (0, pads), value=config.pad_token_id)
        mask = F.pad(torch.ones_like(ids), (0, pads))
        own = {"decoder_input_ids": tokens, "decoder_attention_mask": mask} if own_decoder else {}
        model.train()(tokens, attention_mask=mask, labels=torch.tensor([0, 1, 1]), **own)
        found.append(float(auxiliary_loss(model)))
    assert found[0] > 0
    assert found[1] == pytest.approx(found[0], rel=1e-5)
