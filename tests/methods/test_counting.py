"""What is counted by formula is what apply adds, for every method and at widths that no formula was fitted to."""

import dataclasses

import pytest
import torch

from klnorm_lib import (
    EWC,
    L2SP,
    VIB,
    ChildTuning,
    Dropout,
    GaussianDropout,
    GuidedDropout,
    KLNorm,
    Method,
    Mixout,
    MLPHead,
    NormHead,
    RDrop,
    apply,
)
from klnorm_lib.methods.counting import added_parameters, encoder_parameters
from klnorm_lib.probes.fisher.table import save_fisher
from tests import zoo
from tests.sites.test_sites import EXPECTED

METHODS = [
    None,
    *(KLNorm(form=form, heads=heads) for form in "ABC" for heads in ("low_rank", "diagonal", "full")),
    KLNorm(rank=3),
    KLNorm(prior="learned_diagonal"),
    KLNorm(form="C", prior="learned_diagonal", heads="diagonal"),
    *(NormHead(kind) for kind in ("layer", "batch", "rms", "group")),
    MLPHead(),
    MLPHead(rank=5),
    VIB(),
    VIB(bottleneck=7),
    Dropout(),
    GaussianDropout(),
    GuidedDropout(rates=dict.fromkeys(EXPECTED["bert"], 0.05)),
    Mixout(),
    RDrop(),
    L2SP(),
    EWC(),
    ChildTuning(),
]


def ready(method, model, folder):
    """The method as apply takes it: with rows seen, and with a Fisher to be found."""
    if method is None:
        return []
    if isinstance(method, EWC):
        fisher = {n: torch.ones_like(p) for n, p in model.base_model.named_parameters()}
        return [EWC(fisher=save_fisher(folder / "fisher.safetensors", fisher, {}))]
    return [method.prepare(model, [zoo.batch(model)])]


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize(("width", "outputs"), [(40, 2), (56, 5)])
def test_counted_is_added(method, width, outputs, tmp_path):
    model = zoo.build("bert", hidden_size=width, num_labels=outputs)
    report = apply(model, *ready(method, model, tmp_path))
    assert added_parameters(method, width, outputs) == report.added_parameters


def test_matrices_of_an_encoder_are_twelve_squares_a_layer():
    for width, layers in ((32, 2), (48, 3)):
        model = zoo.build("bert", hidden_size=width, num_hidden_layers=layers, intermediate_size=4 * width)
        matrices = [p for n, p in model.bert.encoder.named_parameters() if p.ndim == 2]
        assert encoder_parameters(width, layers) == sum(p.numel() for p in matrices)


def test_what_has_no_formula_is_refused():
    with pytest.raises(ValueError, match="inside the encoder"):
        added_parameters(KLNorm(placement="internal"), 32)

    @dataclasses.dataclass(frozen=True)
    class Other(Method):
        name = "other"

    with pytest.raises(TypeError, match="Other"):
        added_parameters(Other(), 32)
