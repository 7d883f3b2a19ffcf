"""Head parts that were drawn at random and that peft would freeze and leave out of the adapter."""

import pytest
import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from klnorm_lib import Dropout, KLNorm, apply, load
from tests import zoo

PARTS = {"deberta-v2": ["pooler"], "wav2vec2": ["projector"], "distilbert": []}


def encoder_only(name, folder):
    """A classifier whose encoder was loaded and whose head was drawn at random, and two of its linear layers."""
    whole = zoo.build(name)
    whole.base_model.save_pretrained(folder)
    linear = [n for n, m in whole.base_model.named_modules() if isinstance(m, nn.Linear) and ".layer" in n]
    return type(whole).from_pretrained(folder, num_labels=zoo.LABELS), linear[:2]


def tuner(kind, linear):
    return {
        "lora": lambda: LoraConfig(task_type="SEQ_CLS", r=2, target_modules=linear),
        "biases": lambda: LoraConfig(task_type="SEQ_CLS", r=2, target_modules=linear, bias="all"),
        "ia3": lambda: IA3Config(task_type="SEQ_CLS", target_modules=linear, feedforward_modules=[]),
        "adalora": lambda: AdaLoraConfig(task_type="SEQ_CLS", target_modules=linear, total_step=9, tinit=1, tfinal=1),
        "prompts": lambda: PromptTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=2, token_dim=zoo.WIDTH, num_layers=2, num_attention_heads=4
        ),
        "whole": lambda: LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["projector"]),
    }[kind]()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("deberta-v2", "lora"),
        ("deberta-v2", "biases"),
        ("deberta-v2", "ia3"),
        ("deberta-v2", "adalora"),
        ("deberta-v2", "prompts"),
        ("wav2vec2", "lora"),
        ("distilbert", "lora"),
    ],
)
def test_trained_saved_and_named(name, kind, tmp_path):
    base, linear = encoder_only(name, tmp_path / "base")
    model = get_peft_model(base, tuner(kind, linear))
    report = apply(model, KLNorm(beta=0.1))
    assert [line.split()[1] for line in report.changed if "drawn at random" in line] == PARTS[name]
    assert set(PARTS[name]) <= set(model.peft_config["default"].modules_to_save)
    own = {n for n, p in base.named_parameters() if any(part in n for part in PARTS[name]) and p.requires_grad}
    assert len(own) == 2 * len(PARTS[name])
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.01)
    model.eval().save_pretrained(tmp_path / "saved")
    inputs = zoo.batch(base)
    opened = load(tmp_path / "saved")
    assert torch.equal(opened(**inputs).logits, model(**inputs).logits)


def test_a_head_that_the_checkpoint_contains_stays_frozen(tmp_path):
    whole = zoo.build("deberta-v2")
    whole.save_pretrained(tmp_path)
    model = get_peft_model(type(whole).from_pretrained(tmp_path), tuner("lora", ["query_proj"]))
    report = apply(model, KLNorm(beta=0.1))
    assert not [line for line in report.changed if line.startswith("peft:")]
    assert not any(p.requires_grad for n, p in model.named_parameters() if ".pooler." in n)


def test_without_a_checkpoint_the_parts_outside_the_encoder_count():
    model = get_peft_model(zoo.build("wav2vec2"), LoraConfig(r=2, target_modules=["q_proj"]))
    apply(model, KLNorm(beta=0.1))
    kept = model.peft_config["default"].modules_to_save
    assert {"projector", "classifier"} <= set(kept)
    assert not any("wav2vec2" in name for name in kept)


def test_a_fresh_layer_that_the_tuner_adapts_is_refused(tmp_path):
    base, _ = encoder_only("wav2vec2", tmp_path)
    model = get_peft_model(base, tuner("whole", []))
    with pytest.raises(ValueError, match=r"projector was drawn at random.*modules_to_save=\['projector'\]"):
        apply(model, KLNorm(beta=0.1))


def test_a_failed_apply_takes_it_back(tmp_path):
    base, linear = encoder_only("deberta-v2", tmp_path)
    model = get_peft_model(base, tuner("lora", linear))
    before, modules = model.peft_config["default"].modules_to_save, dict(model.named_modules())
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    with pytest.raises(ValueError, match="one head method only"):
        apply(model, KLNorm(beta=0.1), KLNorm(beta=0.2))
    assert model.peft_config["default"].modules_to_save == before
    assert dict(model.named_modules()) == modules
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == frozen


def applied_first(name, folder, config, method=None):
    base, linear = encoder_only(name, folder)
    apply(base, method or KLNorm(beta=0.1))
    return get_peft_model(base, config(linear)).train(), zoo.batch(base)


@pytest.mark.parametrize(
    ("name", "part", "config"),
    [
        ("deberta-v2", "pooler", lambda linear: tuner("lora", linear)),
        ("deberta-v2", "pooler", lambda linear: LoraConfig(task_type="TOKEN_CLS", r=2, target_modules=linear)),
        ("deberta-v2", "pooler", lambda linear: LoraConfig(use_dora=True, r=2, target_modules=linear)),
        ("deberta-v2", "pooler", lambda x: LoraConfig(task_type="SEQ_CLS", modules_to_save=[], target_modules=x)),
        ("deberta-v2", "pooler", lambda linear: tuner("ia3", linear)),
        ("deberta-v2", "pooler", lambda linear: tuner("adalora", linear)),
        ("deberta-v2", "pooler", lambda linear: tuner("prompts", linear)),
        ("wav2vec2", "projector", lambda linear: tuner("lora", linear)),
    ],
    ids=["lora", "token", "dora", "nothing", "ia3", "adalora", "prompts", "wav2vec2"],
)  # fmt: skip
def test_a_part_that_peft_leaves_out_after_apply_raises(name, part, config, tmp_path):
    model, inputs = applied_first(name, tmp_path, config)
    with pytest.raises(RuntimeError, match=rf"^{part}.*drawn at random, frozen by peft.*modules_to_save=\['{part}'"):
        model(**inputs)
    with pytest.raises(RuntimeError, match="drawn at random"):  # again: a cell of a notebook is run twice
        model(**inputs)
    model.eval()(**inputs)


def test_a_layer_of_a_method_that_peft_leaves_out_raises(tmp_path):
    config = lambda linear: LoraConfig(task_type="SEQ_CLS", modules_to_save=["pooler"], target_modules=linear)  # noqa: E731
    model, inputs = applied_first("deberta-v2", tmp_path / "kept", config)
    model(**inputs).loss.backward()
    model, inputs = applied_first("deberta-v2", tmp_path, config, KLNorm(placement="internal"))
    with pytest.raises(RuntimeError, match=r"LayerNorm.*apply after it"):
        model(**inputs)


def test_where_nothing_was_loaded_it_warns():
    model = zoo.build("wav2vec2")
    apply(model, Dropout(p=0.1))
    model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).train()
    with pytest.warns(UserWarning, match="projector, classifier.*drawn at random"):
        model(**zoo.batch(model))


def test_what_a_file_contains_may_be_frozen(tmp_path):
    base, linear = encoder_only("deberta-v2", tmp_path)
    apply(base, KLNorm(placement="internal"))
    base.save_pretrained(tmp_path / "whole")
    for whole in (base, load(tmp_path / "whole")):
        model = get_peft_model(whole, tuner("lora", ["query_proj"])).train()
        model(**zoo.batch(whole)).loss.backward()


def test_an_adapter_that_the_methods_were_not_applied_to_raises(tmp_path):
    base, linear = encoder_only("deberta-v2", tmp_path)
    model = get_peft_model(base, tuner("lora", linear))
    apply(model, KLNorm(beta=0.1))
    inputs = zoo.batch(base)
    model.train()(**inputs).loss.backward()
    model.add_adapter("second", tuner("lora", linear))
    model.set_adapter("second")
    with pytest.raises(RuntimeError, match="applied to the adapter default, and second is active"):
        model(**inputs)
    model.set_adapter("default")
    model(**inputs).loss.backward()


def test_an_adapter_of_another_name_is_saved_with_its_methods(tmp_path):
    base, linear = encoder_only("deberta-v2", tmp_path / "base")
    model = get_peft_model(base, tuner("lora", linear), adapter_name="mine")
    apply(model, KLNorm(beta=0.1))
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.01)
    model.eval().save_pretrained(tmp_path / "saved")
    inputs = zoo.batch(base)
    torch.testing.assert_close(load(tmp_path / "saved/mine")(**inputs).logits, model(**inputs).logits, rtol=0, atol=0)


@pytest.mark.parametrize(
    "method", [KLNorm(beta=0.1), KLNorm(beta=0.1, placement="internal")], ids=["pooled", "internal"]
)
def test_adapters_that_transformers_adds_itself(method, tmp_path):
    base, linear = encoder_only("deberta-v2", tmp_path / "base")
    base.add_adapter(LoraConfig(r=2, target_modules=linear))
    report = apply(base, method)
    assert [line.split()[1] for line in report.changed if line.startswith("peft:")] == ["pooler", "classifier"]
    inputs = zoo.batch(base)
    base.train()(**inputs).loss.backward()
    with torch.no_grad():
        for p in base.parameters():
            if p.requires_grad:
                p.add_(0.01)
    base.eval().save_pretrained(tmp_path / "saved")
    opened = load(tmp_path / "saved")
    assert torch.equal(opened(**inputs).logits, base(**inputs).logits)
    later, _ = encoder_only("deberta-v2", tmp_path / "base")
    apply(later, method)
    later.add_adapter(LoraConfig(r=2, target_modules=linear))
    with pytest.raises(RuntimeError, match="apply after it"):
        later.train()(**inputs)


def test_an_adapter_file_that_lacks_a_part_is_refused(tmp_path):
    base, linear = encoder_only("deberta-v2", tmp_path / "base")
    model = get_peft_model(base, tuner("lora", linear))
    apply(model, KLNorm(beta=0.1))
    model.save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved/adapter_model.safetensors"
    whole = load_file(file)
    for part in ("pooler.dense.weight", "classifier.layer.heads.mean_bias", "lora_A.weight"):
        lost = next(name for name in whole if name.endswith(part))
        save_file({name: value for name, value in whole.items() if name != lost}, file, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=rf"lacks .*{lost}.*save (it|the adapter) again"):
            load(tmp_path / "saved")
