"""Random directions in the space of weights, as long as the weights that they move (Li et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from klnorm_lib.probes.landscape.sets import ParameterSet, filter_axes


def direction(
    model: nn.Module, seed: int, within: ParameterSet | None = None, length: float | None = None
) -> dict[str, Tensor]:
    r"""A filter-normalised random direction: parameter name to a tensor of its shape.

    A Gaussian draw, scaled so that the part of each filter i is as long as the filter itself,

    .. math:: d_i = \frac{\lVert\theta_i\rVert}{\lVert g_i\rVert}\, g_i, \qquad g_i \sim \mathcal{N}(0, 1);

    tensors of one dimension stay where they are (Li et al. 2018, section 4). Then whatever is not in the set
    ``within`` is put to zero; the rest of the draw does not depend on the set. With ``length``, the whole is scaled to
    that Euclidean norm. Parameters that do not move are left out. Raises ``ValueError`` for a set without weights.
    """
    generator = torch.Generator().manual_seed(seed)
    axes, found = filter_axes(model), {}
    for name, parameter in model.named_parameters():
        if name not in axes:
            continue
        draw = torch.randn(parameter.shape, generator=generator).to(parameter.device)
        rest = _rest(parameter, axes[name])
        own, drawn = (torch.linalg.vector_norm(t.detach().float(), dim=rest, keepdim=True) for t in (parameter, draw))
        found[name] = draw * (own / drawn)
        if within is not None:
            if name in within.masks:
                found[name] *= within.masks[name].to(parameter.device)
            else:
                del found[name]
    if length is not None:
        long = norm(found)
        if not long:
            raise ValueError("the direction moves no weight, so it cannot be given a length; the set is empty or zero")
        found = {name: d * (length / long) for name, d in found.items()}
    return found


def filter_scale(model: nn.Module) -> dict[str, Tensor]:
    r"""Root mean square of every filter, in a shape that broadcasts over its parameter.

    A filter-normalised direction has independent filters with :math:`E[d_j^2] = s_j^2`, where :math:`s_j` is this
    scale, so the mean curvature of sections is :math:`\sum_j s_j^2 H_{jj}`.
    """
    axes = filter_axes(model)
    return {
        name: p.detach().float().square().mean(_rest(p, axes[name]), keepdim=True).sqrt()
        for name, p in model.named_parameters()
        if name in axes
    }


def norm(direction: Mapping[str, Tensor]) -> float:
    """Euclidean norm over all tensors."""
    return float(sum(d.double().square().sum() for d in direction.values()) ** 0.5)


def _rest(parameter: Tensor, axis: int) -> tuple[int, ...]:
    return tuple(k for k in range(parameter.dim()) if k != axis)
