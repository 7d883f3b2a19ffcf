"""Methods under peft: applied after get_peft_model, or before it; trained, saved and loaded with the adapter."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper

from klnorm_lib import VIB, Dropout, KLNorm, apply, auxiliary_loss, effective_rates, load
from tests import zoo
from tests.methods.loops import stir, trainer_for

LORA = {"bert": ["query", "value"]} | dict.fromkeys(zoo.AUDIO, ["q_proj", "v_proj"])


def adapted(name, folder, task="SEQ_CLS"):
    zoo.build(name).save_pretrained(folder / "base")
    base = type(zoo.build(name)).from_pretrained(folder / "base")
    return get_peft_model(base, LoraConfig(task_type=task, r=2, target_modules=LORA[name]))


@pytest.mark.parametrize(
    ("name", "task", "method"),
    [
        ("bert", "SEQ_CLS", VIB(bottleneck=8, beta=0.1, schedule="constant")),
        ("wav2vec2-layer", None, KLNorm(beta=0.1, placement="internal")),
    ],
    ids=["bert", "wav2vec2-layer"],
)
def test_trained_by_the_stock_trainer_and_saved_twice(name, task, method, tmp_path):
    model = adapted(name, tmp_path, task)
    report = apply(model, method)
    assert report.added_parameters > 0
    stir(model)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    new = [n for n in trainable if ".layer.heads." in n or "raw_std" in n or n.endswith("_inner")]
    assert new, "the new layers must train"
    before = {n: p.clone() for n, p in model.named_parameters()}
    trainer_for(model, report, tmp_path).train()
    assert any(not torch.equal(before[n], p) for n, p in model.named_parameters() if n in new)
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    assert all(torch.equal(before[n], dict(model.named_parameters())[n]) for n in frozen)
    model.eval()
    expected = model(**zoo.batch(model)).logits
    penalty = auxiliary_loss(model)
    model.save_pretrained(tmp_path / "saved")
    loaded = load(tmp_path / "saved")
    assert isinstance(loaded, PeftModel)
    torch.testing.assert_close(loaded(**zoo.batch(model)).logits, expected, rtol=0, atol=0)
    assert torch.equal(auxiliary_loss(loaded), penalty)
    assert {n for n, p in loaded.named_parameters() if p.requires_grad} == trainable
    loaded.save_pretrained(tmp_path / "again")
    torch.testing.assert_close(load(tmp_path / "again")(**zoo.batch(model)).logits, expected, rtol=0, atol=0)


def test_before_get_peft_model(tmp_path):
    base = zoo.build("bert")
    apply(base, KLNorm(beta=0.1))
    model = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", r=2, target_modules=LORA["bert"]))
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    assert any("heads.mean_outer" in n for n in trainable)
    stir(model)
    model.train()
    inputs = zoo.batch(model)
    outputs = model(**inputs)
    task = torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"])
    torch.testing.assert_close(outputs.loss, task + auxiliary_loss(model).as_subclass(torch.Tensor))
    assert auxiliary_loss(model) > 0


def test_twice_is_refused_through_the_wrapper(tmp_path):
    model = adapted("bert", tmp_path)
    apply(model, KLNorm())
    with pytest.raises(ValueError, match="already applied"):
        apply(model, KLNorm())


@pytest.mark.parametrize("fails_at", [1, 3])
def test_an_error_of_peft_leaves_the_model_as_it_was(fails_at, tmp_path, monkeypatch):
    model = adapted("bert", tmp_path)
    before = {n: (p, p.requires_grad, p.clone()) for n, p in model.named_parameters()}
    modules = dict(model.named_modules())
    classes = {n: type(m) for n, m in modules.items()}
    attributes = {n: set(vars(m)) for n, m in modules.items()}
    kept = model.peft_config["default"].modules_to_save
    calls = []

    def set_adapter(self, adapter, original=ModulesToSaveWrapper.set_adapter):
        calls.append(adapter)
        if len(calls) == fails_at:
            raise RuntimeError("no adapter today")
        return original(self, adapter)

    with monkeypatch.context() as patched:
        patched.setattr(ModulesToSaveWrapper, "set_adapter", set_adapter)
        with pytest.raises(RuntimeError, match="no adapter today"):
            apply(model, KLNorm(placement="internal"), Dropout(p=0.3))
    assert len(calls) == fails_at
    assert dict(model.named_modules()) == modules
    assert {n: type(m) for n, m in model.named_modules()} == classes
    assert {n: set(vars(m)) for n, m in model.named_modules()} == attributes
    assert model.peft_config["default"].modules_to_save == kept
    assert {n for n, _ in model.named_parameters()} == set(before)
    for name, p in model.named_parameters():
        old, flag, value = before[name]
        assert p is old
        assert p.requires_grad == flag, name
        assert torch.equal(p, value)
    assert effective_rates(model)["layer.0.ffn_output"] == 0.1
    apply(model, KLNorm(placement="internal"))
    assert torch.isfinite(model.train()(**zoo.batch(model)).loss)


def test_weights_that_neither_base_nor_adapter_holds_are_missed(tmp_path):
    # A masked language model has no pooler; the classifier's is drawn at random, and LoRA freezes it.
    zoo.build("bert", kind="masked-lm").save_pretrained(tmp_path / "base")

    def train_and_save(folder, modules):
        base = type(zoo.build("bert")).from_pretrained(tmp_path / "base", num_labels=zoo.LABELS)
        config = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=LORA["bert"], modules_to_save=modules)
        model = get_peft_model(base, config)
        trainer_for(model, apply(model, KLNorm(beta=0.1)), tmp_path).train()
        model.eval().save_pretrained(folder)
        return model

    named = train_and_save(tmp_path / "lacking", None)
    assert "bert.pooler" in named.peft_config["default"].modules_to_save
    file = tmp_path / "lacking" / "adapter_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"modules_to_save": ["classifier"]}))  # as before apply named the pooler
    with pytest.raises(ValueError, match=r"bert\.pooler\.dense\.weight.*modules_to_save"):
        load(tmp_path / "lacking")
    model = train_and_save(tmp_path / "whole", ["pooler"])
    inputs = zoo.batch(model)
    assert torch.equal(load(tmp_path / "whole")(**inputs).logits, model(**inputs).logits)
