"""What is checked on every architecture: each check returns "ok", "refused: why", "depends: how far" or "FAULT: what".

from tests.matrix import checks

checks.run("text/bert", "pooled")      # "ok"
checks.everything("text/bert")         # check -> answer
"""

from __future__ import annotations

import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

import klnorm_lib
from klnorm_lib import Dropout, GuidedDropout, KLNorm, apply, auxiliary_loss, effective_rates
from klnorm_lib.methods.klnorm import KLNormLayer
from klnorm_lib.methods.standardiser import ChannelStandardiser
from klnorm_lib.probes import diagonal_fisher
from klnorm_lib.sites import dropout_sites
from tests.matrix import architectures, dropouts

SAME = 1e-5  # of logits, in float32
RELATIVE = 1e-4  # of penalties
PADS = 16
RATE = 0.3
NOT_APPLICABLE = "–"


class Fault(AssertionError):
    """What a check found to be wrong."""


def demand(holds: bool, what: str) -> None:
    """Raise ``Fault`` unless ``holds``."""
    if not holds:
        raise Fault(what)


def built(name: str) -> PreTrainedModel:
    """The model without dropout, layer-drop and SpecAugment, its norms' weights and biases moved from 1 and 0."""
    model = architectures.build(name)
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    for owner in (*model.modules(), *configs.values()):
        for key, value in vars(owner).items():
            if isinstance(value, float) and ("drop" in key or key in ("mask_time_prob", "mask_feature_prob")):
                setattr(owner, key, 0.0)
        if isinstance(owner, (nn.Dropout, nn.Dropout1d, nn.Dropout2d)):
            owner.p = 0.0
    draw = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=draw)
    return model


def moved(model: nn.Module) -> list[KLNormLayer]:
    """The model's KL-Norm layers, their distributions moved from where they start."""
    draw = torch.Generator().manual_seed(3)
    layers = [module for module in model.modules() if isinstance(module, KLNormLayer)]
    for layer in layers:
        for parameter in layer.heads.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=draw)
    return layers


@torch.no_grad()
def logits_of(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """(batch, labels), in evaluation mode and under one seed, for those that draw numbers even so."""
    torch.manual_seed(4)
    return model.eval()(**batch).logits


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


def near(what: str, value: object, expected: object, relative: float = RELATIVE) -> None:
    """Raise ``Fault`` unless both numbers are equal to ``relative``."""
    value, expected = float(value), float(expected)
    demand(abs(value - expected) <= relative * abs(expected), f"{what} is {value:.6g} instead of {expected:.6g}")


def depends(name: str, model: PreTrainedModel) -> float:
    """By how much the logits move beside 16 more pads."""
    if not architectures.takes_padding(name, model):
        return 0.0
    batches = [architectures.batch(name, model, pads=pads, ragged=True) for pads in (0, PADS)]
    return float((logits_of(model, batches[0]) - logits_of(model, batches[1])).abs().max())


@torch.no_grad()
def inside_depends(name: str, model: PreTrainedModel) -> float:
    """By how much the logits, or what stands at real positions inside, move beside 16 more pads."""
    moves = depends(name, model)
    if not architectures.takes_padding(name, model):
        return moves
    batches = [architectures.batch(name, model, pads=pads, ragged=True) for pads in (0, PADS)]
    inside = [model.eval()(**batch, output_hidden_states=True) for batch in batches]
    mask = batches[0]["attention_mask"].bool()
    for key in ("hidden_states", "encoder_hidden_states"):
        for one, other in zip(*((output.get(key) or ()) for output in inside), strict=True):
            if one.shape[:2] == mask.shape and one.shape[0] == other.shape[0]:
                moves = max(moves, float((one - other[:, : one.shape[1]])[mask].abs().max()))
    return moves


def padding(name: str) -> str:
    """Logits of the plain model do not depend on padding; where they do, by how much."""
    model = built(name)
    if not architectures.takes_padding(name, model):
        return NOT_APPLICABLE
    moves = depends(name, model)
    return "ok" if moves < SAME else f"depends: logits move by {moves:.1g}"


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


def dropout(name: str) -> str:
    """``Dropout``: with a rate of its own for every site every mask has that of its site; with one, all have that."""
    model = architectures.build(name)
    wanted = dropouts.distinct(dropout_sites(model))
    apply(model, Dropout(rates=wanted))
    batch = architectures.batch(name, model, rows=dropouts.ROWS)
    compare_rates(wanted, dropouts.measured_rates(model, batch))
    model = architectures.build(name)
    apply(model, Dropout(RATE))
    for site, drawn in dropouts.measured_rates(model, batch).items():
        demand(abs(drawn - RATE) < 1e-5, f"{site}: asked for {RATE}, masks at {drawn}")
    return "ok"


def guided(name: str) -> str:
    """Guided dropout with rates from the Fisher information: every mask has the rate of its site."""
    model = architectures.build(name)
    batch = architectures.batch(name, model, rows=dropouts.ROWS)
    method = GuidedDropout(fisher="task").prepare(model, [batch])
    apply(model, method)
    compare_rates(dict(method.rates), dropouts.measured_rates(model, batch))
    return "ok"


def compare_rates(wanted: dict[str, float], seen: dict[str, float]) -> None:
    """Raise ``Fault`` naming the first site whose masks have another rate than was asked for."""
    for site in {**wanted, **seen}:
        asked, drawn = wanted.get(site), seen.get(site)
        same = asked is not None and drawn is not None and abs(asked - drawn) < 1e-5
        # A mask of rate 0 is not drawn at all.
        demand(same or (asked == 0 and drawn is None), f"{site}: asked for {asked}, masks at {drawn}")


def fisher(name: str) -> str:
    """One pass a batch gives, tensor by tensor, what a pass for every sequence gives."""
    model = built(name)
    batch = architectures.batch(name, model, ragged=True)
    loop = diagonal_fisher(model, [batch], method="loop", progress=False)
    hooks = diagonal_fisher(model, [batch], progress=False)
    demand(list(loop) == list(hooks), "hooks and loop name different parameters")
    floor = 1e-12 * max(float(tensor.max()) for tensor in loop.values() if tensor.numel())
    for key, expected in loop.items():
        if expected.numel():
            gap, size = float((hooks[key] - expected).abs().max()), float(expected.max())
            demand(gap <= 1e-3 * size + floor, f"{key}: hooks differ by {gap:.2g} where the loop has {size:.2g}")
    return "ok"


def saved(name: str) -> str:
    """What ``save_pretrained`` wrote comes back bit-equal by ``klnorm_lib.load`` and by the Auto class."""
    answers = {}
    methods = {
        "pooled": KLNorm(form="C"),
        "internal": KLNorm(placement="internal"),
        "dropout": Dropout(RATE),
    }
    for label, method in methods.items():
        model = built(name)
        try:
            apply(model, method)
        except Exception as error:
            answers[label] = answer_of(error)
            continue
        if isinstance(method, KLNorm):
            moved(model)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            come_back(name, model, Path(folder), label)
        answers[label] = "ok"
    left = [answer for answer in answers.values() if answer != "ok"]
    return left[0] if len(left) == len(answers) else "ok"


def come_back(name: str, model: PreTrainedModel, folder: Path, label: str) -> None:
    """Raise ``Fault`` unless both ways of opening ``folder`` give the logits of ``model``, of dropout its rates too."""
    batch = architectures.batch(name, model, ragged=True)
    expected = logits_of(model, batch)
    ways = {"load": klnorm_lib.load, "from_pretrained": architectures.auto_class(name).from_pretrained}
    for way, opened in ways.items():
        again = opened(folder)
        found = logits_of(again, batch)
        demand(torch.equal(found, expected), f"{label}, {way}: logits {float((found - expected).abs().max()):.2g} off")
        if label == "dropout":
            demand(effective_rates(again) == effective_rates(model), f"{way}: the rates are not those saved")


CHECKS: dict[str, Callable[[str], str]] = {
    "pooled": pooled,
    "internal": internal,
    "dropout": dropout,
    "guided": guided,
    "fisher": fisher,
    "saved": saved,
    "padding": padding,
}


OF_LANGUAGE_MODELS: dict[str, Callable[[str], str]] = {"start": start}


def checks_of(name: str) -> list[str]:
    """The checks of a classifier, or of a language model of which there is no classifier."""
    return list(OF_LANGUAGE_MODELS if name.startswith(("masked/", "causal/")) else CHECKS)


def run(name: str, check: str) -> str:
    """The answer of one check on one architecture; an error that is no refusal of this library's is a fault."""
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return (CHECKS | OF_LANGUAGE_MODELS)[check](name)
        except Exception as error:
            return answer_of(error)


def answer_of(error: Exception) -> str:
    """A refusal is an error that a line of ``klnorm_lib`` raises on purpose."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    if isinstance(error, Fault):
        return f"FAULT: {text}"
    own = Path(klnorm_lib.__file__).parent in Path(frame.filename).parents
    if own and (frame.line or "").startswith("raise"):
        return f"refused: {text}"
    return f"FAULT: {type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}: {text[:200]}"


def everything(name: str) -> dict[str, str]:
    """Check -> its answer, for one architecture."""
    return {check: run(name, check) for check in checks_of(name)}
