"""Models that were pickled when the contract was one module, and when the anchor's parameters had another name."""

import pickle

import pytest
import torch
from transformers import AttentionInterface

from klnorm_lib import L2SP, GaussianDropout, KLNorm, RDrop, apply
from klnorm_lib.methods.contract import model_class
from klnorm_lib.methods.gaussian_noise import ATTENTION
from tests import zoo

OLD = {
    f"c{model_class.__name__}\n{name}\n".encode(): f"cklnorm_lib.methods.contract\n{old}\n".encode()
    for name, old in (("rebuild", "rebuild"), ("regularised", "_regularised"))
} | {
    b"cklnorm_lib.methods.penalty\npenalty_layers\n": b"cklnorm_lib.methods.contract\n_penalty_layers\n",
}


@pytest.mark.parametrize("method", [KLNorm(), RDrop(), L2SP(), GaussianDropout()], ids=lambda m: m.name)
def test_a_model_pickled_before_the_contract_was_a_package_opens(method):
    model = zoo.build("bert")
    model.report = apply(model, method)
    written = pickle.dumps(model, protocol=2)  # whose names are plain text
    for name, old in OLD.items():
        assert name in written
        written = written.replace(name, old)
    opened = pickle.loads(written)
    inputs = zoo.batch(model)
    assert torch.equal(opened(**inputs).logits, model(**inputs).logits)
    opened.report.step()


def test_an_anchor_pickled_under_the_old_name_penalises():
    model = zoo.build("bert")
    apply(model, L2SP(alpha=1.0))
    layer = model.l2_sp
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight.add_(1.0)
    state = layer.__getstate__()
    state["_pulled"] = state.pop("_penalised")
    again = type(layer).__new__(type(layer))
    again.__setstate__(state)
    assert again.penalty() == layer.penalty() > 0


def test_gaussian_attention_is_registered_where_a_model_is_opened(monkeypatch):
    model = zoo.build("bert")
    apply(model, GaussianDropout())
    written = pickle.dumps(model)
    monkeypatch.delitem(AttentionInterface._global_mapping, ATTENTION)  # as in a process of its own
    pickle.loads(written).train()(**zoo.batch(model)).loss.backward()
