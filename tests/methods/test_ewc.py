"""EWC: with a constant Fisher it is L2-SP; otherwise the same pull, spent where the Fisher is."""

import pytest
import torch

from klnorm_lib import EWC, L2SP, KLNorm, RDrop, apply, auxiliary_loss, encoders, load
from klnorm_lib.methods import build, to_dict
from klnorm_lib.probes.fisher.table import save_fisher
from tests import zoo
from tests.methods.loops import NO_DROPOUT, trainer_for
from tests.methods.test_l2_sp import gradients, moved, pulled


def made_fisher(name="bert", prefix="", constant=None, **config):
    """A Fisher of the model's encoder: squares that span powers of ten, or a constant."""
    g = torch.Generator().manual_seed(3)
    encoder = zoo.build(name, kind="encoder", **config)
    values = {
        prefix + n: torch.randn(p.shape, generator=g).mul(6).exp() * 1e-9
        if constant is None
        else torch.full(p.shape, constant)
        for n, p in encoder.named_parameters()
        if not n.startswith("pooler.")
    }
    return values | {"cls.predictions.bias": torch.ones(120)}


@pytest.fixture
def file(tmp_path):
    return save_fisher(tmp_path / "fisher.safetensors", made_fisher(), {"model": "made"})


@pytest.mark.parametrize("name", ["bert", "distilbert", "deberta-v2", "wav2vec2"])
def test_with_a_constant_fisher_it_is_l2_sp_exactly(name, tmp_path):
    path = save_fisher(tmp_path / "one.safetensors", made_fisher(name, constant=1.0), {})
    ours, _ = moved(EWC(strength=0.5, fisher=path), name=name)
    theirs, _ = moved(L2SP(alpha=0.5), name=name)
    for model in (ours, theirs):
        torch.manual_seed(0)
        model(**zoo.batch(model)).loss.backward()
    assert auxiliary_loss(ours).item() == auxiliary_loss(theirs).item() > 0
    for (parameter, mine), its in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (mine.grad is None and its.grad is None) or torch.equal(mine.grad, its.grad), parameter


@pytest.mark.parametrize("scale", [1e-12, 1e6])
def test_the_scale_of_the_fisher_does_not_matter(scale, tmp_path):
    path = save_fisher(tmp_path / "scaled.safetensors", made_fisher(constant=scale), {})
    ours, _ = moved(EWC(strength=0.5, fisher=path))
    theirs, _ = moved(L2SP(alpha=0.5))
    for model in (ours, theirs):
        model(**zoo.batch(model))
    assert auxiliary_loss(ours).item() == pytest.approx(auxiliary_loss(theirs).item(), rel=1e-6)


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_gradient_is_strength_times_the_normalised_fisher_times_the_distance(prefix, tmp_path):
    fisher = made_fisher(prefix=prefix)
    path = save_fisher(tmp_path / "fisher.safetensors", fisher, {})
    model, start = moved(EWC(strength=0.5, fisher=path))
    model(**zoo.batch(model))
    fisher = {n: fisher[prefix + n.removeprefix("bert.")] for n in pulled(model)}
    mean = torch.cat([f.flatten() for f in fisher.values()]).double().mean()
    got = torch.autograd.grad(
        auxiliary_loss(model).as_subclass(torch.Tensor), list(model.parameters()), allow_unused=True
    )
    for (name, parameter), gradient in zip(model.named_parameters(), got, strict=True):
        if name not in pulled(model):
            assert gradient is None, name
            continue
        expected = 0.5 * (fisher[name].double() / mean) * (parameter - start[name])
        torch.testing.assert_close(gradient.double(), expected, rtol=1e-5, atol=1e-12, msg=name)
    weights = [b for n, b in model.ewc.named_buffers() if n.startswith("weight_")]
    assert torch.cat([w.flatten() for w in weights]).double().mean().item() == pytest.approx(1.0, rel=1e-6)


def test_training_moves_informative_weights_less(tmp_path):
    g = torch.Generator().manual_seed(3)
    fisher = {n: torch.randint(0, 2, f.shape, generator=g).float() for n, f in made_fisher().items()}
    path = save_fisher(tmp_path / "fisher.safetensors", fisher, {})
    model = zoo.build("bert")
    report = apply(model, EWC(strength=4.0, fisher=path))
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    trainer_for(model, report, tmp_path, max_steps=12, optim="sgd", max_grad_norm=0.0, learning_rate=0.1).train()
    moves, held = [], []
    for name, parameter in model.named_parameters():
        if name in pulled(model):
            moves.append((parameter.detach() - start[name]).abs().flatten())
            held.append(fisher[name.removeprefix("bert.")].flatten() > 0)
    moves, held = torch.cat(moves), torch.cat(held)
    assert moves[held].mean() < 0.5 * moves[~held].mean()


def test_evaluation_is_that_of_the_plain_model_and_nothing_is_saved(file, tmp_path):
    model, _ = moved(EWC(strength=0.5, fisher=file))
    plain = zoo.build("bert", **NO_DROPOUT)
    assert set(model.state_dict()) == set(plain.state_dict())
    plain.load_state_dict(model.state_dict())
    inputs = zoo.batch(model)
    assert torch.equal(model.eval()(**inputs).loss, plain(**inputs).loss)
    model.save_pretrained(tmp_path / "saved")
    file.unlink()
    loaded = load(tmp_path / "saved")  # without the Fisher
    assert torch.equal(loaded(**inputs).logits, plain(**inputs).logits)
    with pytest.raises(RuntimeError, match="build the pretrained model"):
        loaded.train()(**inputs)


def test_trains_under_bf16_and_checkpointing_and_with_other_methods(file, tmp_path):
    model = zoo.build("bert")
    report = apply(model, RDrop(), EWC(strength=1.0, fisher=file), KLNorm())
    trainer_for(
        model, report, tmp_path, bf16=True, gradient_checkpointing=True, gradient_accumulation_steps=2,
        gradient_checkpointing_kwargs={"use_reentrant": False},
    ).train()  # fmt: skip
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert any(b.abs().sum() > 0 for b in model.ewc.buffers())


def test_a_fisher_that_does_not_fit_says_where(tmp_path):
    def applied(fisher, model=None):
        path = save_fisher(tmp_path / "fisher.safetensors", fisher, {})
        model = model or zoo.build("bert")
        return model, apply(model, EWC(fisher=path))

    lacking = {n: f for n, f in made_fisher().items() if "token_type" not in n}
    with pytest.raises(ValueError, match=r"it has nothing for embeddings\.token_type_embeddings\.weight"):
        applied(lacking)
    model = zoo.build("bert")
    model.bert.embeddings.token_type_embeddings.requires_grad_(False)
    applied(lacking, model)
    with pytest.raises(ValueError, match=r"word_embeddings\.weight in the shape \(130, 32\)"):
        applied(made_fisher(vocab_size=130))
    with pytest.raises(ValueError, match="the mean 0"):
        applied(made_fisher(constant=0.0))


def test_no_fisher_to_be_found_says_what_to_run():
    with pytest.raises(ValueError, match="klnorm fisher"):
        apply(zoo.build("bert"), EWC())
    with pytest.raises(FileNotFoundError, match="klnorm fisher"):
        apply(zoo.build("bert"), EWC(fisher="nobody/nothing"))


def test_the_fisher_of_the_models_own_encoder_is_found_and_must_be_of_its_weights(tmp_path, monkeypatch):
    from klnorm_lib.probes.fisher import table

    model, _ = encoders.load("klnorm-nano", num_labels=2)
    encoder = {n: torch.rand(p.shape) for n, p in model.base_model.named_parameters()}
    monkeypatch.setattr(table, "TABLES", tmp_path)
    sha256 = model.klnorm_source.sha256
    save_fisher(tmp_path / "klnorm-nano.safetensors", encoder, {"sha256": sha256, "sequences": 1200}, torch.bfloat16)
    report = apply(model, EWC())
    assert "by the Fisher of klnorm-nano (1,200 sequences)" in str(report)
    assert model._klnorm_methods == (EWC(fisher="klnorm-nano"),)
    save_fisher(tmp_path / "klnorm-nano.safetensors", encoder, {"sha256": "0" * 64})
    model, _ = encoders.load("klnorm-nano", num_labels=2)
    with pytest.raises(ValueError, match="other weights"):
        apply(model, EWC())


def test_frozen_encoders_are_refused(file):
    model = zoo.build("bert")
    model.bert.requires_grad_(False)
    with pytest.raises(ValueError, match="LoRA"):
        apply(model, EWC(fisher=file))


@pytest.mark.parametrize(
    ("fields", "error"),
    [({"strength": -1.0}, ValueError), ({"strength": True}, TypeError), ({"fisher": {"a": 1}}, TypeError)],
)
def test_bad_fields(fields, error):
    with pytest.raises(error, match=next(iter(fields))):
        EWC(**fields)


def test_way_to_a_record_and_back(tmp_path):
    assert build("ewc", **{k: v for k, v in to_dict(EWC(0.5, tmp_path)).items() if k != "name"}) == EWC(
        0.5, str(tmp_path)
    )


def test_gradients_are_finite_where_the_fisher_is_zero(tmp_path):
    fisher = made_fisher()
    fisher["embeddings.position_embeddings.weight"].zero_()
    model, _ = moved(EWC(strength=0.5, fisher=save_fisher(tmp_path / "f.safetensors", fisher, {})))
    assert all(torch.isfinite(g).all() for g in gradients(model, zoo.batch(model)).values())
