"""Child-Tuning-D: the share that is kept, that the rest does not move at all, and copies that are masked too."""

import copy

import pytest
import torch

from klnorm_lib import L2SP, ChildTuning, GuidedDropout, KLNorm, Mixout, RDrop, apply, load
from klnorm_lib.methods.child_tuning import highest
from klnorm_lib.probes import diagonal_fisher
from klnorm_lib.sites.walk import encoder_of
from tests import zoo
from tests.methods.loops import NO_DROPOUT, trainer_for


def rows(model, batches=2):
    return [zoo.batch(model, seed=seed) for seed in range(batches)]


def tuned(keep=0.3, *others, name="bert", **config):
    model = zoo.build(name, **config)
    method = ChildTuning(keep=keep).prepare(model, rows(model))
    return model, apply(model, method, *others), masks(model, method)


def masks(model, method):
    """The masks under the names of the model's parameters, True everywhere for those without one."""
    names = {id(p): n for n, p in encoder_of(model).named_parameters()}
    return {n: method.kept.get(names.get(id(p)), torch.ones_like(p).bool()) for n, p in model.named_parameters()}


def train(model, report, folder, **arguments):
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    trainer_for(model, report, folder, **arguments).train()
    return {n: p.detach() - before[n] for n, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("keep", "name"),
    [
        *((keep, "bert") for keep in (0.01, 0.3, 0.999, 1.0)),
        *((0.3, n) for n in ("distilbert", "deberta-v2", "wav2vec2")),
    ],
)
def test_the_kept_share_is_as_asked_and_has_the_highest_fisher(keep, name):
    model = zoo.build(name)
    method = ChildTuning(keep=keep).prepare(model, rows(model))
    total = sum(mask.numel() for mask in method.kept.values())
    assert sum(int(mask.sum()) for mask in method.kept.values()) == round(keep * total)
    layers = {n for n, _ in encoder_of(model).named_parameters() if ".layer." in f".{n}" or ".layers." in f".{n}"}
    assert set(method.kept) == layers
    fisher = diagonal_fisher(model, rows(model), progress=False)
    prefix = f"{model.base_model_prefix}."
    inside, outside = ([fisher[prefix + n][mask == kept] for n, mask in method.kept.items()] for kept in (True, False))
    if keep < 1:
        assert torch.cat(inside).min() >= torch.cat(outside).max()


@pytest.mark.parametrize("wrap", [torch.nn.DataParallel, torch.compile])
def test_a_wrapped_model_is_prepared_as_the_one_inside(wrap):
    model = zoo.build("bert")
    for method in (ChildTuning(keep=0.3), GuidedDropout(fisher="task")):
        inside, wrapped = (method.prepare(m, rows(model)) for m in (model, wrap(model)))
        assert wrapped == inside
        if isinstance(method, ChildTuning):
            assert wrapped.kept.keys() == inside.kept.keys()
            assert all(torch.equal(wrapped.kept[n], mask) for n, mask in inside.kept.items())


def test_ties_do_not_change_the_number_kept():
    scores = [torch.zeros(3, 4), torch.ones(5)]
    assert [int(mask.sum()) for mask in highest(scores, 5 / 17)] == [0, 5]
    assert sum(int(mask.sum()) for mask in highest(scores, 8 / 17)) == 8
    assert sum(int(mask.sum()) for mask in highest(scores, 0.001)) == 1


@pytest.mark.parametrize("optim", ["adamw_torch", "sgd"])
def test_masked_weights_do_not_move_at_all_and_the_others_do(optim, tmp_path):
    model, report, kept = tuned(0.3)
    moved = train(model, report, tmp_path, optim=optim, max_grad_norm=0.5, gradient_accumulation_steps=2)
    for name, change in moved.items():
        assert not change[~kept[name]].any(), name
    inside = torch.cat([moved[n][mask] for n, mask in kept.items() if ".layer." in n])
    assert (inside != 0).float().mean() > 0.99
    for name in ("bert.embeddings.word_embeddings.weight", "bert.pooler.dense.weight", "classifier.weight"):
        assert moved[name].any(), name


def test_decoupled_weight_decay_shrinks_masked_weights_all_the_same(tmp_path):
    model, report, kept = tuned(0.3)
    name = "bert.encoder.layer.0.output.dense.weight"
    before = model.get_parameter(name).detach().clone()
    train(model, report, tmp_path, optim="adamw_torch", weight_decay=0.5, max_steps=1, lr_scheduler_type="constant")
    left = (model.get_parameter(name) / before)[~kept[name]]
    torch.testing.assert_close(left, torch.full_like(left, 1 - 1e-2 * 0.5))


def test_masked_before_clipping():
    model, _, kept = tuned(0.1, **NO_DROPOUT)
    plain = zoo.build("bert", **NO_DROPOUT)
    for each in (model, plain):
        each.train()(**zoo.batch(each)).loss.backward()
    expected = {n: p.grad * kept[n] for n, p in plain.named_parameters()}
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, expected[name]), name
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    torch.testing.assert_close(norm, torch.stack([g.norm() for g in expected.values()]).norm())


def test_keeping_all_is_plain_fine_tuning(tmp_path):
    model, report, _ = tuned(1.0)
    plain = zoo.build("bert")
    ours = train(model, report, tmp_path)
    theirs = train(plain, apply(plain), tmp_path)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_preparing_leaves_the_model_as_it_was():
    model = zoo.build("bert")
    state, before = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    ChildTuning().prepare(model, rows(model))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_penalties_of_other_methods_do_not_move_masked_weights(tmp_path):
    others = [L2SP(alpha=1.0), RDrop(), KLNorm(beta=0.1), Mixout(p=0.3)]
    model, report, kept = tuned(0.3, *others)
    moved = train(model, report, tmp_path)
    assert not any(change[~kept[n]].any() for n, change in moved.items() if n in kept)


def test_it_goes_together_with_guided_dropout():
    model = zoo.build("bert")
    methods = [m.prepare(model, rows(model)) for m in (GuidedDropout(fisher="task"), ChildTuning(keep=0.5))]
    report = apply(model, *methods)
    assert {line.split(":")[0] for line in report.changed} == {"guided_dropout", "child_tuning"}
    model.train()(**zoo.batch(model)).loss.backward()


def test_the_mask_is_not_saved_and_a_loaded_model_predicts_but_does_not_train(tmp_path):
    model, _, _ = tuned(0.3)
    assert set(model.state_dict()) == set(zoo.build("bert").state_dict())
    model.save_pretrained(tmp_path)
    loaded, inputs = load(tmp_path).train(), zoo.batch(model)
    with torch.no_grad():
        loaded(**inputs)
    with pytest.raises(RuntimeError, match="prepare the method"):
        loaded(**inputs)


def test_the_report_counts_by_layer():
    model, report, kept = tuned(0.25)
    assert len(report.changed) == zoo.LAYERS
    for line, i in zip(report.changed, range(zoo.LAYERS), strict=True):
        parts = [mask for name, mask in kept.items() if f".layer.{i}." in name]
        total, mine = sum(m.numel() for m in parts), sum(int(m.sum()) for m in parts)
        assert line == f"child_tuning: {mine / total:.1%} of {total:,} parameters train in encoder.layer.{i}"


def test_without_rows_it_says_what_to_do():
    with pytest.raises(ValueError, match="prepare"):
        apply(zoo.build("bert"), ChildTuning())


def test_a_mask_of_another_model_is_refused():
    model = zoo.build("bert")
    method = ChildTuning().prepare(model, rows(model))
    with pytest.raises(ValueError, match="does not fit"):
        apply(zoo.build("bert", intermediate_size=48), method)
    with pytest.raises(ValueError, match="does not fit"):
        apply(zoo.build("bert", num_hidden_layers=1), method)
    frozen = zoo.build("bert")
    frozen.bert.encoder.layer[0].requires_grad_(False)
    with pytest.raises(ValueError, match="does not fit"):
        apply(frozen, method)
    apply(frozen, ChildTuning().prepare(frozen, rows(frozen)))


def test_frozen_layers_are_refused():
    model = zoo.build("bert")
    model.bert.encoder.requires_grad_(False)
    with pytest.raises(ValueError, match=r"layer\.0"):
        ChildTuning().prepare(model, rows(model))


@pytest.mark.parametrize(
    ("keep", "error"),
    [(0.0, ValueError), (1.1, ValueError), (float("nan"), ValueError), ("a", TypeError), (True, TypeError)],
)
def test_bad_shares(keep, error):
    with pytest.raises(error, match="keep"):
        ChildTuning(keep=keep)
