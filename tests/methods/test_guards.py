"""No trainer and no model may lose a penalty or stop a schedule without a word."""

import copy
import warnings

import peft
import pytest
import torch
from transformers import (
    BertForSequenceClassification,
    BertForTokenClassification,
    BertLMHeadModel,
    Trainer,
    TrainingArguments,
)

from klnorm_lib import (
    EWC,
    L2SP,
    VIB,
    ChildTuning,
    Dropout,
    KLNorm,
    Mixout,
    MLPHead,
    NormHead,
    RDrop,
    apply,
    auxiliary_loss,
)
from klnorm_lib.methods import build
from klnorm_lib.methods.head import BeforeHead
from klnorm_lib.methods.penalty import penalty_layers
from klnorm_lib.probes.fisher import diagonal_fisher
from tests import zoo
from tests.methods.cases import ROWS, ready
from tests.methods.loops import NO_DROPOUT, Rows, moved, seeded, small, stir, trainer_for, weights

LINEAR = KLNorm(schedule="linear", beta=0.1, warmup_steps=20)
OPTIMISERS = {
    "fused": lambda p: torch.optim.AdamW(p, 1e-3, fused=True),
    "foreach": lambda p: torch.optim.AdamW(p, 1e-3, foreach=True),
    "sgd": lambda p: torch.optim.SGD(p, 1e-3),
    "rate 0": lambda p: torch.optim.SGD(p, 0.0),
}


def training(method=LINEAR):
    model = small("bert", **NO_DROPOUT)
    report = apply(model, method)
    return model.train(), report, zoo.batch(model)


def step(model, inputs, optimiser):
    model(**inputs).loss.backward()
    optimiser.step()


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("frozen", [False, True], ids=["all", "head"])
def test_a_schedule_that_is_never_advanced_raises_under_any_optimiser(name, frozen):
    model, _, inputs = training()
    if frozen:  # not even the layer's own parameters are trained
        for path, parameter in model.named_parameters():
            parameter.requires_grad_(path.startswith("classifier") and parameter.ndim == 2 and "layer" not in path)
    optimiser = OPTIMISERS[name]([p for p in model.parameters() if p.requires_grad])
    step(model, inputs, optimiser)
    with pytest.raises(RuntimeError, match=r"never started.*report\.callbacks"):
        model(**inputs)


@pytest.mark.parametrize("copied", [False, True], ids=["model", "copy"])
def test_the_stock_trainer_without_callbacks_raises(tmp_path, copied):
    model, report, _ = training(VIB(beta=1.0, warmup_steps=4))
    model = copy.deepcopy(model) if copied else model
    report.callbacks.clear()
    with pytest.raises(RuntimeError, match="never started"):
        trainer_for(model, report, tmp_path).train()


def test_a_schedule_that_is_advanced_no_more_raises():
    model, report, inputs = training()
    optimiser = torch.optim.SGD(model.parameters(), 1e-3)
    for _ in range(3):
        step(model, inputs, optimiser)
        report.step()
    for _ in range(9):
        step(model, inputs, optimiser)
    with pytest.raises(RuntimeError, match="stands still"):
        model(**inputs)


def test_a_schedule_that_is_over_needs_no_more_steps():
    model, report, inputs = training(KLNorm(schedule="linear", beta=0.1, warmup_steps=2))
    optimiser = torch.optim.SGD(model.parameters(), 1e-3)
    for epoch in range(14):
        step(model, inputs, optimiser)
        if epoch < 2:
            report.step()


def test_no_false_alarm_for_accumulation_evaluation_and_other_models_optimisers():
    model, report, inputs = training()
    other = torch.nn.Linear(3, 1)
    optimiser, another = torch.optim.AdamW(model.parameters(), fused=True), torch.optim.SGD(other.parameters(), 0.1)
    for _ in range(3):
        for _ in range(2):
            model(**inputs).loss.backward()
            other(torch.ones(3)).sum().backward()
            another.step()
        optimiser.step()
        model.eval()(**inputs)  # before the schedule's step
        model.train()
        report.step()
    model.load_state_dict(copy.deepcopy(model.state_dict()))
    model(**inputs)


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_callbacks_drive_the_model_that_the_trainer_builds(tmp_path, schedule):
    reports = []

    def build():
        model = small("bert", **NO_DROPOUT)
        reports.append(apply(model, VIB(beta=1.0, warmup_steps=2, schedule=schedule)))
        return model

    first = build()
    arguments = trainer_for(first, reports[0], tmp_path, max_steps=4, logging_strategy="steps", logging_steps=1).args
    trainer = Trainer(
        model_init=build, args=arguments, train_dataset=Rows(first), callbacks=copy.deepcopy(reports[0]).callbacks
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert int(penalty_layers(trainer.model)[0].step) == 4
    assert int(penalty_layers(first)[0].step) == 0
    assert losses[-1] > 5  # the penalty at its full weight; without it about 0.7
    assert (losses[0] < 2) == (schedule == "linear")


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_a_search_of_hyperparameters_trains_the_model_of_each_trial(tmp_path, schedule):
    first = small("bert", **NO_DROPOUT)
    report = apply(first, VIB(beta=1.0, warmup_steps=2, schedule=schedule))
    trained = []

    def build():
        model = small("bert", **NO_DROPOUT)
        apply(model, VIB(beta=1.0, warmup_steps=2, schedule=schedule))
        trained.append(model)
        return model

    arguments = trainer_for(first, report, tmp_path, max_steps=4, logging_strategy="steps", logging_steps=1).args
    rows = Rows(first)
    trainer = Trainer(
        model_init=build, args=arguments, train_dataset=rows, eval_dataset=rows, callbacks=report.callbacks
    )
    losses = []

    def last_loss(_):
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        return losses[-1][-1]

    trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-4)},
        compute_objective=last_loss, n_trials=2, direction="minimize", backend="optuna",
    )  # fmt: skip
    assert len(losses) == 2
    for model, trial in zip(trained[-2:], losses, strict=True):
        assert int(penalty_layers(model)[0].step) == 4
        assert trial[-1] > 5  # the penalty at its full weight; without it about 0.7
        assert (trial[0] < 2) == (schedule == "linear")


def test_a_trainer_that_puts_a_forward_of_its_own_on_the_instance_raises():
    model, _, inputs = training(KLNorm(placement="internal", beta=0.1))

    def forward(input_ids, attention_mask, labels, **_):  # what trl's SFTTrainer does
        logits = model.classifier(model.bert(input_ids, attention_mask).pooler_output)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels)}

    model.forward = forward
    with pytest.raises(RuntimeError, match=r"forward was replaced.*SFTTrainer"):
        model(**inputs)
    model.eval()(**inputs)
    with torch.no_grad():
        model.train()(**inputs)


@pytest.mark.parametrize("method", [L2SP(alpha=10.0), KLNorm(placement="internal", beta=0.1)], ids=lambda m: m.name)
def test_a_head_of_ones_own_that_leaves_the_penalty_out_raises(method):
    encoder = small("bert", **NO_DROPOUT).bert
    apply(encoder, method)
    encoder.train()
    inputs = {"input_ids": torch.arange(5, 15).view(2, 5)}
    head = torch.nn.Linear(zoo.WIDTH, 2)

    def loss(as_tuple=False):
        outputs = encoder(**inputs, return_dict=not as_tuple)
        return head(outputs[0][:, 0]).square().mean()

    for as_tuple in (False, True):
        with pytest.raises(RuntimeError, match="reached no loss"):
            loss(as_tuple).backward()
    (loss() + auxiliary_loss(encoder)).backward()
    with torch.no_grad():
        loss()


@pytest.mark.parametrize("method", [KLNorm(form="C", beta=0.1), NormHead("layer")], ids=lambda m: m.name)
def test_a_head_that_was_replaced_after_apply_raises(method):
    model, _, inputs = training(method)
    model.classifier = torch.nn.Linear(zoo.WIDTH, zoo.LABELS)
    with pytest.raises(RuntimeError, match="no longer there.*then apply"):
        model(**inputs)


def test_an_embedding_that_was_resized_after_apply_raises():
    model, _, inputs = training(L2SP(alpha=0.1))
    model.resize_token_embeddings(130, mean_resizing=False)
    with pytest.raises(RuntimeError, match="resized after apply"):
        model(**inputs)


def test_a_part_that_was_replaced_after_apply_raises_whatever_keeps_something_of_it():
    def new_layer(model):
        model.bert.encoder.layer[0] = copy.deepcopy(model.bert.encoder.layer[0])

    def other_shape(model):
        query = model.bert.encoder.layer[0].attention.self.query
        query._parameters["weight"].data = torch.zeros(zoo.WIDTH, 8)

    def new_head(model):
        model.classifier = torch.nn.Linear(zoo.WIDTH, zoo.LABELS)

    def new_embeddings(model):
        model.set_input_embeddings(torch.nn.Embedding(120, zoo.WIDTH))

    anchors = [L2SP(alpha=0.1), EWC(strength=0.1), ChildTuning(keep=0.3)]
    cases = [(m, change, error) for m in anchors for change, error in
             ((new_layer, "no longer part"), (other_shape, "resized after apply"))]  # fmt: skip
    cases += [(L2SP(alpha=0.1), new_embeddings, "no longer part"), (L2SP(beta=0.1), new_head, "no longer part")]
    cases += [(Mixout(p=0.5), other_shape, "resized after apply")]
    for method, change, error in cases:
        plain = small("bert", **NO_DROPOUT)
        model, _, inputs = training(ready(method, plain))
        model(**inputs).loss.backward()
        change(model)
        with pytest.raises(RuntimeError, match=error):
            model(**inputs)


CLASSES = {"sequence": BertForSequenceClassification, "tokens": BertForTokenClassification, "words": BertLMHeadModel}
BEFORE_HEAD = [NormHead("layer"), MLPHead(rank=2), VIB(bottleneck=4, schedule="constant")]


@pytest.mark.parametrize("method", BEFORE_HEAD, ids=lambda m: m.name)
@pytest.mark.parametrize("head", CLASSES)
def test_a_forward_on_the_instance_that_passes_a_layer_before_the_head_by_raises(method, head):
    config = copy.deepcopy(small("bert").config)
    config.is_decoder, config.tie_word_embeddings = head == "words", False
    model = CLASSES[head](config)
    apply(model, method)
    inputs = {"input_ids": torch.arange(5, 25).view(2, 10)}
    (last,) = [m for m in model.modules() if isinstance(m, BeforeHead)]
    for name in ("weight", "bias"):
        with pytest.raises(AttributeError, match="past the layer before it"):
            getattr(last, name)
    assert not hasattr(last, "weight")

    def hidden():
        return model.bert(**inputs).last_hidden_state[:, 0]

    if method.name != "vib":  # called part by part, the layer is there
        last(hidden()).sum().backward()
        assert all(p.grad is not None for p in last.parameters())
    model.train()
    model.forward = lambda **_: {"loss": hidden().sum()}
    with pytest.raises(RuntimeError, match="would be lost"):
        model(**inputs)
    model.eval()
    with torch.no_grad():
        model(**inputs)
    model.train()
    inner = type(model).forward
    model.forward = lambda **given: inner(model, **given)  # as accelerate's
    if head == "sequence":
        model(**inputs, labels=torch.tensor([0, 1])).loss.backward()


def test_without_a_mask_padding_tokens_do_not_count():
    for placement in ("pooled", "internal"):
        model, _, inputs = training(KLNorm(form="C", beta=0.1, placement=placement))
        stir(model)
        seen = []
        for layer in penalty_layers(model):
            layer.register_forward_hook(lambda m, given, out, seen=seen: seen.append(m.positions(given[0])))
        del inputs["attention_mask"]
        model(**inputs)
        real = inputs["input_ids"] != model.config.pad_token_id
        assert not real.all()
        assert all(torch.equal(mask, real) for mask in seen if mask is not None)
        assert any(mask is not None for mask in seen) == (placement == "internal")


@pytest.mark.parametrize("name", ROWS)
def test_a_changed_model_is_traced(name):
    model = small("bert", **NO_DROPOUT)
    settings = {**next(iter(ROWS[name].settings.values())), **ROWS[name].made_for(model)}
    apply(model, build(name, **settings).prepare(model, [zoo.batch(model)]))
    model.eval()
    inputs, others = (zoo.batch(model, labels=False, seed=seed) for seed in (0, 1))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, example_kwarg_inputs=inputs, strict=False)
        torch.testing.assert_close(traced(**others)["logits"], model(**others).logits, rtol=0, atol=1e-5)


def test_what_wraps_or_moves_a_model_loses_nothing():
    for method in (KLNorm(form="C", beta=0.1), L2SP(alpha=0.1)):
        model, _, inputs = training(method)
        expected = seeded(model, inputs).loss
        for other in (copy.deepcopy(model), torch.nn.DataParallel(model)):
            torch.testing.assert_close(seeded(other, inputs).loss, expected, rtol=1e-3, atol=0)
        model.tie_weights()
        model.double().float()(**inputs).loss.backward()
    model, _, inputs = training(KLNorm(form="C", beta=0.1))
    wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"]))
    wrapped.train()(**inputs).loss.backward()


@pytest.mark.parametrize("method", [KLNorm(beta=0.1), L2SP(), RDrop(), Dropout(p=0.2)], ids=lambda m: m.name)
def test_training_in_evaluation_mode_warns_once_and_measuring_does_not(method):
    model, _, inputs = training(method)
    model.eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*evaluation mode")
        model(**inputs)  # no gradient comes back
        for way in ("hooks", "func", "loop"):
            diagonal_fisher(model, [inputs], method=way, progress=False)
    with pytest.warns(UserWarning, match="evaluation mode"):
        model(**inputs).loss.backward()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*evaluation mode")
        model(**inputs).loss.backward()


def test_a_head_without_noise_trains_in_evaluation_mode_without_a_warning():
    model, _, inputs = training(NormHead("layer"))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*evaluation mode")
        model.eval()(**inputs).loss.backward()


@pytest.mark.parametrize("closure", [False, True], ids=["loop", "closure"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_step_after_a_gradient_in_evaluation_mode_raises(name, closure):
    model, _, inputs = training(KLNorm(beta=0.1))
    optimiser = OPTIMISERS[name](model.parameters())
    before = weights(model)

    def backward():  # Lightning gives one to the optimiser
        model(**inputs).loss.backward()

    def step():
        if closure:
            optimiser.step(backward)
        else:
            backward()
            optimiser.step()

    model.eval()
    with pytest.warns(UserWarning, match="evaluation mode"), pytest.raises(RuntimeError, match=r"model\.train\(\)"):
        step()
    assert closure or all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    model.train()
    step()
    model.eval()
    diagonal_fisher(model, [inputs], progress=False)
    model(**inputs).loss.backward()  # a saliency map, say, beside a step of training
    model.train()
    step()
    with torch.no_grad():
        model.eval()(**inputs)
    optimiser.step()
    other = small("bert")
    apply(other, NormHead("layer"))
    other.eval()(**inputs).loss.backward()
    torch.optim.SGD(other.parameters(), 0.1).step()


@pytest.mark.parametrize("method", [KLNorm(form="C", beta=0.5), L2SP(alpha=1.0)], ids=lambda m: m.name)
def test_a_loss_of_ones_own_takes_the_same_step_at_any_accumulation(tmp_path, method):
    by_class = torch.tensor([1.0, 2.0, 3.0])

    def one_step(parts):
        model, report, _ = training(method)
        before = torch.cat([p.detach().flatten().clone() for p in stir(moved(model)).parameters()])

        def loss(outputs, labels, num_items_in_batch):
            task = torch.nn.functional.cross_entropy(outputs.logits, labels, by_class, reduction="sum")
            return (task + auxiliary_loss(model) * len(labels)) / num_items_in_batch

        trainer = trainer_for(
            model, report, tmp_path, max_steps=1, gradient_accumulation_steps=parts, optim="sgd",
            per_device_train_batch_size=16 // parts, max_grad_norm=0.0, learning_rate=0.1,
        )  # fmt: skip
        trainer.compute_loss_func = loss
        trainer.train()
        return torch.cat([p.detach().flatten() for p in model.parameters()]) - before

    whole = one_step(1)
    for parts in (2, 4):
        assert (one_step(parts) - whole).norm() < 1e-3 * whole.norm()


@pytest.mark.parametrize("name", ROWS)
def test_a_changed_model_exports(name):
    model = small("bert", **NO_DROPOUT)
    settings = {**next(iter(ROWS[name].settings.values())), **ROWS[name].made_for(model)}
    apply(model, build(name, **settings).prepare(model, [zoo.batch(model)]))
    model.eval()
    inputs = zoo.batch(model, labels=False)
    with torch.no_grad():
        exported = torch.export.export(model, (), inputs).module()
        torch.testing.assert_close(exported(**inputs).logits, model(**inputs).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_trainer_that_was_built_before_apply_does_not_divide_and_is_refused(tmp_path, parts):
    model = zoo.build("bert")
    rows = [{k: v[i % len(v)] for k, v in zoo.batch(model).items()} for i in range(8)]
    arguments = TrainingArguments(
        str(tmp_path), report_to="none", use_cpu=True, max_steps=1, save_strategy="no",
        per_device_train_batch_size=2, gradient_accumulation_steps=parts,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=rows)
    apply(model, KLNorm())
    if parts == 1:
        trainer.train()
    else:
        with pytest.raises(RuntimeError, match="call apply first"):
            trainer.train()
