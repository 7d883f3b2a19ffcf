"""KL-Norm's layers against the formulas of chapters 05 and 06, written out by hand."""

import math

import pytest
import torch
from torch import distributions as D
from torch import nn
from torch.nn import functional as F

from klnorm_lib import KLNorm, functional
from klnorm_lib.methods.heads import GaussianHeads
from klnorm_lib.methods.klnorm import SIGMA_C, KLNormLayer

WIDTH = 12
KINDS = ("diagonal", "low_rank", "full")


def layer_of(form="B", stirred=True, features=WIDTH, base=None, seed=1, **fields):
    """A layer in float64, its parameters moved off their start where a formula could hold by accident."""
    layer = KLNormLayer(features, KLNorm(**{"form": form, "rank": 3, **fields}), base=base).double()
    if stirred:
        g = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in layer.parameters():
                p.add_(0.3 * torch.randn(p.shape, generator=g, dtype=p.dtype))
    return layer


def rows(n=5, features=WIDTH, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n, features, generator=g, dtype=torch.float64) + 2


def penalty_of(layer, x):
    """What one open forward of the layer adds to the loss."""
    layer.enter(1, torch.is_grad_enabled(), lambda length: None)
    layer(x)
    (penalty,) = layer.penalties
    layer.leave()
    return penalty


def maps_by_hand(heads, x_hat):
    """W x_hat + c of both heads, with W built as a matrix."""
    found = []
    for head in ("mean", "std"):
        p = {k.removeprefix(f"{head}_"): v for k, v in heads.named_parameters() if k.startswith(head)}
        matrix = p["outer"] @ p["inner"] if "inner" in p else p["weight"]
        matrix = torch.diag(matrix) if matrix.ndim == 1 else matrix
        found.append(x_hat @ matrix.T + p["bias"])
    return found[0], torch.log1p(found[1].exp())


def kl_by_hand(mean, std, prior_mean=0.0, prior_std=1.0):
    prior = D.Normal(torch.as_tensor(prior_mean, dtype=mean.dtype), torch.as_tensor(prior_std, dtype=mean.dtype))
    return D.kl_divergence(D.Normal(mean, std), prior)


def test_form_a_output_and_penalty():
    layer, x = layer_of("A", beta=0.1), rows()
    x_hat = F.layer_norm(x, (WIDTH,))
    gamma, bias = layer.LayerNorm.weight, layer.LayerNorm.bias
    torch.testing.assert_close(layer(x), gamma * x_hat + bias)
    expected = 0.5 * (gamma**2 + bias**2 - 1 - torch.log(gamma**2)).sum()
    torch.testing.assert_close(penalty_of(layer, x), 0.1 * expected)
    torch.testing.assert_close(functional.affine_gaussian_kl(gamma, bias), expected)


def test_form_a_is_blind_to_the_sign_of_gamma():
    layer, x = layer_of("A"), rows()
    before = penalty_of(layer, x)
    with torch.no_grad():
        layer.LayerNorm.weight.neg_()
    torch.testing.assert_close(penalty_of(layer, x), before)


@pytest.mark.parametrize("heads", KINDS)
def test_heads_formula(heads):
    layer, x = layer_of(heads=heads), rows()
    x_hat = F.layer_norm(x, (WIDTH,))
    offset, std = layer.heads(layer.standardise(x))
    offset_by_hand, std_by_hand = maps_by_hand(layer.heads, x_hat)
    torch.testing.assert_close(offset, offset_by_hand)
    torch.testing.assert_close(std, std_by_hand)


@pytest.mark.parametrize("heads", KINDS)
def test_form_b_output_and_penalty(heads):
    layer, x = layer_of("B", heads=heads, beta=0.1), rows()
    x_hat = F.layer_norm(x, (WIDTH,))
    mean, std = maps_by_hand(layer.heads, x_hat)
    torch.testing.assert_close(layer(x), mean + std * x_hat)
    torch.testing.assert_close(penalty_of(layer, x), 0.1 * kl_by_hand(mean, std).sum(-1).mean())


@pytest.mark.parametrize("heads", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_form_b_starts_as_layer_norm(heads, dtype):
    layer, x = KLNormLayer(WIDTH, KLNorm(heads=heads)).to(dtype), rows().to(dtype)
    torch.testing.assert_close(layer(x), F.layer_norm(x, (WIDTH,)), rtol=0, atol=1e-6)
    assert penalty_of(layer, x).item() == pytest.approx(0.0, abs=1e-9)


def test_form_c_draws_in_training_and_not_in_evaluation():
    layer, x = layer_of("C"), rows(2)
    x_hat = F.layer_norm(x, (WIDTH,))
    offset, std = maps_by_hand(layer.heads, x_hat)
    layer.eval()
    torch.testing.assert_close(layer(x), x_hat + offset)
    layer.train()
    draws = 4000
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        z = layer(x.repeat(draws, 1)).unflatten(0, (draws, 2))
    # Five standard errors, of a mean and of a standard deviation.
    assert ((z.mean(0) - (x_hat + offset)).abs() < 5 * std / math.sqrt(draws)).all()
    assert ((z.std(0) - std).abs() < 5 * std / math.sqrt(2 * draws)).all()


def test_form_c_penalty():
    layer, x = layer_of("C", beta=0.1), rows()
    x_hat = F.layer_norm(x, (WIDTH,))
    offset, std = maps_by_hand(layer.heads, x_hat)
    torch.testing.assert_close(penalty_of(layer, x), 0.1 * kl_by_hand(x_hat + offset, std).sum(-1).mean())


@pytest.mark.parametrize("features", [4, 128])
@pytest.mark.parametrize("heads", KINDS)
def test_form_c_initial_kl(features, heads):
    layer = layer_of("C", stirred=False, features=features, heads=heads, beta=1.0, eps=1e-12)
    expected = features * (SIGMA_C**2 / 2 - math.log(SIGMA_C))
    assert penalty_of(layer, rows(features=features)).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("form", ["A", "B", "C"])
@pytest.mark.parametrize("prior", ["standard_normal", "learned_diagonal"])
@pytest.mark.parametrize("seed", range(5))
def test_penalty_is_never_negative_and_zero_at_the_prior(form, prior, seed):
    if form == "A" and prior == "learned_diagonal":
        with pytest.raises(ValueError, match="vacuous"):
            KLNorm(form=form, prior=prior)
        return
    layer = layer_of(form, prior=prior, seed=seed)
    assert penalty_of(layer, rows(seed=seed)) > 0
    # Both heads constant and equal to the prior: q = prior, whatever the input.
    with torch.no_grad():
        mean, raw = (
            (layer.prior_mean, layer.prior_raw_std)
            if prior == "learned_diagonal"
            else (torch.zeros(WIDTH).double(), torch.full((WIDTH,), math.log(math.expm1(1.0))).double())
        )
        if form == "A":
            layer.LayerNorm.weight.copy_(F.softplus(raw))
            layer.LayerNorm.bias.copy_(mean)
        else:
            layer.heads.mean_outer.zero_()
            layer.heads.std_outer.zero_()
            layer.heads.mean_bias.copy_(mean)
            layer.heads.std_bias.copy_(raw)
    x = rows(seed=seed)
    if form == "C":
        x = torch.full_like(x, 7.0)  # a constant row has x_hat = 0, so that C's mean is its offset
    assert penalty_of(layer, x).item() == pytest.approx(0.0, abs=1e-15)


def test_learned_prior():
    layer, x = layer_of(prior="learned_diagonal", beta=0.1), rows()
    mean, std = maps_by_hand(layer.heads, F.layer_norm(x, (WIDTH,)))
    expected = kl_by_hand(mean, std, layer.prior_mean, torch.log1p(layer.prior_raw_std.exp())).sum(-1).mean()
    torch.testing.assert_close(penalty_of(layer, x), 0.1 * expected)
    fresh = layer_of(prior="learned_diagonal", stirred=False)
    torch.testing.assert_close(F.softplus(fresh.prior_raw_std), torch.ones(WIDTH).double(), rtol=1e-6, atol=0)
    assert not fresh.prior_mean.any()


def test_best_learned_prior():
    """The prior that minimises the mean KL matches moments, and what remains is a gap of logarithms."""
    layer, x = layer_of(), rows(64)
    with torch.no_grad():
        mean, std = layer.heads(layer.standardise(x))
    best_mean = mean.mean(0)
    best_std = (std.square() + (mean - best_mean).square()).mean(0).sqrt()
    least = functional.kl_diag_gaussian(mean, std, best_mean, best_std).mean()
    torch.testing.assert_close(least, (best_std.log() - std.log().mean(0)).sum())
    prior = [best_mean.clone().requires_grad_(), best_std.clone().requires_grad_()]
    gradients = torch.autograd.grad(functional.kl_diag_gaussian(mean, std, *prior).mean(), prior)
    for gradient in gradients:
        torch.testing.assert_close(gradient, torch.zeros(WIDTH).double(), rtol=0, atol=1e-12)
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        other_mean = best_mean + 0.1 * torch.randn(WIDTH, generator=g).double()
        other_std = best_std * torch.exp(0.1 * torch.randn(WIDTH, generator=g).double())
        assert functional.kl_diag_gaussian(mean, std, other_mean, other_std).mean() > least


@pytest.mark.parametrize("gamma", [1e-33, 1e-3, -2.0, 5.0])
def test_kl_does_not_see_a_common_affine_map(gamma):
    """KL(N(b0 + g mu, (g sigma)^2) || N(b0, g^2)) = KL(N(mu, sigma^2) || N(0, 1)), for every g but 0."""
    mean, std = rows(3), rows(3).abs() + 0.1
    gamma = torch.tensor(gamma, dtype=torch.float64)
    # b0 = 0: added to a mean of 1e-33, any other value would swallow it.
    moved = functional.kl_per_feature(gamma * mean, gamma.abs() * std, 0.0, gamma.abs())
    torch.testing.assert_close(moved, functional.kl_per_feature(mean, std))


def test_kl_against_a_vanishing_prior_is_infinite():
    assert functional.kl_per_feature(torch.zeros(1), torch.ones(1), 0.0, 1e-33).isinf().all()


@pytest.mark.parametrize("free", [0.05, 0.5, 5.0])
def test_free_bits_clamp_each_example_and_feature(free):
    layer, x = layer_of(free_bits=free, beta=1.0), rows()
    mean, std = maps_by_hand(layer.heads, F.layer_norm(x, (WIDTH,)))
    kl = kl_by_hand(mean, std)
    assert penalty_of(layer, x).item() == pytest.approx(torch.where(kl > free, kl, free).sum(1).mean().item())
    if free == 0.5:
        assert ((kl > free).any() and (kl < free).any()).item()
        # Clamping the batch mean of a feature, or an example's sum, would be other penalties.
        assert penalty_of(layer, x).item() != pytest.approx(kl.mean(0).clamp_min(free).sum().item())
        assert penalty_of(layer, x).item() != pytest.approx(kl.sum(1).clamp_min(free).mean().item())


def test_free_bits_stop_the_gradient_where_they_cover_the_kl():
    layer, x = layer_of(free_bits=1e3, beta=1.0), rows()
    gradients = torch.autograd.grad(penalty_of(layer, x), list(layer.parameters()))
    assert all(not g.any() for g in gradients)


def test_penalty_sums_over_features_and_averages_over_examples():
    layer, x = layer_of(beta=0.1), rows(6)
    mean, std = layer.heads(layer.standardise(x))
    kl = functional.kl_per_feature(mean, std)
    assert kl.shape == (6, WIDTH)
    torch.testing.assert_close(penalty_of(layer, x), 0.1 * kl.sum() / 6)
    # Twice the same examples: the same penalty. The same features twice: twice the penalty.
    torch.testing.assert_close(penalty_of(layer, torch.cat([x, x])), penalty_of(layer, x))
    wide_mean, wide_std = torch.cat([mean, mean], -1), torch.cat([std, std], -1)
    torch.testing.assert_close(
        functional.kl_diag_gaussian(wide_mean, wide_std), 2 * functional.kl_diag_gaussian(mean, std)
    )


@pytest.mark.parametrize("form", ["A", "B"])
@pytest.mark.parametrize("bias", [True, False])
def test_internal_placement_keeps_the_pretrained_affine_part(form, bias):
    base = nn.LayerNorm(WIDTH, eps=1e-3, bias=bias).double()
    with torch.no_grad():
        for p in base.parameters():
            p.copy_(torch.linspace(-2, 2, WIDTH))
    x = rows()
    fresh = layer_of(form, stirred=False, base=base, placement="internal")
    torch.testing.assert_close(fresh(x), base(x), rtol=1e-6, atol=1e-6)
    layer = layer_of(form, base=base, placement="internal", beta=0.1)
    x_hat = F.layer_norm(x, (WIDTH,), eps=1e-3)
    mean, std = (layer.LayerNorm.bias, layer.LayerNorm.weight) if form == "A" else maps_by_hand(layer.heads, x_hat)
    shift = base.bias if bias else 0.0
    torch.testing.assert_close(layer(x), shift + base.weight * (mean + std * x_hat))
    # The KL of (mu, sigma) from the standard normal: the pretrained scale, here also zero and negative, is not in it.
    torch.testing.assert_close(penalty_of(layer, x), 0.1 * kl_by_hand(mean, std.abs()).sum(-1).mean())


@pytest.mark.parametrize("form", ["A", "B"])
@pytest.mark.parametrize("groups", [WIDTH, 3])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "at-start"])
def test_in_place_of_a_group_norm_it_keeps_its_statistics(form, groups, affine):
    base = nn.GroupNorm(groups, WIDTH, eps=1e-3).double()
    with torch.no_grad():
        for p in base.parameters():
            p.copy_(torch.linspace(-2, 2, WIDTH))
    x = rows(5 * WIDTH, 7).unflatten(0, (5, WIDTH))  # examples, channels, frames
    layer = layer_of(form, stirred=affine, base=base, placement="internal", beta=0.1)
    grouped = x.reshape(5, groups, -1)
    x_hat = (grouped - grouped.mean(-1, keepdim=True)) / (grouped.var(-1, correction=0, keepdim=True) + 1e-3).sqrt()
    frames = x_hat.reshape(x.shape).transpose(1, 2)
    mean, std = (layer.LayerNorm.bias, layer.LayerNorm.weight) if form == "A" else maps_by_hand(layer.heads, frames)
    expected = (base.bias + base.weight * (mean + std * frames)).transpose(1, 2)
    torch.testing.assert_close(layer(x), expected)
    if not affine:
        torch.testing.assert_close(layer(x), base(x))
    torch.testing.assert_close(penalty_of(layer, x), 0.1 * kl_by_hand(mean, std.abs()).sum(-1).mean())
    assert layer(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("eps", [None, 1e-2])
def test_in_place_of_an_rms_norm_it_keeps_its_statistics(eps):
    base, x = nn.RMSNorm(WIDTH, eps=eps).double(), rows()
    with torch.no_grad():
        base.weight.copy_(torch.linspace(-2, 2, WIDTH))
    layer = layer_of(stirred=False, base=base, placement="internal")
    torch.testing.assert_close(layer(x), base(x))


@pytest.mark.parametrize("form", ["A", "B", "C"])
@pytest.mark.parametrize("statistics", ["layer", "rms", "group"])
def test_layer_gradcheck(form, statistics):
    layer = layer_of(form, features=6, rank=2, groups=2, statistics=statistics, beta=0.5).eval()
    names, values = zip(*((n, p.detach().clone().requires_grad_()) for n, p in layer.named_parameters()), strict=True)
    x = rows(3, 6).requires_grad_()

    def output_and_penalty(x, *parameters):
        layer.enter(1, True, lambda length: None)
        out = torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))
        penalty = torch.stack(layer.penalties).sum()
        layer.leave()
        return out, penalty

    assert torch.autograd.gradcheck(output_and_penalty, (x, *values))


@pytest.mark.parametrize("statistics", functional.STATISTICS)
def test_form_b_reads_the_statistics_it_was_asked_for(statistics):
    layer, x = layer_of(statistics=statistics, groups=3), rows()
    x_hat = functional.standardise(x, statistics, groups=3)
    mean, std = maps_by_hand(layer.heads, x_hat)
    torch.testing.assert_close(layer(x), mean + std * x_hat)


def test_low_rank_heads_have_the_rank_they_promise():
    layer = layer_of(features=WIDTH, rank=3)
    for head in ("mean", "std"):
        matrix = getattr(layer.heads, f"{head}_outer") @ getattr(layer.heads, f"{head}_inner")
        assert torch.linalg.matrix_rank(matrix) == 3


@pytest.mark.parametrize("d", [8, 768])
def test_parameter_counts(d):
    counts = {"diagonal": 4 * d, "low_rank": 4 * 16 * d + 2 * d, "full": 2 * d**2 + 2 * d}
    for kind, expected in counts.items():
        heads = GaussianHeads(d, kind, 16, 1.0, torch.Generator().manual_seed(0))
        assert sum(p.numel() for p in heads.parameters()) == expected
    assert sum(p.numel() for p in KLNormLayer(d, KLNorm(form="A")).parameters()) == 2 * d


def test_gradient_flow_of_the_kl():
    """Under gradient flow of the KL alone, mu decays as exp(-t) and sigma^2 - 1 as exp(-2t)."""
    mean, std = torch.tensor([2.0, -1.0]).double(), torch.tensor([0.2, 3.0]).double()
    start = mean.clone(), std.clone()
    step, steps = 1e-4, 10_000
    for _ in range(steps):
        # The gradient by hand, which the next lines hold to autograd's.
        mean, std = mean - step * mean, std - step * (std - 1 / std)
    t = torch.tensor(step * steps).double()
    torch.testing.assert_close(mean, start[0] * torch.exp(-t), rtol=1e-3, atol=0)
    torch.testing.assert_close(std.square(), 1 + (start[1].square() - 1) * torch.exp(-2 * t), rtol=1e-3, atol=0)
    at = mean.requires_grad_(), std.requires_grad_()
    gradients = torch.autograd.grad(functional.kl_diag_gaussian(*at), at)
    torch.testing.assert_close(gradients[0], at[0])
    torch.testing.assert_close(gradients[1], at[1] - 1 / at[1])


def test_penalty_alone_pulls_form_b_back_to_plain_normalisation():
    layer, x = layer_of(beta=1.0), rows(32)
    before = (layer(x) - F.layer_norm(x, (WIDTH,))).abs().max()
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(300):
        optimiser.zero_grad()
        penalty_of(layer, x).backward()
        optimiser.step()
    after = (layer(x) - F.layer_norm(x, (WIDTH,))).abs().max()
    assert before > 0.3
    assert after < 0.01


def test_low_rank_form_b_cannot_flip_more_signs_than_its_rank():
    """sigma > 0: where the low-rank mean is blind, the output at v and -v cannot be -v and v."""
    rank, flipped = 3, 6
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        layer = layer_of(rank=rank, seed=int(torch.randint(10_000, (), generator=g)))
        with torch.no_grad():
            inner = layer.heads.mean_inner[:, :flipped]
            blind = torch.linalg.svd(torch.cat([inner, torch.ones(1, flipped).double()]))[2][-1]
            v = torch.zeros(WIDTH).double()
            v[:flipped] = blind
            v = v * (WIDTH / v.square().sum()).sqrt()
            pair = torch.stack([v, -v])
            error = (layer(pair) - -pair).abs()[:, :flipped].amax(0)
        assert (error > 0.999 * v[:flipped].abs()).all()
