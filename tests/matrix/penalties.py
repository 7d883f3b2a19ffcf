"""The penalty of KL-Norm before the head and inside: against its formula, once, over real positions, with gradient."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from klnorm_lib import KLNorm, apply, auxiliary_loss
from klnorm_lib.methods.klnorm import KLNormLayer
from klnorm_lib.methods.standardiser import ChannelStandardiser
from tests.matrix import architectures
from tests.matrix.models import PADS, built, demand, depends, inside_depends, logits_of, moved, near

SAME = 1e-5  # of logits, in float32


def divergence(layer: KLNormLayer, x: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) of every place of ``x``, summed over features."""
    groups = isinstance(layer.standardise, ChannelStandardiser)  # puts the channels last itself
    x_hat = layer.standardise(x.movedim(1, -1) if layer.channels_first and not groups else x)
    offset, std = layer.heads(x_hat)
    mean = offset + x_hat if layer.config.form == "C" else offset
    return (0.5 * (std**2 + mean**2 - 1) - std.log()).sum(-1)


def pooled(name: str) -> str:
    """The penalty is the formula's, once, for the classified positions, whatever the padding, and has a gradient."""
    model = built(name)
    moves = depends(name, model)
    apply(model, KLNorm(form="C", beta=1.0))
    [layer] = moved(model)
    seen: list[Tensor] = []
    heads = [m for m in model.modules() if getattr(m, "layer", None) is layer]
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    heads[0].register_forward_hook(lambda _, args, out: seen.append(out))
    found = []
    for pads in (0, PADS) if architectures.takes_padding(name, model) else (0,):
        batch = architectures.batch(name, model, pads=pads, ragged=True)
        seen.clear()
        output = model.train()(**batch)
        kl, mask = divergence(layer, seen[0]), batch.get("attention_mask")
        expected = classified(kl, seen[1], output.logits, torch.ones_like(kl) if mask is None else mask)
        penalty = auxiliary_loss(model).detach()
        near("the penalty", penalty, expected)
        near("loss - task loss", output.loss.detach(), F.cross_entropy(output.logits, batch["labels"]) + penalty)
        found.append(float(penalty))
    if moves < SAME:
        near("the penalty beside 16 more pads", found[-1], found[0])
    check_gradient(output.loss, [layer])
    return "ok"


def classified(kl: Tensor, scores: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``kl`` over the places whose scores the model returned as its logits, or averaged to them."""
    if scores.ndim == 2:
        demand(torch.equal(scores, logits), "the head's scores are not the model's logits")
        return kl.mean()
    demand(scores.ndim == 3, f"a head whose scores have {scores.ndim} axes")
    here = (scores == logits[:, None]).all(-1)
    if not here.any():
        here = mask.bool()
        averaged = torch.stack([row[real].mean(0) for row, real in zip(scores, here, strict=True)])
        demand(torch.allclose(averaged, logits, atol=1e-6), "neither one position's scores nor their mean are logits")
        return torch.stack([row[real].mean() for row, real in zip(kl, here, strict=True)]).mean()
    demand(bool((here.sum(1) == 1).all()), "scores of several positions are the model's logits")
    return kl[here].mean()


def check_gradient(loss: Tensor, layers: list[KLNormLayer]) -> None:
    """Every parameter of the layers' distributions gets a gradient that is not 0."""
    loss.backward()
    for layer in layers:
        for key, parameter in layer.heads.named_parameters():
            demand(parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), f"no gradient at {key}")


def internal(name: str) -> str:
    """The same function at the start; then the formula's penalty in every layer, over real positions, with gradient."""
    model = built(name)
    moves = inside_depends(name, model)
    batch = architectures.batch(name, model, ragged=True)
    plain = logits_of(model, batch)
    apply(model, KLNorm(placement="internal", beta=1.0))
    check_start(logits_of(model, batch), plain)
    layers = moved(model)
    totals = []
    for pads in (0, PADS) if architectures.takes_padding(name, model) else (0,):
        batch = architectures.batch(name, model, pads=pads, ragged=True)
        ran: list[tuple[KLNormLayer, Tensor, float]] = []
        with watched(layers, ran):
            output = model.train()(**batch)
        penalty = float(auxiliary_loss(model).detach())
        task = F.cross_entropy(output.logits, batch["labels"])
        near("loss - task loss", output.loss.detach(), task + penalty)
        near("the sum over layers", penalty, sum(own for _, _, own in ran))
        check_places(model, ran, batch)
        totals.append(penalty)
    if moves < SAME:
        near("the penalty beside 16 more pads", totals[-1], totals[0])
    loss_gradient(output.loss, {id(layer): layer for layer, _, _ in ran}.values())
    return "ok"


def check_start(logits: Tensor, plain: Tensor) -> None:
    """Raise ``Fault`` unless the logits are those of the plain model."""
    gap, size = float((logits - plain).abs().max()), float(plain.abs().max())
    demand(gap <= min(SAME * max(1.0, size), 1e-3 * size), f"logits of {size:.2g} move by {gap:.2g} at the start")


def start(name: str) -> str:
    """KL-Norm inside a language model is the same function at the start, and its penalty is in the loss."""
    model = built(name)
    batch = architectures.batch(name, model, ragged=True)
    plain = logits_of(model, batch)
    apply(model, KLNorm(placement="internal", beta=1.0))
    check_start(logits_of(model, batch), plain)
    layers = moved(model)
    ran: list[tuple[KLNormLayer, Tensor, float]] = []
    with watched(layers, ran):
        output = model.train()(**batch)
    penalty = float(auxiliary_loss(model).detach())
    near("the sum over layers", penalty, sum(own for _, _, own in ran))
    demand(penalty > 0, "no penalty")
    loss_gradient(output.loss, {id(layer): layer for layer, _, _ in ran}.values())
    return "ok"


@contextmanager
def watched(layers: list[KLNormLayer], ran: list):
    """Append (layer, its input, its penalty) to ``ran`` whenever one of ``layers`` runs."""
    with ExitStack() as stack:
        for layer in layers:
            hook = layer.register_forward_hook(lambda m, args, _: ran.append((m, args[0], float(m.penalties[-1]))))
            stack.callback(hook.remove)
        yield


@torch.no_grad()
def check_places(model: nn.Module, ran: list[tuple[KLNormLayer, Tensor, float]], batch: dict[str, Tensor]) -> None:
    """Each layer's penalty is its mean over places: all without a mask, else those that the mask says are real."""
    paths = {layer: path for path, layer in model.named_modules()}
    mask = batch.get("attention_mask")
    for layer, x, own in ran:
        kl = divergence(layer, x)
        if mask is None:
            expected = kl.mean()
        elif kl.shape == mask.shape and "decoder" not in paths[layer] and kl.shape[0] != kl.shape[1]:
            expected = ((kl * mask).sum(1) / mask.sum(1)).mean()
        else:
            continue  # another order of axes: what more pads change says whether they are counted
        near(f"the penalty of {paths[layer]}", own, expected)


def loss_gradient(loss: Tensor, layers: Iterable[KLNormLayer]) -> None:
    """Every layer's distribution gets a gradient."""
    loss.backward()
    for layer in layers:
        total = sum(float(p.grad.abs().sum()) for p in layer.heads.parameters() if p.grad is not None)
        demand(total > 0, "no gradient in a layer that ran")
