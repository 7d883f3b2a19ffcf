"""Which parameters' gradients hooks can separate by sequence: found out on a few sequences, by comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from klnorm_lib.probes.fisher.batches import take, token_counts
from klnorm_lib.probes.fisher.losses import Loss
from klnorm_lib.probes.fisher.rounding import Measured, tolerance
from klnorm_lib.probes.fisher.selection import Selection, output_layer
from klnorm_lib.probes.fisher.taps import Taps

LANGUAGE_MODELS = ("masked", "causal", "seq2seq")


@dataclass
class Plan:
    """How to go about a model with hooks.

    ``selects``: logits at labelled tokens only; ``expand``: ids without batch axis are expanded; ``reasons``:
    parameter name -> why hooks cannot do it; ``silent``: names of parameters that no supported module has, and that the
    loss does not depend on as far as was seen; ``forms``: parameter name -> how its inputs have the batch axis.
    """

    selects: bool = False
    expand: bool = False
    reasons: dict[str, str] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    forms: dict[str, set[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """What is computed: the losses of a model, of which parameters, and of which ``kind`` the losses are."""

    model: nn.Module
    loss: Loss
    parameters: Mapping[str, nn.Parameter]
    kind: str | None = None


def hooked_pass(
    taps: Taps, subject: Subject, plan: Plan, batch: Mapping[str, Any], rows: int, backward: bool = True
) -> Tensor:
    """One pass of ``taps`` over a batch, (rows,) losses; no parameter but the silent ones requires a gradient in it."""
    model, tokens = subject.model, token_counts(batch)
    silent = {id(subject.parameters[name]) for name in plan.silent}
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in silent]
    try:
        for p in frozen:  # so that backward makes no gradient of the batch's sum
            p.requires_grad_(False)
        if not plan.selects:
            return taps.run(rows, lambda: subject.loss(model, batch), tokens, backward)
        selection = Selection(subject.kind, batch)
        return taps.select(output_layer(model), selection, lambda: selection.loss(model), tokens, backward)
    finally:
        for p in frozen:
            p.requires_grad_(True)


def plan_for(subject: Subject, reference: Measured, losses: Tensor, few: Mapping[str, Any]) -> Plan:
    """Try the hooks on the sequences ``few``, for which ``reference`` has the sums and ``losses`` are the losses.

    Raises ``ValueError`` when the losses of the sequences are others in a batch than alone.
    """
    selects = subject.kind in LANGUAGE_MODELS and output_layer(subject.model) is not None
    together, failed = None, ""
    for plan in (Plan(True, True), Plan(False, True), Plan(False, False)):
        if plan.selects and not selects:
            continue
        try:
            together = _try(plan, subject, subject.parameters, reference, losses, few)
        except Exception as error:  # what was wrong with the batch or the loss, the loop would have raised before
            together, failed = None, f"a pass with hooks failed ({type(error).__name__}: {error})"
            continue
        if together is losses:
            return plan
    if together is None:
        return Plan(reasons=dict.fromkeys(subject.parameters, failed))
    raise ValueError(_depends(losses, together))


def tried_again(
    plan: Plan,
    subject: Subject,
    hooked: Mapping[str, nn.Parameter],
    reference: Measured,
    losses: Tensor,
    few: Mapping[str, Any],
) -> Plan:
    """The plan for other sequences, of parameters that were ``hooked``; raises as :func:`plan_for` does."""
    again = Plan(plan.selects, plan.expand)
    try:
        together = _try(again, subject, hooked, reference, losses, few)
    except Exception as error:
        return Plan(reasons=dict.fromkeys(hooked, f"a pass with hooks failed ({type(error).__name__}: {error})"))
    if together is not losses:
        raise ValueError(_depends(losses, together))
    return again


def _try(
    plan: Plan,
    subject: Subject,
    wanted: Mapping[str, nn.Parameter],
    reference: Measured,
    losses: Tensor,
    few: Mapping[str, Any],
) -> Tensor:
    """Compare, and note in ``plan``; returns ``losses``, or those in the batch if they are others."""
    rows = len(losses)
    taps = Taps(subject.model, wanted, plan.expand)
    fewer = Taps(subject.model, wanted, plan.expand, sums=taps.sums)  # adds nothing to them
    try:
        together = hooked_pass(taps, subject, plan, few, rows)
        if not torch.allclose(together, losses, rtol=tolerance(subject.parameters), atol=1e-6):
            return together
        hooked_pass(fewer, subject, plan, take(few, slice(0, rows - 1)), rows - 1, backward=False)
    finally:
        taps.close()
        fewer.close()
    plan.forms = dict(taps.forms)
    without_batch = {**_not_growing(taps, fewer, rows), **fewer.without_batch, **taps.without_batch}
    _doubt(plan, taps, without_batch, subject.model, wanted, reference)
    return losses


def _not_growing(taps: Taps, fewer: Taps, rows: int) -> dict[str, str]:
    """Parameters whose inputs do not grow with the number of sequences: a table whose size looked like a batch's."""
    found = {}
    for name, lengths in taps.lengths.items():
        grown = [length * rows for length in fewer.lengths[name]] == [length * (rows - 1) for length in lengths]
        if not grown or fewer.forms[name] != taps.forms[name]:
            found[name] = name.rpartition(".")[0]
    return found


def _depends(alone: Tensor, together: Tensor) -> str:
    return (
        f"some sequences have the losses {alone.tolist()} alone and {together.tolist()} in one batch: the loss of a "
        "sequence must not depend on the others in its batch, nor on random draws"
    )


def _doubt(
    plan: Plan,
    taps: Taps,
    without_batch: Mapping[str, str],
    model: nn.Module,
    wanted: Mapping[str, nn.Parameter],
    reference: Measured,
) -> None:
    """Note which parameters the hooks got wrong, or cannot get right."""
    owners: dict[int, str] = {}
    for path, module in model.named_modules():
        for p in module._parameters.values():
            owners.setdefault(id(p), f"{path or 'the model'} ({type(module).__name__})")
    heard = {name: total for name, total in taps.sums.items() if name in taps.lengths and name not in without_batch}
    wrong = reference.wrong(heard)
    for name, parameter in wanted.items():
        owner = owners[id(parameter)]
        if name in without_batch:
            plan.reasons[name] = f"{without_batch[name]} sees no batch axis"
        elif name not in taps.covered:
            if name in reference.used:
                plan.reasons[name] = f"{owner} is not a supported kind of module"
            else:
                plan.silent.add(name)
        elif name not in taps.lengths:
            if name in reference.used:
                plan.reasons[name] = f"{owner} is not called where its parameters are used"
        elif name in wrong:
            plan.reasons[name] = f"{owner} does not explain the gradient of its parameter"
