"""What earlier versions of the library saved still loads, whole, and predicts what it predicted then."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn.modules.module import _IncompatibleKeys

from klnorm_lib import auxiliary_loss, load
from klnorm_lib.methods import REGISTRY, to_dict
from klnorm_lib.methods.affine import HasAffine, rename

FIXTURES = Path(__file__).parents[1] / "fixtures"  # make.py there says how they were made
INPUTS = ("input_ids", "input_values", "attention_mask")
FOLDERS = sorted(path.parent.relative_to(FIXTURES) for path in FIXTURES.glob("*/*/expected.safetensors"))
COMMITS = sorted({folder.parts[0] for folder in FOLDERS})
# In float64, so that kernels of other machines do not matter: what is left is the order of sums.
EXACT = {"rtol": 1e-9, "atol": 1e-10}


def logits(model, expected):
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in expected.items() if k in INPUTS}
    with torch.no_grad():
        return model.double()(**inputs).logits


@pytest.fixture
def saved(request, monkeypatch):
    """The folder, what it must give; in the folder above, relative to which adapters name their base."""
    monkeypatch.chdir((FIXTURES / request.param).parent)
    return FIXTURES / request.param, load_file(FIXTURES / request.param / "expected.safetensors")


@pytest.mark.parametrize("saved", FOLDERS, ids=str, indirect=True)
def test_it_loads_with_equal_logits_and_nothing_is_lost(saved):
    folder, expected = saved
    model = load(folder)
    assert isinstance(model, PeftModel) == folder.name.startswith("lora-")
    state = model.state_dict()
    for file in folder.glob("*model.safetensors"):
        written = load_file(file)
        # peft leaves its own wrappers out of the names that it writes
        written = {_without_wrappers(name): value for name, value in written.items()}
        for path, layer in model.named_modules():
            if isinstance(layer, HasAffine):
                rename(written, layer, _without_wrappers(f"{path}."))
        for name, value in written.items():
            (key,) = [k for k in state if _without_wrappers(k) == name]
            assert torch.equal(state[key], value), name
    written = json.loads((folder / "config.json").read_text())["klnorm"]["methods"]
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    for method, before in zip(inner._klnorm_methods, written, strict=True):
        assert {k: v for k, v in json.loads(json.dumps(to_dict(method))).items() if k in before} == before
    torch.testing.assert_close(logits(model, expected), expected["logits"], **EXACT)
    torch.testing.assert_close(auxiliary_loss(model).as_subclass(torch.Tensor).double(), expected["penalty"], **EXACT)


def _without_wrappers(name):
    return name.replace(".default", "").replace("modules_to_save.", "").removeprefix("base_model.model.")


@pytest.mark.parametrize("saved", FOLDERS, ids=str, indirect=True)
def test_weights_that_were_not_loaded_would_be_seen(saved, monkeypatch):
    folder, expected = saved
    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.Module, "load_state_dict", lambda *args, **kwargs: _IncompatibleKeys([], []))
        model = load(folder)  # as if the layers of methods and adapters were left as they are made
    own = [m for m in model.modules() if getattr(m, "added_by_klnorm", False) and list(m.parameters())]
    changed = (logits(model, expected) - expected["logits"]).abs().max()
    assert (changed > 1e-3) == bool(own or isinstance(model, PeftModel))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    assert (logits(model, expected) - expected["logits"]).abs().max() > 1e-3


@pytest.mark.parametrize("commit", COMMITS)
def test_every_method_of_that_version_is_among_them(commit):
    made = json.loads((FIXTURES / commit / "versions.json").read_text())
    assert made["commit"].startswith(commit)
    names = set()
    for folder in (f for f in FOLDERS if f.parts[0] == commit):
        saved = json.loads((FIXTURES / folder / "config.json").read_text())["klnorm"]["methods"]
        names |= {method["name"] for method in saved}
    assert names == set(made["methods"]) <= set(REGISTRY)
