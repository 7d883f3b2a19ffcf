"""Which parameters' gradients hooks can separate by sequence: found out on a few sequences, by comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from klnorm_lib.probes.fisher.loop import Loop
from klnorm_lib.probes.fisher.losses import Loss
from klnorm_lib.probes.fisher.selection import Selection, output_layer
from klnorm_lib.probes.fisher.taps import Taps

LANGUAGE_MODELS = ("masked", "causal", "seq2seq")


@dataclass
class Plan:
    """How to go about a model with hooks.

    ``selects``: logits at labelled tokens only; ``expand``: ids without batch axis are expanded; ``reasons``:
    parameter name -> why hooks cannot do it; ``silent``: names of parameters that no supported module has, and that the
    loss does not depend on as far as was seen.
    """

    selects: bool = False
    expand: bool = False
    reasons: dict[str, str] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)


def hooked_pass(
    taps: Taps,
    model: nn.Module,
    loss: Loss,
    kind: str | None,
    plan: Plan,
    batch: Mapping[str, Any],
    rows: int,
) -> Tensor:
    """One pass of ``taps`` over a batch, (rows,) losses; no parameter but the silent ones requires a gradient in it."""
    silent = {id(p) for n, p in model.named_parameters() if n in plan.silent}
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in silent]
    try:
        for p in frozen:  # so that backward makes no gradient of the batch's sum
            p.requires_grad_(False)
        if not plan.selects:
            return taps.run(rows, lambda: loss(model, batch))
        selection = Selection(kind, batch)
        return taps.select(output_layer(model), selection, lambda: selection.loss(model))
    finally:
        for p in frozen:
            p.requires_grad_(True)


def plan_for(
    model: nn.Module,
    loss: Loss,
    kind: str | None,
    parameters: Mapping[str, nn.Parameter],
    reference: Loop,
    losses: Tensor,
    few: Mapping[str, Any],
) -> Plan:
    """Try the hooks on the sequences ``few``, for which ``reference`` has the sums and ``losses`` are the losses.

    Raises ``ValueError`` when the losses of the sequences are others in a batch than alone.
    """
    selects = kind in LANGUAGE_MODELS and output_layer(model) is not None
    together = None
    for plan in (Plan(True, True), Plan(False, True), Plan(False, False)):
        if plan.selects and not selects:
            continue
        taps = Taps(model, parameters, plan.expand)
        try:
            together = hooked_pass(taps, model, loss, kind, plan, few, len(losses))
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            together = None
            failed = error
            continue
        finally:
            taps.close()
        if torch.allclose(together, losses, rtol=tolerance(parameters), atol=1e-6):
            _doubt(plan, taps, model, reference)
            return plan
    if together is None:
        return Plan(reasons=dict.fromkeys(parameters, f"a pass with hooks failed ({failed})"))
    raise ValueError(
        f"two sequences have the losses {losses.tolist()} alone and {together.tolist()} in one batch: the loss of a "
        "sequence must not depend on the others in its batch, nor on random draws"
    )


def tolerance(parameters: Mapping[str, nn.Parameter]) -> float:
    """Relative difference that rounding explains, 1e-3 in single precision."""
    return max(1e-3, 30 * max(torch.finfo(p.dtype).eps for p in parameters.values()))


def _doubt(plan: Plan, taps: Taps, model: nn.Module, reference: Loop) -> None:
    """Note which parameters the hooks got wrong, or cannot get right."""
    modules = {path: type(module).__name__ for path, module in model.named_modules()}
    within = tolerance(reference.parameters)
    largest = max(float(r.mean()) for r in reference.sums.values())
    for name, true in reference.sums.items():
        path = name.rpartition(".")[0]
        owner = f"{path or 'the model'} ({modules.get(path, 'renamed')})"
        if name in taps.without_batch:
            plan.reasons[name] = f"{taps.without_batch[name]} sees no batch axis"
        elif name not in taps.covered:
            if name in reference.used:
                plan.reasons[name] = f"{owner} is not a supported kind of module"
            else:
                plan.silent.add(name)
        else:
            # What should be zero (a key's bias) is rounding noise, whose square no two ways agree on.
            noise = largest * (within / 60) ** 2 * true.numel() ** 0.5
            if not (taps.sums[name] - true).norm() <= within * true.norm() + noise:
                plan.reasons[name] = f"{owner} does not explain the gradient of its parameter"
