"""Sections, curvature and sharpness against closed forms, on a quadratic loss; the rules of sets; the cache."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from klnorm_lib.probes import landscape
from klnorm_lib.probes.landscape import ParameterSet, direction, hessian_trace, section, sharpness, split, symmetric
from klnorm_lib.probes.landscape.evaluation import MeanLoss, at_rest
from klnorm_lib.probes.landscape.sets import UNITS, filter_axes

RADII = (0.14, 0.5, 1.0)


class Quadratic(nn.Module):
    """l_i = a_i (theta - c)' A (theta - c) / 2 + b_i . theta over two matrices and a vector."""

    def __init__(self, seed=0, slope=1.0):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(5, 4, generator=g))
        self.vector = nn.Parameter(torch.randn(5, generator=g))
        self.second = nn.Parameter(torch.randn(3, 2, generator=g))
        n = 31
        root = torch.randn(n, n, generator=g) / n**0.5
        self.register_buffer("a_matrix", root @ root.T + 0.1 * torch.eye(n))
        self.register_buffer("centre", self.theta().detach() + slope * torch.randn(n, generator=g))
        self.slope = slope

    def theta(self):
        return torch.cat([p.flatten() for p in self.parameters()])

    def forward(self, a, b):
        away = self.theta() - self.centre
        return a * (away @ self.a_matrix @ away) / 2 + self.slope * (b @ self.theta())


def quadratic_loss(model, batch):
    return model(batch["a"], batch["b"])


def rows(*sizes, seed=1):
    g = torch.Generator().manual_seed(seed)
    return [{"a": torch.rand(n, generator=g) + 0.5, "b": torch.randn(n, 31, generator=g)} for n in sizes]


def hessian(model, batches):
    return model.a_matrix * torch.cat([b["a"] for b in batches]).mean()


def gradient(model, batches):
    b = torch.cat([b["b"] for b in batches]).mean(0) * model.slope
    return hessian(model, batches) @ (model.theta().detach() - model.centre) + b


def value(model, batches):
    away = model.theta().detach() - model.centre
    b = torch.cat([b["b"] for b in batches]).mean(0) * model.slope
    return float(away @ hessian(model, batches) @ away / 2 + b @ model.theta().detach())


def flat(model, along):
    zero = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    return torch.cat([(zero | dict(along))[n].flatten() for n in zero]).double()


def flat_mask(model, chosen):
    return flat(model, {n: m.float() for n, m in chosen.masks.items()})


@pytest.fixture
def quadratic():
    return Quadratic(), rows(3, 2)


def fisher_like(model, seed=3):
    g = torch.Generator().manual_seed(seed)
    return {n: torch.rand(p.shape, generator=g) ** 4 for n, p in model.named_parameters()}


def tiny_bert(**config):
    torch.manual_seed(0)
    shape = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, vocab_size=30)
    return BertForMaskedLM(BertConfig(**shape, max_position_embeddings=12, **config))


def masked_rows(n=4, length=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 30, (n, length), generator=g)
    labels = ids.clone()
    labels[:, 1::2] = -100
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    labels[0, 5:] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


# Directions


def test_filters_of_a_direction_are_as_long_as_those_of_the_weights():
    model = tiny_bert()
    along = direction(model, seed=0)
    for name, p in model.named_parameters():
        if p.dim() == 1:
            assert name not in along
        else:
            assert torch.allclose(along[name].norm(dim=1), p.detach().norm(dim=1), rtol=1e-5)
            assert abs(torch.cosine_similarity(along[name].flatten(), p.detach().flatten(), dim=0)) < 0.9
    weights = torch.cat([p.detach().flatten() for p in model.parameters() if p.dim() > 1])
    assert landscape.norm(along) == pytest.approx(weights.norm().item(), rel=1e-5)


def test_filters_of_a_transposed_layer_are_its_columns():
    torch.manual_seed(0)
    model = nn.Sequential(Conv1D(6, 3), nn.Linear(6, 2), nn.Conv2d(1, 4, 3))
    along = direction(model, seed=1)
    assert torch.allclose(along["0.weight"].norm(dim=0), model[0].weight.norm(dim=0), rtol=1e-5)
    assert not torch.allclose(along["0.weight"].norm(dim=1), model[0].weight.norm(dim=1), rtol=1e-2)
    assert torch.allclose(along["1.weight"].norm(dim=1), model[1].weight.norm(dim=1), rtol=1e-5)
    assert torch.allclose(along["2.weight"].flatten(1).norm(dim=1), model[2].weight.flatten(1).norm(dim=1), rtol=1e-5)
    gpt = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=20, n_positions=8))
    assert {n for n, axis in filter_axes(gpt).items() if axis} == {
        f"transformer.h.0.{part}.weight" for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }


def test_sets_of_a_wrapped_model_go_by_its_own_names():
    model = tiny_bert()
    plain, wrapped = (split(m, fisher_like(model)) for m in (model, nn.DataParallel(model)))
    for name, chosen in plain.items():
        assert wrapped[name].masks.keys() == {f"module.{n}" for n in chosen.masks}
        assert all(torch.equal(wrapped[name].masks[f"module.{n}"], mask) for n, mask in chosen.masks.items())


def test_directions_are_drawn_by_their_seed_alone():
    model = tiny_bert()
    before = torch.get_rng_state()
    first, again, other = direction(model, 0), direction(model, 0), direction(model, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[n], again[n]) for n in first)
    a, b = (torch.cat([d.flatten() for d in x.values()]) for x in (first, other))
    assert abs(torch.cosine_similarity(a, b, dim=0)) < 0.2


def test_a_set_cuts_the_same_draw_and_a_length_stretches_it():
    model = tiny_bert()
    whole, sets = direction(model, 4), split(model, fisher_like(model), "parameters")
    for chosen in sets.values():
        part = direction(model, 4, chosen)
        assert set(part) == set(chosen.masks)
        assert all(torch.equal(part[n], whole[n] * chosen.masks[n]) for n in part)
        long = direction(model, 4, chosen, length=2.5)
        assert landscape.norm(long) == pytest.approx(2.5, rel=1e-6)
        factor = 2.5 / landscape.norm(part)
        assert all(torch.allclose(long[n], factor * part[n], rtol=1e-5) for n in part)
    with pytest.raises(ValueError, match="moves no weight"):
        direction(model, 0, ParameterSet("none", {}), length=1.0)


def test_a_filter_of_zeros_stays_where_it_is():
    model = nn.Linear(4, 3)
    with torch.no_grad():
        model.weight[1] = 0
    assert torch.equal(direction(model, 0)["weight"][1], torch.zeros(4))
    assert landscape.filter_scale(model)["weight"][1] == 0


def test_filter_scale_is_the_root_mean_square_of_a_direction():
    model = Quadratic()
    draws = torch.stack([flat(model, direction(model, seed)) for seed in range(4000)])
    scale = {n: s.expand_as(dict(model.named_parameters())[n]) for n, s in landscape.filter_scale(model).items()}
    expected = flat(model, scale) ** 2
    error = draws.square().std(0) / len(draws) ** 0.5
    assert ((draws.square().mean(0) - expected).abs() <= 5 * error + 1e-12).all()


# Sets


@pytest.mark.parametrize("unit", UNITS)
def test_top_and_bottom_are_disjoint_and_hold_no_vector(unit):
    model = tiny_bert()
    sets = split(model, fisher_like(model), unit, seed=2)
    shapes = {n: p.shape for n, p in model.named_parameters()}
    for chosen in sets.values():
        assert all(m.dtype == torch.bool and m.shape == shapes[n] and m.dim() > 1 for n, m in chosen.masks.items())
        assert chosen.count == sum(int(m.sum()) for m in chosen.masks.values()) > 0
    for scores in (fisher_like(model), {n: torch.zeros_like(p) for n, p in model.named_parameters()}):  # all are equal
        for seed in range(5):
            top, bottom = (split(model, scores, unit, seed=seed)[end].masks for end in ("top", "bottom"))
            assert not any((top[n] & bottom[n]).any() for n in set(top) & set(bottom))


@pytest.mark.parametrize("unit", ["counts", "parameters", "within"])
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_fair_sets_have_equal_counts(unit, share):
    model = tiny_bert()
    total = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    sets = split(model, fisher_like(model), unit, share=share)
    counts = {chosen.count for chosen in sets.values()}
    assert len(counts) == 1
    if unit == "within":
        assert len({tuple(sorted((n, int(m.sum())) for n, m in s.masks.items())) for s in sets.values()}) == 1
    else:
        assert counts == {int(share * total)}


def test_equal_lengths_are_equal_whatever_the_set():
    model = tiny_bert()
    for unit in UNITS:
        for chosen in split(model, fisher_like(model), unit).values():
            assert landscape.norm(direction(model, 0, chosen, length=3.0)) == pytest.approx(3.0, rel=1e-6)


def test_published_sets_rank_tensors_vectors_among_them():
    model = tiny_bert()
    fisher = fisher_like(model)
    sets = split(model, fisher, "tensors")
    order = sorted(fisher, key=lambda n: float(fisher[n].mean()))
    half = len(order) // 2
    matrices = {n for n, p in model.named_parameters() if p.dim() > 1}
    assert set(sets["bottom"].masks) == set(order[:half]) & matrices
    assert set(sets["top"].masks) == set(order[-half:]) & matrices
    assert all(m.all() for s in sets.values() for m in s.masks.values())
    vectors_on_top = {n: f + 10.0 if f.dim() == 1 else f for n, f in fisher.items()}
    moved = split(model, vectors_on_top, "tensors")
    assert moved["top"].count < sets["top"].count  # vectors take places and do not move


def test_counts_take_matrices_in_order_and_cut_one():
    model = tiny_bert()
    fisher = fisher_like(model)
    masks = split(model, fisher, "counts")["top"].masks
    order = sorted((n for n in fisher if fisher[n].dim() > 1), key=lambda n: -float(fisher[n].mean()))
    assert list(masks) == order[: len(masks)]
    assert all(masks[n].all() for n in order[: len(masks) - 1])
    cut = masks[order[len(masks) - 1]]
    full = cut.all(1)
    assert (cut.any(1) & ~full).sum() <= 1  # whole filters, but for one


def test_parameters_are_those_of_largest_and_smallest_fisher():
    model = tiny_bert()
    fisher = fisher_like(model)
    for unit, parts in (("parameters", [[n for n in fisher if fisher[n].dim() > 1]]), ("within", None)):
        sets = split(model, fisher, unit)
        for names in parts or [[n] for n in fisher if fisher[n].dim() > 1]:
            values = torch.cat([fisher[n].flatten() for n in names])
            top, low = (torch.cat([sets[k].masks[n].flatten() for n in names]) for k in ("top", "bottom"))
            assert values[top].min() >= values[~top].max()
            assert values[low].max() <= values[~low].min()


@pytest.mark.parametrize("unit", ["tensors", "counts"])
def test_every_matrix_has_the_same_chance(unit):
    model = tiny_bert()
    fisher, n = fisher_like(model), 300
    matrices = [name for name, p in model.named_parameters() if p.dim() > 1]
    sets = [split(model, fisher, unit, share=0.25, seed=s)["random"] for s in range(n)]
    if unit == "tensors":
        held = np.array([[name in s.masks for name in matrices] for s in sets]).mean(0)
        share = int(0.25 * len(fisher)) / len(fisher)
    else:
        sizes = {name: p.numel() for name, p in model.named_parameters()}
        held = np.array([[int(s.masks[m].sum()) / sizes[m] if m in s.masks else 0 for m in matrices] for s in sets])
        held, share = held.mean(0), 0.25
        small = np.array([sizes[m] < 0.05 * sum(sizes[m] for m in matrices) for m in matrices])
        held = held[small]  # a large matrix is cut more often than it is taken whole or left
    assert (np.abs(held - share) < 0.13).all()
    assert abs(held.mean() - share) < 0.05


def test_ties_and_random_sets_are_drawn_anew_by_the_seed():
    model = tiny_bert()
    level = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for unit in ("parameters", "within"):
        first, again, other = (split(model, level, unit, seed=s) for s in (0, 0, 1))
        for name in ("top", "random"):
            n = "bert.embeddings.word_embeddings.weight"
            assert torch.equal(first[name].masks[n], again[name].masks[n])
            assert not torch.equal(first[name].masks[n], other[name].masks[n])


def test_parameters_that_fisher_leaves_out_are_in_no_set():
    model = tiny_bert()
    encoder = {n: f for n, f in fisher_like(model).items() if n.startswith("bert.")}
    for unit in UNITS:
        assert all(n.startswith("bert.") for s in split(model, encoder, unit).values() for n in s.masks)


def test_wrong_sets_are_refused():
    model = tiny_bert()
    fisher = fisher_like(model)
    with pytest.raises(ValueError, match="choose one of tensors"):
        split(model, fisher, "layers")
    with pytest.raises(ValueError, match="disjoint"):
        split(model, fisher, share=0.6)
    with pytest.raises(ValueError, match="no such parameter"):
        split(model, {"nobody": torch.ones(2, 2)})
    with pytest.raises(ValueError, match="nothing to choose"):
        split(model, {n: f for n, f in fisher.items() if f.dim() == 1})


# Sections


@pytest.mark.parametrize("method", ["loop", "vmap"])
def test_section_of_a_quadratic_is_its_closed_form(quadratic, method):
    model, batches = quadratic
    along, across = direction(model, 0), direction(model, 1)
    axes = symmetric(*RADII), symmetric(0.3)
    found = section(model, batches, [along, across], *axes, loss=quadratic_loss, method=method, chunk=4, progress=False)
    h, g = hessian(model, batches).double(), gradient(model, batches).double()
    d, e = flat(model, along), flat(model, across)
    for i, a in enumerate(axes[0]):
        for j, b in enumerate(axes[1]):
            step = a * d + b * e
            expected = value(model, batches) + float(g @ step + step @ h @ step / 2)
            assert found.losses[i, j] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_rise_is_half_the_curvature_times_the_square_of_the_radius(quadratic):
    model, batches = quadratic
    along = direction(model, 0)
    radii, rise = section(model, batches, along, symmetric(*RADII), loss=quadratic_loss, progress=False).rise()
    assert radii.tolist() == list(RADII)
    d = flat(model, along)
    curvature = float(d @ hessian(model, batches).double() @ d)
    assert np.allclose(rise, curvature * radii**2 / 2, rtol=1e-4)


def test_rise_of_a_plane_is_the_mean_over_each_circle():
    axis = np.array([-1.0, 0.0, 1.0])
    losses = np.arange(9.0).reshape(3, 3)
    radii, rise = landscape.Section((axis, axis), losses, 9).rise()
    assert np.allclose(radii, [1, 2**0.5])
    assert np.allclose(rise, [(1 + 3 + 5 + 7) / 4 - 4, (0 + 2 + 6 + 8) / 4 - 4])


def test_mean_curvature_of_sections_is_the_scaled_trace(quadratic):
    model, batches = quadratic
    curvature = []
    for seed in range(60):
        radii, rise = section(
            model, batches, direction(model, seed), symmetric(0.1), loss=quadratic_loss, progress=False
        ).rise()
        curvature.append(2 * rise[0] / radii[0] ** 2)
    scale = landscape.filter_scale(model)
    sizes = flat(model, {n: s.expand_as(dict(model.named_parameters())[n]) for n, s in scale.items()})
    exact = float((sizes**2 * hessian(model, batches).double().diagonal()).sum())
    assert abs(np.mean(curvature) - exact) < 4 * np.std(curvature, ddof=1) / 60**0.5
    estimate = hessian_trace(model, batches, loss=quadratic_loss, probes=200, scale=scale)["all"]
    assert abs(estimate.mean - exact) < 4 * estimate.standard_error


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_loop_and_vmap_agree_on_a_language_model_with_tied_words(attention):
    model = tiny_bert(attn_implementation=attention)
    batches = [masked_rows(4), masked_rows(3, 5, seed=1)]
    along = direction(model, 0)
    one, many = (
        section(model, batches, along, symmetric(0.5, 1.0), method=m, chunk=2, progress=False) for m in ("loop", "vmap")
    )
    assert np.allclose(one.losses, many.losses, rtol=1e-5)
    assert np.ptp(one.losses) > 1e-3
    automatic = section(model, batches, along, symmetric(0.5, 1.0), progress=False)
    assert np.allclose(automatic.losses, one.losses, rtol=1e-5)


def test_moving_the_words_by_hand_gives_the_same_loss():
    model = tiny_bert()
    batch, along = masked_rows(), direction(model, 0)
    found = section(model, [batch], along, symmetric(0.7), method="loop", progress=False)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in along:
                p += 0.7 * along[name]
        logits = model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    each = nn.functional.cross_entropy(logits.transpose(1, 2), batch["labels"], reduction="none")
    by_hand = (each.sum(1) / (batch["labels"] != -100).sum(1)).mean().item()
    assert found.losses[-1] == pytest.approx(by_hand, rel=1e-5)


def test_origin_is_the_loss_of_the_weights_themselves():
    model = tiny_bert()
    batches = [masked_rows()]
    for steps in (1, 4, 7):
        axis = symmetric(*np.linspace(0, 1.5, steps + 1)[1:])
        assert len(axis) == 2 * steps + 1
        assert (axis == 0).sum() == 1
        assert np.array_equal(axis, -axis[::-1])
    found = section(model, batches, direction(model, 0), symmetric(0.5), method="loop", progress=False)
    still = section(model, batches, {}, np.zeros(1), method="loop", progress=False)
    assert found.origin == still.origin == found.losses[1]
    assert found.origin == pytest.approx(float(model.eval()(**batches[0]).loss.detach()), rel=0.2)


def test_a_grid_without_the_origin_is_refused(quadratic):
    model, batches = quadratic
    along = direction(model, 0)
    published = np.linspace(-1.5, 1.5, 16)
    with pytest.raises(ValueError, match="must contain the origin"):
        section(model, batches, along, published, loss=quadratic_loss)
    with pytest.raises(ValueError, match="as many axes"):
        section(model, batches, along, symmetric(1.0), symmetric(1.0), loss=quadratic_loss)
    with pytest.raises(ValueError, match="which the model has not"):
        section(model, batches, {"nobody": torch.ones(2)}, symmetric(1.0), loss=quadratic_loss)
    with pytest.raises(ValueError, match="choose one of auto"):
        section(model, batches, along, symmetric(1.0), loss=quadratic_loss, method="fast")
    with pytest.raises(ValueError, match="radii must be positive"):
        symmetric(0.0, 1.0)
    with pytest.raises(ValueError, match="one value for each"):
        section(model, batches, along, symmetric(1.0), loss=mean_loss, progress=False)
    with pytest.raises(ValueError, match="no sequence"):
        section(model, [], along, symmetric(1.0), loss=quadratic_loss)


def mean_loss(model, batch):
    return quadratic_loss(model, batch).mean()


def failing_loss(model, batch):
    if batch["a"].shape[0] == 2:
        raise RuntimeError("the second batch fails")
    return quadratic_loss(model, batch)


def test_the_model_is_the_same_to_the_bit_afterwards():
    model = tiny_bert().train()
    model.bert.encoder.layer[0].eval()
    model.bert.pooler_like = None
    batches = [masked_rows()]
    model(**batches[0]).loss.backward()
    kept = {n: t.clone() for n, t in model.state_dict().items()}
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    flags, random = [m.training for m in model.modules()], torch.get_rng_state()
    ids = {n: id(p) for n, p in model.named_parameters()}
    sets = split(model, fisher_like(model))
    section(model, batches, direction(model, 0), symmetric(1.0), method="loop", progress=False)
    section(model, batches, direction(model, 0), symmetric(1.0), method="vmap", progress=False)
    hessian_trace(model, batches, sets, probes=2)
    sharpness(model, batches, 0.5, sets["top"], steps=2, draws=1)
    assert all(torch.equal(t, kept[n]) for n, t in model.state_dict().items())
    assert all(torch.equal(p.grad, grads[n]) for n, p in model.named_parameters() if n in grads)
    assert {n: id(p) for n, p in model.named_parameters()} == ids
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert [m.training for m in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), random)


def test_the_model_is_the_same_after_an_error(quadratic):
    model, batches = quadratic
    kept = {n: t.clone() for n, t in model.state_dict().items()}
    for measure in (
        lambda: section(model, batches, direction(model, 0), symmetric(1.0), loss=failing_loss, progress=False),
        lambda: hessian_trace(model, batches, loss=failing_loss, probes=1),
        lambda: sharpness(model, batches, 1.0, loss=failing_loss),
    ):
        with pytest.raises(RuntimeError, match="second batch"):
            measure()
        assert all(torch.equal(t, kept[n]) for n, t in model.state_dict().items())
        assert model.training
        assert all(p.requires_grad for p in model.parameters())


# Cache


def test_an_interrupted_grid_goes_on(quadratic, tmp_path):
    model, batches = quadratic
    along, axis = direction(model, 0), symmetric(*RADII)
    ask = dict(loss=quadratic_loss, cache=tmp_path, method="loop", progress=False)
    whole = section(model, batches, along, axis, **ask)
    assert whole.computed == 7
    (file,) = tmp_path.iterdir()
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:3]) + "\n" + lines[3][:4])  # the fourth was being written
    resumed = section(model, batches, along, axis, **ask)
    assert resumed.computed == 4
    assert np.array_equal(resumed.losses, whole.losses)
    assert section(model, batches, along, axis, **ask).computed == 0
    assert section(model, batches, along, axis, loss=quadratic_loss, progress=False).computed == 7


def test_what_was_computed_before_an_interruption_is_kept(quadratic, tmp_path):
    model, batches = quadratic
    calls = []

    def stops(model, batch):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return quadratic_loss(model, batch)

    ask = dict(loss=stops, cache=tmp_path, method="loop", progress=False)
    with pytest.raises(KeyboardInterrupt):
        section(model, batches, direction(model, 0), symmetric(*RADII), **ask)
    assert section(model, batches, direction(model, 0), symmetric(*RADII), **ask).computed == 5  # two batches a point


def test_the_cache_knows_what_a_value_depends_on(quadratic, tmp_path):
    model, batches = quadratic
    along, axis = direction(model, 0), symmetric(0.5)

    def fresh(model=model, batches=batches, along=along, axis=axis, loss=quadratic_loss):
        return section(model, batches, along, axis, loss=loss, cache=tmp_path, progress=False).computed == 3

    assert fresh()
    assert not fresh()
    assert fresh(axis=symmetric(0.6))
    assert fresh(along=direction(model, 1))
    assert fresh(batches=rows(3, 2, seed=9))
    assert fresh(loss=lambda model, batch: 2 * quadratic_loss(model, batch))
    with torch.no_grad():
        model.vector[0] += 1e-3
    assert fresh()
    model.centre[0] += 1e-3
    assert fresh()
    assert not fresh()


# Curvature


def test_trace_is_within_its_standard_error(quadratic):
    model, batches = quadratic
    h = hessian(model, batches).double()
    sets = split(model, fisher_like(model), "parameters")
    found = hessian_trace(model, batches, sets, loss=quadratic_loss, probes=400)
    for name, chosen in sets.items():
        exact = float(h.diagonal()[flat_mask(model, chosen).bool()].sum())
        assert abs(found[name].mean - exact) < 4 * found[name].standard_error
        assert found[name].standard_error < 0.1 * exact
    whole = hessian_trace(model, batches, loss=quadratic_loss, probes=400)["all"]
    assert abs(whole.mean - float(h.trace())) < 4 * whole.standard_error


def test_standard_error_covers_as_often_as_it_says(quadratic):
    model, batches = quadratic
    exact = float(hessian(model, batches).double().trace())
    draws = np.array(hessian_trace(model, batches, loss=quadratic_loss, probes=1600)["all"].draws).reshape(100, 16)
    errors = draws.std(1, ddof=1) / 4
    covered = (abs(draws.mean(1) - exact) < 2.131 * errors).sum()  # the 97.5 % quantile of t with 15 degrees
    assert 87 <= covered <= 100
    assert math.isnan(hessian_trace(model, batches, loss=quadratic_loss, probes=1)["all"].standard_error)


def test_signs_give_a_diagonal_hessian_exactly():
    model = Quadratic()
    model.a_matrix.copy_(torch.diag(torch.arange(1.0, 32.0)))
    batches = rows(4)
    found = hessian_trace(model, batches, loss=quadratic_loss, probes=3)["all"]
    assert found.mean == pytest.approx(float(hessian(model, batches).trace()), rel=1e-5)
    assert found.standard_error < 1e-3


def test_trace_of_a_language_model_is_that_of_its_hessian():
    model, batch = tiny_bert(), masked_rows(2, 5)
    name = "bert.encoder.layer.0.attention.self.value.weight"
    own = dict(model.named_parameters())[name].detach()
    loss = MeanLoss(model, [batch])
    with at_rest(model, gradients=True):
        full = torch.autograd.functional.hessian(lambda w: loss.at({name: w}), own).reshape(64, 64)
    chosen = ParameterSet("value", {name: torch.ones_like(own, dtype=torch.bool)})
    found = hessian_trace(model, [batch], {"value": chosen}, probes=200)["value"]
    assert abs(found.mean - float(full.trace())) < 4 * found.standard_error


def test_a_linear_loss_has_no_curvature():
    model = nn.Linear(3, 2)
    found = hessian_trace(model, [{"x": torch.ones(2, 3)}], loss=lambda m, b: m(b["x"]).sum(1), probes=2)
    assert found["all"].draws == (0.0, 0.0)
    with pytest.raises(ValueError, match="at least one probe"):
        hessian_trace(model, [{"x": torch.ones(2, 3)}], probes=0)
    alone = {"bias": ParameterSet("bias", {"bias": torch.ones(2, dtype=torch.bool)})}
    with pytest.raises(ValueError, match="'bias', which the model or scale has not"):
        hessian_trace(model, [{"x": torch.ones(2, 3)}], alone, scale=landscape.filter_scale(model))


# Sharpness


def test_sharpness_of_a_quadratic_at_its_minimum_is_exact():
    model, batches = Quadratic(slope=0.0), rows(3, 2)
    h = hessian(model, batches).double()
    sets = {"all": None} | split(model, fisher_like(model), "parameters")
    for chosen in sets.values():
        keep = torch.ones(31, dtype=torch.bool) if chosen is None else flat_mask(model, chosen).bool()
        part = h[keep][:, keep]
        found = sharpness(model, batches, 0.7, chosen, loss=quadratic_loss, steps=150, draws=150)
        assert found.origin == pytest.approx(0, abs=1e-9)
        assert found.worst == pytest.approx(0.7**2 * float(torch.linalg.eigvalsh(part)[-1]) / 2, rel=1e-3)
        exact = 0.7**2 * float(part.trace()) / (2 * len(part))
        assert abs(found.average.mean - exact) < 4 * found.average.standard_error


def test_sharpness_on_a_slope_is_that_of_the_trust_region(quadratic):
    model, batches = quadratic
    h, g = hessian(model, batches).double(), gradient(model, batches).double()
    values, vectors = torch.linalg.eigh(h)
    c, radius = vectors.T @ g, 0.5
    low, high = float(values[-1]), float(values[-1]) + 1e4  # the multiplier solves |(m - H)^-1 g| = radius
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float((c / (middle - values)).norm()) > radius else (low, middle)
    step = vectors @ (c / (high - values))
    exact = float(g @ step + step @ h @ step / 2)
    found = sharpness(model, batches, radius, loss=quadratic_loss, steps=60, draws=1)
    assert found.worst == pytest.approx(exact, rel=1e-4)
    first = sharpness(model, batches, radius, loss=quadratic_loss, steps=1, draws=1).worst
    sam = radius * g / g.norm()
    assert first == pytest.approx(float(g @ sam + sam @ h @ sam / 2), rel=1e-4)
    assert first <= found.worst


def test_no_direction_is_worse_than_the_worst(quadratic):
    model, batches = quadratic
    worst = sharpness(model, batches, 0.5, loss=quadratic_loss, steps=60, draws=1).worst
    for seed in range(20):
        along = direction(model, seed, length=0.5)
        rises = section(model, batches, along, symmetric(1.0), loss=quadratic_loss, progress=False)
        assert rises.losses.max() - rises.origin <= worst * (1 + 1e-5)


def test_wrong_radii_are_refused(quadratic):
    model, batches = quadratic
    with pytest.raises(ValueError, match="must be positive"):
        sharpness(model, batches, 0.0, loss=quadratic_loss)
    with pytest.raises(ValueError, match="set is empty"):
        sharpness(model, batches, 1.0, ParameterSet("none", {}), loss=quadratic_loss)
