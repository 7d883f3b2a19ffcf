"""What dropout adds to a loss: against all masks, against Monte Carlo, against autograd's Hessian."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from klnorm_lib import functional as KF

SIX = torch.tensor([0.05, 0.0, 0.3, 0.5, 0.1, 0.9], dtype=torch.float64)
RATES = pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, SIX], ids=["0", "0.1", "0.5", "0.9", "per feature"])


def case(seed=0, features=6, outputs=3, rows=(2,), size=1.0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    return size * draw(*rows, features), draw(outputs, features), draw(*rows, outputs)


def masks(features, p):
    """Every noise vector of inverted dropout and its probability, 2^features of them."""
    p = torch.as_tensor(p, dtype=torch.float64).expand(features)
    kept = torch.tensor(list(itertools.product((0.0, 1.0), repeat=features)), dtype=torch.float64)
    return kept / (1 - p), torch.where(kept == 1, 1 - p, p).prod(-1)


def expected(loss, h, p):
    """Mean of ``loss`` over all masks on the last axis of ``h``; loss: (masks, ..., features) to (masks, ...)."""
    noise, chance = masks(h.shape[-1], p)
    losses = loss(noise.view(-1, *[1] * (h.ndim - 1), h.shape[-1]) * h)
    return torch.tensordot(chance, losses, dims=1)


def squared(weight, target):
    return lambda h: (target - h @ weight.T).square().sum(-1)


def cross_entropy(weight, label=0):
    return lambda h: -(h @ weight.T).log_softmax(-1)[..., label]


@RATES
def test_linear_penalty_is_exact(p):
    h, weight, target = case()
    loss = squared(weight, target)
    torch.testing.assert_close(expected(loss, h, p) - loss(h), KF.dropout_penalty_linear(h, weight, p))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 4), st.floats(0, 0.95))
def test_linear_penalty_is_exact_whatever_the_case(seed, features, outputs, p):
    h, weight, target = case(seed, features, outputs, ())
    loss = squared(weight, target)
    torch.testing.assert_close(
        expected(loss, h, p) - loss(h), KF.dropout_penalty_linear(h, weight, p), rtol=1e-6, atol=1e-6
    )


def test_linear_penalty_does_not_see_the_target():
    h, weight, target = case()
    near, far = squared(weight, target), squared(weight, target + 100)
    torch.testing.assert_close(expected(near, h, 0.3) - near(h), expected(far, h, 0.3) - far(h))


def within_error(draws, value):
    error = draws.std(0) / draws.shape[0] ** 0.5
    assert ((draws.mean(0) - value).abs() < 4 * error).all()
    assert (draws.mean(0) > 4 * error).all()  # enough draws to tell the penalty from nothing


def test_linear_penalty_of_torch_dropout():
    h, weight, target = case()
    loss = squared(weight, target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = loss(F.dropout(h.expand(20_000, *h.shape), 0.2)) - loss(h)
    within_error(draws, KF.dropout_penalty_linear(h, weight, 0.2))


def test_linear_penalty_of_gaussian_dropout_of_equal_variance():
    h, weight, target = case()
    loss, std = squared(weight, target), KF.dropout_variance(SIX).sqrt()
    noise = 1 + std * torch.randn(20_000, *h.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    within_error(loss(noise * h) - loss(h), KF.dropout_penalty_linear(h, weight, SIX))


def test_rates_add_up_feature_by_feature():
    h, weight, logits = case()
    for penalty in (
        lambda p: KF.dropout_penalty_linear(h, weight, p),
        lambda p: KF.dropout_penalty_softmax(h, weight, logits, p),
    ):
        alone = [penalty(torch.where(torch.arange(6) == j, SIX, 0.0)) for j in range(6)]
        torch.testing.assert_close(sum(alone), penalty(SIX))
        assert (alone[1] == 0).all()  # rate 0
        assert (torch.stack(alone[:1] + alone[2:]) > 0).all()


def test_regression_with_dropout_is_ridge_with_a_scale_from_the_data():
    h, _, y = case(rows=(12,), outputs=1)
    noise, chance = masks(6, SIX)
    noisy = (noise[:, None] * h).reshape(-1, 6)  # every row under every mask, weighted by how often it comes
    often = chance.repeat_interleave(12).sqrt()[:, None]
    with_dropout = torch.linalg.lstsq(often * noisy, often * y.repeat(len(chance), 1)).solution
    scale = (KF.dropout_variance(SIX) * h.square().sum(0)).diag()
    ridge = torch.linalg.solve(h.T @ h + scale, h.T @ y)
    torch.testing.assert_close(with_dropout, ridge)
    assert (ridge - torch.linalg.lstsq(h, y).solution).abs().max() > 0.05


@RATES
def test_softmax_penalty_is_half_the_trace_of_the_hessian(p):
    h, weight, _ = case(rows=())
    hessian = torch.func.hessian(cross_entropy(weight))(h)
    scale = KF.dropout_variance(p) * h.square()
    got = KF.dropout_penalty_softmax(h, weight, h @ weight.T, p)
    torch.testing.assert_close(got, 0.5 * (scale * hessian.diagonal()).sum(), rtol=1e-6, atol=1e-9)


@RATES
def test_softmax_penalty_is_the_second_order_of_the_exact_one(p):
    errors = []
    for size in (0.02, 0.01, 0.005):
        h, weight, _ = case(size=size)
        loss = cross_entropy(weight)
        errors.append((expected(loss, h, p) - loss(h) - KF.dropout_penalty_softmax(h, weight, h @ weight.T, p)).abs())
    for larger, smaller in itertools.pairwise(errors):
        # What is left is of third order at least: an eighth when the activations halve; some room for the fourth.
        assert (smaller <= larger / 6 + 1e-15).all()


def test_softmax_penalty_at_a_small_rate_is_not_exact_for_bernoulli_noise():
    """All moments of Bernoulli noise are of order p, so what remains is one feature left out at a time."""
    h, weight, _ = case(rows=())
    loss = cross_entropy(weight)
    slope = torch.func.grad(loss)(h)
    left_out = h - h.diag()
    limit = (loss(left_out) - loss(h)).sum() + (h * slope).sum()
    p = 1e-6
    torch.testing.assert_close((expected(loss, h, p) - loss(h)) / p, limit, rtol=1e-4, atol=0)
    ratio = limit / (KF.dropout_penalty_softmax(h, weight, h @ weight.T, p) / p)
    assert (ratio - 1).abs() > 0.1


def test_softmax_penalty_at_a_small_rate_is_exact_for_gaussian_noise():
    """Two classes: the noise of the logits' difference is a Gaussian, so its expectation is a quadrature."""
    h, weight, _ = case(rows=(), outputs=2)
    margin = weight[0] - weight[1]
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    errors = []
    for p in (2e-3, 1e-3, 5e-4):
        spread = (KF.dropout_variance(p) * (margin * h).square().sum()).sqrt()
        gain = F.softplus(-(margin @ h + spread * torch.tensor(nodes))) - F.softplus(-(margin @ h))
        exact = (torch.tensor(weights / weights.sum()) * gain).sum()
        errors.append((exact / KF.dropout_penalty_softmax(h, weight, h @ weight.T, p) - 1).abs().item())
    assert errors[0] > 1e-5
    np.testing.assert_allclose(np.array(errors[1:]) / errors[:-1], 0.5, rtol=0.05)


@RATES
def test_curvature_penalty_agrees_with_the_closed_forms(p):
    h, weight, target = case(rows=())
    got = KF.dropout_penalty_curvature(squared(weight, target), h, p)
    torch.testing.assert_close(got, KF.dropout_penalty_linear(h, weight, p))
    got = KF.dropout_penalty_curvature(cross_entropy(weight), h, p)
    torch.testing.assert_close(got, KF.dropout_penalty_softmax(h, weight, h @ weight.T, p))


def test_curvature_penalty_by_probes():
    h, weight, _ = case(rows=(4,))
    loss = lambda h: torch.tanh(h @ weight.T).square().sum()  # noqa: E731
    exact = KF.dropout_penalty_curvature(loss, h, 0.2)
    draws = [
        KF.dropout_penalty_curvature(loss, h, 0.2, probes=4, generator=torch.Generator().manual_seed(seed))
        for seed in range(100)
    ]
    draws = torch.stack(draws)
    assert 0 < (draws.mean() - exact).abs() < 4 * draws.std() / 10
    generator = torch.Generator().manual_seed(0)
    signs = torch.stack([torch.randint(0, 2, h.shape, generator=generator) * 2 - 1 for _ in range(4)])
    probes = (signs * h * 0.5).flatten(1)  # the root of 0.2 / 0.8
    hessian = torch.func.hessian(loss)(h).reshape(h.numel(), h.numel())
    torch.testing.assert_close(draws[0], 0.5 * (probes @ hessian * probes).sum(1).mean())


def test_curvature_penalty_can_be_negative_or_nothing():
    h = torch.ones(3)
    assert KF.dropout_penalty_curvature(lambda h: -h.square().sum(), h, 0.5) == -3
    assert KF.dropout_penalty_curvature(lambda h: h.sum(), h, 0.5) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_penalties_survive_half_precision_and_autocast(dtype):
    h, weight, logits = (v.to(dtype) for v in case())
    h, weight = 300 * h, 300 * weight  # their squares overflow in float16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for got, wide in (
            (KF.dropout_penalty_linear(h, weight, 0.1), KF.dropout_penalty_linear(h.double(), weight.double(), 0.1)),
            (
                KF.dropout_penalty_softmax(h, weight, logits, 0.1),
                KF.dropout_penalty_softmax(h.double(), weight.double(), logits.double(), 0.1),
            ),
        ):
            assert got.dtype == torch.float32
            torch.testing.assert_close(got.double(), wide, rtol=1e-4, atol=0)


def test_penalties_pass_gradcheck():
    h, weight, logits = (v.requires_grad_() for v in case(features=6))
    assert torch.autograd.gradcheck(KF.dropout_penalty_linear, (h, weight, SIX))
    assert torch.autograd.gradcheck(KF.dropout_penalty_softmax, (h, weight, logits, SIX))


def test_variance_is_that_of_torch_dropout():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        noise = F.dropout(torch.ones(100_000, dtype=torch.float64), 0.2)
    assert abs(noise.var().item() - KF.dropout_variance(0.2).item()) < 0.01
    assert KF.dropout_variance(0.2).item() == 0.25
    assert KF.dropout_variance(torch.zeros(3)).shape == (3,)


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan"), torch.tensor([0.1, 1.0])])
def test_a_rate_that_is_none_is_refused(p):
    h, weight, _ = case(features=2)
    for call in (
        lambda: KF.dropout_variance(p),
        lambda: KF.dropout_penalty_linear(h, weight, p),
        lambda: KF.dropout_penalty_curvature(torch.sum, h, p),
    ):
        with pytest.raises(ValueError, match="must lie in"):
            call()


def test_shapes_that_do_not_fit_are_refused():
    h, weight, logits = case()
    with pytest.raises(ValueError, match="does not read 6 features"):
        KF.dropout_penalty_linear(h, weight.T, 0.1)
    with pytest.raises(ValueError, match="do not fit activations"):
        KF.dropout_penalty_softmax(h, weight, logits[:, :2], 0.1)
    with pytest.raises(ValueError, match="scalar"):
        KF.dropout_penalty_curvature(torch.square, h, 0.1)
    with pytest.raises(ValueError, match="probes must be at least 1"):
        KF.dropout_penalty_curvature(torch.sum, h, 0.1, probes=0)
    with pytest.raises(TypeError, match="floating-point"):
        KF.dropout_penalty_linear(h.long(), weight, 0.1)


def test_one_seed_draws_the_same_noise_in_every_dtype():
    draws = []
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        torch.manual_seed(0)
        draws.append(KF.normal_like(torch.empty(50, dtype=dtype)))
        assert draws[-1].dtype == dtype
    single, brain, half = draws[1:]
    assert torch.equal(single.bfloat16(), brain)
    assert torch.equal(single.half(), half)
