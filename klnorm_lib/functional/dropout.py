"""What a rate of dropout does to a loss: an L2 penalty whose scale comes from the data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from klnorm_lib.functional._precision import at_least_float32


def dropout_variance(p: Tensor | float) -> Tensor:
    r"""Variance of the noise with mean 1 by which inverted dropout multiplies a value.

    .. math:: \operatorname{Var}\xi = \frac{p}{1-p}, \qquad
              \xi = \begin{cases} 0 & \text{with probability } p \\ 1/(1-p) & \text{else} \end{cases}

    Gaussian dropout with the same first two moments draws :math:`\xi \sim \mathcal N(1, p/(1-p))`: its standard
    deviation is the square root of what is returned here.

    Shapes: ``p`` a rate in [0, 1) or a tensor of rates, whose shape is returned; a tensor in float32 or wider, a
    number as float64.
    Raises ``ValueError`` for a rate outside [0, 1). Source: Srivastava et al. 2014.
    """
    (p,) = at_least_float32(p if isinstance(p, Tensor) else torch.as_tensor(float(p), dtype=torch.float64))
    if not bool(((p >= 0) & (p < 1)).all()):
        raise ValueError(f"dropout rates must lie in [0, 1), got {p.min().item():g} to {p.max().item():g}")
    return p / (1 - p)


def dropout_penalty_linear(activations: Tensor, weight: Tensor, p: Tensor | float) -> Tensor:
    r"""What dropout on the input of a linear layer adds to a squared loss, in expectation, exactly.

    .. math:: \mathbb E_\xi \lVert y - W(\xi \odot h) \rVert^2 - \lVert y - W h \rVert^2
              = \sum_j \frac{p_j}{1-p_j}\, h_j^2\, \lVert W_{:j} \rVert^2

    for every target y, with or without a bias, and for Gaussian dropout of equal variance too. The squared loss is
    summed over outputs: halve this for half of it, divide by the outputs for their mean.

    Shapes: ``activations`` (..., features), before dropout; ``weight`` (outputs, features), as ``torch.nn.Linear``
    holds it; ``p`` a rate or rates that broadcast against ``activations``, for example (features,). Returns (...),
    one penalty an example, in the unit of the loss, float32 or wider.
    Raises ``ValueError`` for a rate outside [0, 1) and for a weight that does not read the activations, ``TypeError``
    for integer tensors. Source: Srivastava et al. 2014; derived in chapter 14.
    """
    activations, weight, variance = _for_penalty(activations, weight, p)
    with torch.autocast(device_type=activations.device.type, enabled=False):
        return (variance * activations.square() * weight.square().sum(0)).sum(-1)


def dropout_penalty_softmax(activations: Tensor, weight: Tensor, logits: Tensor, p: Tensor | float) -> Tensor:
    r"""What dropout on the input of a softmax classifier adds to the cross-entropy, to second order in the noise.

    .. math:: \frac12 \sum_j \frac{p_j}{1-p_j}\, h_j^2\, (W^\top H W)_{jj}, \qquad
              H = \operatorname{diag}(\pi) - \pi \pi^\top, \quad \pi = \operatorname{softmax}(W h + c)

    :math:`(W^\top H W)_{jj}` is the variance of column j of the weight under the probabilities of the classes. The
    label does not appear, and Gaussian dropout of equal variance gives the same.

    Shapes: ``activations`` (..., features), before dropout; ``weight`` (classes, features); ``logits``
    (..., classes), from the activations without dropout; ``p`` a rate or rates that broadcast against
    ``activations``. Returns (...), nats, float32 or wider, never negative. Takes memory for (..., classes, features).
    Raises ``ValueError`` for a rate outside [0, 1) and for shapes that do not fit, ``TypeError`` for integer tensors.
    Source: Wager, Wang and Liang 2013; derived in chapter 14.
    """
    if logits.shape != (*activations.shape[:-1], weight.shape[0]):
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} do not fit activations of shape {tuple(activations.shape)} and a "
            f"weight of shape {tuple(weight.shape)}; expected {(*activations.shape[:-1], weight.shape[0])}"
        )
    (logits,) = at_least_float32(logits)
    activations, weight, variance = _for_penalty(activations, weight, p)
    with torch.autocast(device_type=activations.device.type, enabled=False):
        probabilities = logits.to(activations.dtype).softmax(-1)
        centred = weight - (probabilities @ weight).unsqueeze(-2)
        curvature = (probabilities.unsqueeze(-1) * centred.square()).sum(-2)
        return 0.5 * (variance * activations.square() * curvature).sum(-1)


def _for_penalty(activations: Tensor, weight: Tensor, p: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """Activations, weight and noise variance in one dtype, on the device of the activations."""
    if weight.ndim != 2 or weight.shape[1] != activations.shape[-1]:
        raise ValueError(
            f"a weight of shape {tuple(weight.shape)} does not read {activations.shape[-1]} features; "
            "expected (outputs, features)"
        )
    activations, weight = at_least_float32(activations, weight)
    return activations, weight, dropout_variance(p).to(activations)


def dropout_penalty_curvature(
    loss: Callable[[Tensor], Tensor],
    activations: Tensor,
    p: Tensor | float,
    probes: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""What dropout anywhere in a network adds to its loss, to second order in the noise.

    .. math:: \frac12 \sum_j \frac{p_j}{1-p_j}\, h_j^2\, \frac{\partial^2 \ell}{\partial h_j^2}
              = \frac12\, \mathbb E_v\left[(s v)^\top\, \nabla^2 \ell\; (s v)\right], \qquad
              s_j = h_j \sqrt{p_j / (1-p_j)}, \quad v_j = \pm 1

    Unlike the two cases with a linear reader it can be negative: a network need not be convex in what it reads.

    ``loss``: from activations to a scalar, what is computed downstream of the dropout. ``activations``: any shape,
    one noise value for each. ``p`` a rate or rates that broadcast against them. ``probes``: how many draws of v the
    mean is over (Hutchinson's estimate, unbiased), made by ``generator``; ``None`` for the exact sum, one
    Hessian-vector product for each activation. Returns a scalar in the unit of the loss.
    Raises ``ValueError`` for a rate outside [0, 1), for ``probes`` below 1, and for a loss that is not a scalar.
    Needs a loss that can be differentiated twice: eager attention, not sdpa. Sources: Wager, Wang and Liang 2013;
    Hutchinson 1989.
    """
    if probes is not None and probes < 1:
        raise ValueError(f"probes must be at least 1, or None for the exact sum; got {probes}")
    h = activations.detach().clone().requires_grad_()
    value = loss(h)
    if value.numel() != 1:
        raise ValueError(f"loss must return a scalar, got shape {tuple(value.shape)}; sum or average it")
    (slope,) = torch.autograd.grad(value.reshape(()), h, create_graph=True)
    scale = h.detach() * dropout_variance(p).to(h).sqrt()
    total, count = torch.zeros_like(value.detach().reshape(())), probes or 1
    if not slope.requires_grad:  # linear in the activations: no curvature
        return total
    for index in range(probes or h.numel()):
        if probes:
            direction = torch.randint(0, 2, h.shape, generator=generator).to(h) * 2 - 1
        else:
            direction = torch.zeros_like(h)
            direction.view(-1)[index] = 1.0
        direction = direction * scale
        (bend,) = torch.autograd.grad(slope, h, direction, retain_graph=True)
        total += (direction * bend).sum()
    return 0.5 * total / count
