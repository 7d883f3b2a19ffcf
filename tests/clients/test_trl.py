"""trl's trainers compute losses of their own: a penalty raises there, what is inside the model's forward trains."""

import pytest
from datasets import Dataset
from transformers import GPT2ForSequenceClassification
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from klnorm_lib import L2SP, VIB, Dropout, GaussianDropout, KLNorm, Mixout, MLPHead, NormHead, RDrop, apply
from tests.clients import pieces

INTERNAL = KLNorm(placement="internal", form="C", beta=0.01)
INSIDE = [Dropout(p=0.3), GaussianDropout(p=0.3)]


def sft(method, folder):
    model = pieces.gpt2()
    report = apply(model, method)
    rows = Dataset.from_dict({"text": [pieces.text(i) for i in range(16)]})
    arguments = SFTConfig(**pieces.settings(folder, bf16=False, max_length=16))
    return SFTTrainer(
        model, args=arguments, train_dataset=rows, processing_class=pieces.tokenizer(), callbacks=report.callbacks
    )


@pytest.mark.parametrize("method", [INTERNAL, L2SP(alpha=1000.0), RDrop()], ids=lambda m: m.name)
def test_sft_replaces_the_forward_so_a_penalty_raises(method, tmp_path):
    with pytest.raises(RuntimeError, match="SFTTrainer"):
        sft(method, tmp_path).train()


@pytest.mark.parametrize("method", [KLNorm(), NormHead("layer"), MLPHead(rank=4), VIB()], ids=lambda m: m.name)
def test_a_layer_before_the_tied_decoder_is_refused(method, tmp_path):
    with pytest.raises(ValueError, match="tied to"):
        sft(method, tmp_path)


@pytest.mark.parametrize("method", INSIDE, ids=lambda m: m.name)
def test_dropout_trains_under_sft(method, tmp_path):
    trainer = sft(method, tmp_path)
    trainer.train()
    assert trainer.state.global_step == 2


def reward(model, method, folder):
    report = apply(model, method)
    rows = {"chosen": [pieces.text(i) for i in range(16)], "rejected": [pieces.text(i + 50) for i in range(16)]}
    arguments = RewardConfig(**pieces.settings(folder, bf16=False, max_length=32))
    return RewardTrainer(
        model, args=arguments, train_dataset=Dataset.from_dict(rows), processing_class=pieces.tokenizer(),
        callbacks=report.callbacks,
    )  # fmt: skip


MODELS = {"gpt2": lambda: pieces.gpt2(GPT2ForSequenceClassification), "bert": lambda: pieces.bert(labels=1)}


@pytest.mark.parametrize("method", [KLNorm(form="C"), INTERNAL, L2SP()], ids=["klnorm", "internal", "l2_sp"])
@pytest.mark.parametrize("model", MODELS)
def test_a_reward_is_no_loss_of_the_model_so_a_penalty_raises(model, method, tmp_path):
    with pytest.raises(RuntimeError, match="reached no loss"):
        reward(MODELS[model](), method, tmp_path).train()


@pytest.mark.parametrize("method", [NormHead("layer"), MLPHead(rank=4), Dropout(p=0.3)], ids=lambda m: m.name)
@pytest.mark.parametrize("model", MODELS)
def test_a_reward_model_trains_with_what_has_no_penalty(model, method, tmp_path):
    trainer = reward(MODELS[model](), method, tmp_path)
    trainer.train()
    assert trainer.state.global_step == 2


def test_mixout_trains_a_reward_model(tmp_path):
    trainer = reward(MODELS["bert"](), Mixout(p=0.3), tmp_path)
    trainer.train()
    assert trainer.state.global_step == 2
