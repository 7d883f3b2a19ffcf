"""Which parameters are moved: the most and the least informative ones, and random ones as their control."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from klnorm_lib.sites.walk import bare_parameters

UNITS = ("tensors", "counts", "parameters", "within")


@dataclass(frozen=True)
class ParameterSet:
    """A name, and for every parameter tensor that has members a boolean mask of its shape."""

    name: str
    masks: Mapping[str, Tensor]

    @property
    def count(self) -> int:
        """Number of parameters in the set."""
        return sum(int(mask.sum()) for mask in self.masks.values())


def split(
    model: nn.Module, fisher: Mapping[str, Tensor], unit: str = "counts", share: float = 0.5, seed: int = 0
) -> dict[str, ParameterSet]:
    """The ``top`` and the ``bottom`` of a model's parameters by Fisher information, and a ``random`` set like them.

    Members are entries of tensors with at least two dimensions: vectors (biases, scales) are never moved in a section.
    ``unit`` says how the share is counted:

    - ``tensors``, the published way (Sharma et al. 2024): that share of all tensors, in order of their mean Fisher.
      Vectors take places in the ranking, so the sets have unequal numbers of parameters.
    - ``counts``: matrices in the order of their mean Fisher, taken whole until the set has that share of their
      parameters; of the matrix at the cut, filters drawn at random. Equal counts.
    - ``parameters``: single parameters in order of their own Fisher. Equal counts.
    - ``within``: the same inside each matrix, so that both sets have the same number of entries in every matrix.

    ``random`` is made by the same rule from a random order. Ties are broken at random. ``fisher``: parameter name to a
    tensor of its shape, as :func:`klnorm_lib.probes.diagonal_fisher` gives it; parameters it leaves out belong to no
    set. ``share`` is at most 1/2, so that top and bottom are disjoint. ``seed`` draws the random set, ties and cuts.
    Raises ``ValueError`` for an unknown unit or share, or a Fisher information that does not fit the model.
    """
    if unit not in UNITS:
        raise ValueError(f"unit={unit!r} is unknown; choose one of {', '.join(UNITS)}")
    if not 0 < share <= 0.5:
        raise ValueError(f"share must lie in (0, 1/2] so that top and bottom are disjoint, got {share}")
    shapes = {name: p.shape for name, p in model.named_parameters()}
    own = dict(zip(bare_parameters(model), shapes, strict=True))  # a Fisher information knows no wrappers
    fisher = {own.get(name, name): values for name, values in fisher.items()}
    for name, values in fisher.items():
        if shapes.get(name) != values.shape:
            there = tuple(shapes[name]) if name in shapes else "no such parameter"
            raise ValueError(f"fisher[{name!r}] has shape {tuple(values.shape)}, the model has {there}")
    scores = {name: fisher[name].detach().float().cpu() for name in shapes if name in fisher}
    if not any(s.dim() > 1 for s in scores.values()):
        raise ValueError("fisher names no tensor of two or more dimensions, so there is nothing to choose from")
    generator = torch.Generator().manual_seed(seed)
    axes, choose = filter_axes(model), _CHOOSE[unit]
    chance = {name: torch.rand(s.shape, generator=generator) for name, s in scores.items()}
    if unit in ("tensors", "counts"):  # one lot a tensor: the mean of many would put large tensors in the middle
        chance = {name: lots.flatten()[0].expand(lots.shape) for name, lots in chance.items()}
    bottom, top = choose(scores, share, generator, axes)
    found = {"top": top, "bottom": bottom, "random": choose(chance, share, generator, axes)[0]}
    return {name: ParameterSet(name, {k: m for k, m in masks.items() if m.any()}) for name, masks in found.items()}


def filter_axes(model: nn.Module) -> dict[str, int]:
    """The axis along which the filters of every parameter of two or more dimensions are counted.

    A filter is what makes one output: a row of a linear layer's weight or of a table of embeddings, the kernels of
    one output channel; 0 but for transformers' ``Conv1D``, whose weight is stored transposed.
    """
    axes = {name: 0 for name, p in model.named_parameters() if p.dim() > 1}
    for path, module in model.named_modules():
        weight = f"{path}.weight" if path else "weight"
        if type(module).__name__ == "Conv1D" and weight in axes:
            axes[weight] = 1
    return axes


def _matrices(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: s for name, s in scores.items() if s.dim() > 1}


def _by_mean(scores: Mapping[str, Tensor], generator: torch.Generator) -> list[str]:
    """Names from the smallest mean to the largest, ties in random order."""
    names = list(scores)
    names = [names[i] for i in torch.randperm(len(names), generator=generator)]
    return sorted(names, key=lambda name: float(scores[name].double().mean()))


# Each gives the masks of the smallest scores and those of the largest: two ends of one order, so that they never meet.


def _tensors(scores, share, generator, axes) -> tuple[dict[str, Tensor], ...]:
    order, number = _by_mean(scores, generator), int(share * len(scores))
    whole = {name: torch.ones_like(s, dtype=torch.bool) for name, s in _matrices(scores).items()}
    return tuple({n: whole[n] for n in end[:number] if n in whole} for end in (order, order[::-1]))


def _counts(scores, share, generator, axes) -> tuple[dict[str, Tensor], ...]:
    scores = _matrices(scores)
    order = _by_mean(scores, generator)
    # The place of every entry in its matrix: filters in random order, entries of a filter side by side.
    places = {name: _places(scores[name], axes[name], generator) for name in order}
    ends = []
    for names, last in ((order, False), (order[::-1], True)):
        left, masks = int(share * sum(s.numel() for s in scores.values())), {}
        for name in names:
            place = places[name]
            masks[name] = place >= place.numel() - left if last else place < left
            left = max(0, left - place.numel())
        ends.append(masks)
    return tuple(ends)


def _places(values: Tensor, axis: int, generator: torch.Generator) -> Tensor:
    filters = values.movedim(axis, 0)
    order = torch.randperm(len(filters), generator=generator).view(-1, *[1] * (filters.dim() - 1))
    size = filters[0].numel()
    return (order * size + torch.arange(size).view(filters.shape[1:])).movedim(0, axis)


def _parameters(scores, share, generator, axes) -> tuple[dict[str, Tensor], ...]:
    scores = _matrices(scores)
    flat = torch.cat([s.flatten() for s in scores.values()])
    sizes = [s.numel() for s in scores.values()]
    return tuple(
        {name: part.view(scores[name].shape) for name, part in zip(scores, end.split(sizes), strict=True)}
        for end in _ends(flat, int(share * len(flat)), generator)
    )


def _within(scores, share, generator, axes) -> tuple[dict[str, Tensor], ...]:
    scores = _matrices(scores)
    ends = {name: _ends(s.flatten(), int(share * s.numel()), generator) for name, s in scores.items()}
    return tuple({name: ends[name][k].view(s.shape) for name, s in scores.items()} for k in (0, 1))


def _ends(values: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The ``count`` smallest and, of the rest, the ``count`` largest of ``values``, (n,); which of equals is drawn."""
    low = _smallest(values, count, generator, torch.ones(len(values), dtype=torch.bool))
    return low, _smallest(-values, count, generator, ~low)


def _smallest(values: Tensor, count: int, generator: torch.Generator, free: Tensor) -> Tensor:
    if not count:
        return torch.zeros_like(free)
    last = values[free].kthvalue(count).values
    chosen, equal = free & (values < last), (free & (values == last)).nonzero().squeeze(1)
    drawn = torch.randperm(len(equal), generator=generator)[: count - int(chosen.sum())]
    chosen[equal[drawn]] = True
    return chosen


_CHOOSE = {"tensors": _tensors, "counts": _counts, "parameters": _parameters, "within": _within}
