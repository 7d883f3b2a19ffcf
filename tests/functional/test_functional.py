"""Closed-form maths: against torch, against Monte Carlo, in low precision, and through autograd."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions as D
from torch import nn

from klnorm_lib import functional as KF


def gaussians(seed, features=6, batch=4, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    mean = torch.randn(batch, features, generator=g, dtype=dtype)
    std = torch.rand(batch, features, generator=g, dtype=dtype) * 2 + 0.05
    return (
        mean,
        std,
        torch.randn(features, generator=g, dtype=dtype),
        torch.rand(features, generator=g, dtype=dtype) + 0.1,
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(1, 5))
def test_kl_closed_form(seed, features, batch):
    mean, std, prior_mean, prior_std = gaussians(seed, features, batch, torch.float64)
    expected = D.kl_divergence(D.Normal(mean, std), D.Normal(prior_mean, prior_std)).sum(-1)
    got = KF.kl_diag_gaussian(mean, std, prior_mean, prior_std)
    assert got.shape == (batch,)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def monte_carlo_kl(draws, seed=0):
    mean, std, prior_mean, prior_std = gaussians(3, batch=1)
    q, p = D.Normal(mean, std), D.Normal(prior_mean, prior_std)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        z = q.sample((draws,))
    return (q.log_prob(z) - p.log_prob(z)).sum(-1).mean(0), KF.kl_diag_gaussian(mean, std, prior_mean, prior_std)


def test_kl_monte_carlo():
    estimate, exact = monte_carlo_kl(3_000)
    torch.testing.assert_close(estimate, exact, rtol=1e-1, atol=0)


@pytest.mark.long
def test_kl_monte_carlo_long():
    estimate, exact = monte_carlo_kl(300_000)
    torch.testing.assert_close(estimate, exact, rtol=1e-2, atol=0)


def test_kl_zero_iff_equal():
    mean, std, *_ = gaussians(1)
    assert torch.equal(KF.kl_diag_gaussian(mean, std, mean, std), torch.zeros(4))
    for moved in ((mean + 1e-3, std), (mean, std * 1.01)):
        assert (KF.kl_diag_gaussian(*moved, mean, std) > 0).all()


@settings(max_examples=200, deadline=None)
@given(st.floats(-8, 8), st.floats(-6, 4), st.floats(-1e-3, 1e-3))
def test_kl_never_negative_for_near_equal_pairs(mean, log_std, nudge):
    std = torch.tensor([math.exp(log_std)])
    kl = KF.kl_diag_gaussian(torch.tensor([mean]), std * (1 + nudge), torch.tensor([mean]), std)
    assert kl.item() >= 0.0


def test_textbook_form_goes_negative_where_ours_does_not():
    prior = torch.tensor(3.7)
    std = prior * (1 + torch.linspace(-3e-4, 3e-4, 4001))
    textbook = 0.5 * (std.square() / prior.square() - 1 + torch.log(prior.square()) - torch.log(std.square()))
    assert (textbook < 0).any()
    assert (KF.kl_per_feature(torch.zeros(4001), std, 0.0, prior) >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kl_computes_in_float32_for_half_inputs(dtype):
    mean, std = torch.full((2, 4096), 6.0, dtype=dtype), torch.ones(2, 4096, dtype=dtype)
    kl = KF.kl_diag_gaussian(mean, std)
    assert kl.dtype == torch.float32
    # 4096 * 18 overflows float16's 65504.
    torch.testing.assert_close(kl, torch.full((2,), 4096 * 18.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kl_is_untouched_by_autocast(dtype):
    mean, std, *_ = gaussians(2)
    with torch.autocast("cpu", dtype=dtype):
        inside = KF.kl_diag_gaussian(mean, std)
    assert torch.equal(inside, KF.kl_diag_gaussian(mean, std))


def test_kl_refuses_integers():
    with pytest.raises(TypeError, match="floating-point"):
        KF.kl_diag_gaussian(torch.ones(3, dtype=torch.long), torch.ones(3))


def test_kl_gradcheck():
    mean, std, prior_mean, prior_std = (t.requires_grad_() for t in gaussians(5, dtype=torch.float64))
    assert torch.autograd.gradcheck(KF.kl_diag_gaussian, (mean, std, prior_mean, prior_std))
    # At q = p, where the stable form has its kink-free minimum.
    at = torch.zeros(3, dtype=torch.float64, requires_grad=True), torch.ones(3, dtype=torch.float64, requires_grad=True)
    gradients = torch.autograd.grad(KF.kl_diag_gaussian(*at), at)
    assert all(torch.equal(g, torch.zeros(3, dtype=torch.float64)) for g in gradients)


def test_affine_gaussian_kl_closed_form():
    gamma, bias = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.0, 1.0, -1.0])
    expected = 0.5 * (gamma**2 + bias**2 - 1 - torch.log(gamma**2)).sum()
    torch.testing.assert_close(KF.affine_gaussian_kl(gamma, bias), expected)
    assert KF.affine_gaussian_kl(torch.tensor([1.0, -1.0]), torch.zeros(2)) == 0


REFERENCES = {
    "layer": lambda x, groups: nn.functional.layer_norm(x, x.shape[-1:]),
    "rms": lambda x, groups: nn.functional.rms_norm(x, x.shape[-1:], eps=1e-5),
    "group": lambda x, groups: nn.functional.group_norm(x, groups),
    "batch": lambda x, groups: nn.functional.batch_norm(x, None, None, training=True),
}


@pytest.mark.parametrize("statistics", KF.STATISTICS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), rows=st.integers(2, 9), width=st.integers(1, 6), scale=st.floats(1e-2, 1e2))
def test_standardise_matches_torch(statistics, seed, rows, width, scale):
    g = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(rows, 4 * width, generator=g) + 3
    got = KF.standardise(x, statistics, groups=4)
    torch.testing.assert_close(got, REFERENCES[statistics](x, 4), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("statistics", ["layer", "group", "batch"])
def test_standardise_ignores_shift_and_scale(statistics):
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = KF.standardise(5 * x + 7, statistics, eps=1e-12, groups=3)
    torch.testing.assert_close(moved, KF.standardise(x, statistics, eps=1e-12, groups=3))


def test_rms_ignores_scale_only():
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at_rest = KF.standardise(x, "rms", eps=1e-12)
    torch.testing.assert_close(KF.standardise(5 * x, "rms", eps=1e-12), at_rest)
    assert not torch.allclose(KF.standardise(x + 7, "rms", eps=1e-12), at_rest)


def test_standardise_keeps_dtype_and_survives_large_half_values():
    x = torch.linspace(-300, 300, 64, dtype=torch.float16).repeat(3, 1)
    out = KF.standardise(x)
    assert out.dtype == torch.float16
    torch.testing.assert_close(out.float(), KF.standardise(x.float()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("statistics", KF.STATISTICS)
def test_standardise_gradcheck(statistics):
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: KF.standardise(t, statistics, groups=2), (x,))


def test_batch_moments_leave_masked_positions_out():
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
    mean, variance = KF.batch_moments(x, mask)
    rows = torch.cat([x[0, :3], x[1, :2]])
    torch.testing.assert_close(mean, rows.mean(0))
    torch.testing.assert_close(variance, rows.var(0, correction=0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: KF.standardise(torch.ones(2, 4), "layers"), "unknown statistics"),
        (lambda: KF.standardise(torch.ones(2, 4), "group", groups=3), "do not divide"),
        (lambda: KF.standardise(torch.ones(1, 4), "batch"), "at least 2 rows"),
    ],
)
def test_standardise_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
