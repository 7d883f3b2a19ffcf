"""Head parts that were drawn at random and that peft would freeze and leave out of the adapter."""

import pytest
import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, PromptTuningConfig, get_peft_model
from torch import nn

from klnorm_lib import KLNorm, apply, load
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
    assert [line.split()[1] for line in report.changed if line.startswith("peft:")] == PARTS[name]
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
