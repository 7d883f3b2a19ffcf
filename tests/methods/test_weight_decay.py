"""What the stock Trainer's weight decay reaches of the parameters that methods add, as their cards say."""

import pytest
from transformers import Trainer, TrainingArguments

from klnorm_lib import VIB, KLNorm, MLPHead, NormHead, apply
from tests import zoo

FACTORS = {"heads.mean_inner", "heads.mean_outer", "heads.std_inner", "heads.std_outer"}
NETWORK = {"encoder.0.weight", "encoder.2.weight", "mean.weight", "raw_std.weight"}
DECAYED = [
    (KLNorm(), FACTORS),
    (KLNorm(form="C"), FACTORS),
    (KLNorm(prior="learned_diagonal"), FACTORS | {"prior_mean", "prior_raw_std"}),
    (KLNorm(heads="full"), {"heads.mean_weight", "heads.std_weight"}),
    (KLNorm(heads="diagonal"), {"heads.mean_weight", "heads.std_weight"}),
    (KLNorm(form="A"), {"gamma"}),
    (NormHead(), {"gamma"}),
    (NormHead(kind="rms"), {"gamma"}),
    (MLPHead(), {"inner", "outer", "scale"}),
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
