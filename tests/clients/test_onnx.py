"""A changed model in evaluation mode goes through ONNX, with the same logits."""

import numpy as np
import onnxruntime
import pytest
import torch

from klnorm_lib import L2SP, VIB, Dropout, KLNorm, Mixout, NormHead, RDrop, apply
from tests.clients import pieces

METHODS = [
    KLNorm(),
    KLNorm(placement="internal"),
    VIB(),
    NormHead("layer"),
    Dropout(p=0.1),
    Mixout(p=0.3),
    L2SP(),
    RDrop(),
]


@pytest.mark.parametrize("method", METHODS, ids=[f"{i}-{m.name}" for i, m in enumerate(METHODS)])
def test_the_exported_model_gives_the_same_logits(method, tmp_path):
    model = pieces.bert().eval()
    apply(model, method)
    ids = torch.randint(5, 100, (4, 16), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    file = str(tmp_path / "model.onnx")
    torch.onnx.export(model, (), file, kwargs=inputs, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(file)
    given = {i.name: value.numpy() for i, value in zip(session.get_inputs(), inputs.values(), strict=True)}
    np.testing.assert_allclose(session.run(None, given)[0], model(**inputs).logits.detach().numpy(), atol=1e-5)
