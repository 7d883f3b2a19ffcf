"""What the stock Trainer's weight decay reaches of the parameters that methods add, as their cards say."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from klnorm_lib import VIB, KLNorm, MLPHead, NormHead, apply
from klnorm_lib.methods.affine import NAME
from klnorm_lib.methods.penalty import penalty_layers
from tests import zoo
from tests.methods.loops import moved, stir

FACTORS = {"heads.mean_inner", "heads.mean_outer", "heads.std_inner", "heads.std_outer"}
NETWORK = {"encoder.0.weight", "encoder.2.weight", "mean.weight", "raw_std.weight"}
DECAYED = [
    (KLNorm(), FACTORS),
    (KLNorm(form="C"), FACTORS),
    (KLNorm(prior="learned_diagonal"), FACTORS | {"prior_mean", "prior_raw_std"}),
    (KLNorm(heads="full"), {"heads.mean_weight", "heads.std_weight"}),
    (KLNorm(heads="diagonal"), {"heads.mean_weight", "heads.std_weight"}),
    (KLNorm(form="A"), set()),
    (NormHead(), set()),
    (NormHead(kind="rms"), set()),
    (MLPHead(), {"inner", "outer"}),
    (VIB(bottleneck=4), NETWORK | {"prior_mean", "prior_raw_std"}),
]


@pytest.mark.parametrize(
    ("method", "expected"), DECAYED, ids=lambda value: str(sorted(value) if isinstance(value, set) else value)
)
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_what_is_decayed_of_a_layer_before_the_head(kind, method, expected, tmp_path):
    model = zoo.build(kind)
    apply(model, method)
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True, weight_decay=0.1)
    groups = Trainer(model, arguments).create_optimizer().param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    ours = {n.partition("classifier.layer.")[2]: p for n, p in model.named_parameters() if "classifier.layer." in n}
    assert {name for name, p in ours.items() if id(p) in decayed} == expected
    # As scripts do that build their groups themselves, run_glue_no_trainer.py among them.
    assert {name for name in ours if not any(part in name for part in ("bias", "LayerNorm.weight"))} == expected


@pytest.mark.parametrize("kind", ["bert", "distilbert", "wav2vec2"])
def test_inside_the_encoder_scale_and_shift_are_spared(kind, tmp_path):
    model = zoo.build(kind)
    apply(model, KLNorm(form="A", placement="internal", train_base=True))
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True, weight_decay=0.1)
    groups = Trainer(model, arguments).create_optimizer().param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    layers = penalty_layers(model)
    assert layers
    assert not [n for layer in layers for n, p in layer.named_parameters() if id(p) in decayed]


@pytest.mark.parametrize("method", [KLNorm(form="A"), NormHead(), NormHead(kind="rms"), MLPHead()], ids=str)
def test_what_was_saved_when_scale_and_shift_had_other_names_opens(method):
    model = moved(zoo.build("bert"))
    apply(model, method)
    layer = stir(model).classifier.layer
    old = {"weight": "scale" if isinstance(method, MLPHead) else "gamma", "bias": "bias"}
    named = {f"classifier.layer.{NAME}.{new}": f"classifier.layer.{name}" for new, name in old.items()}
    state = {named.get(key, key): value.clone() for key, value in model.state_dict().items()}
    again = zoo.build("bert")
    apply(again, method)
    again.load_state_dict(state)
    inputs = zoo.batch(model, labels=False)
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)
    pickled = layer.__getstate__()
    parts = dict(pickled["_modules"])
    affine = parts.pop(NAME)
    own = {old[name]: p for name, p in affine.named_parameters()}
    pickled = {**pickled, "_modules": parts, "_parameters": {**pickled["_parameters"], **own}}
    unpickled = type(layer).__new__(type(layer))
    unpickled.__setstate__(pickled)
    x = torch.randn(4, zoo.WIDTH)
    assert torch.equal(unpickled(x), layer(x))
    assert [name for name, _ in unpickled.named_parameters()] == [name for name, _ in layer.named_parameters()]
