"""The penalties of peft's own regularised tuners: those that peft leaves to the user join the loss, all are logged."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from klnorm_lib.methods.contract.fresh_parts import active_adapter, is_peft
from klnorm_lib.methods.contract.undo import add_module, undo_later
from klnorm_lib.methods.monitoring import means_of
from klnorm_lib.methods.penalty import Penalty, PenaltyLayer
from klnorm_lib.methods.schedule import Schedule

_LEFT = re.compile(r"_get_(\w+)_loss")  # methods of a tuner that give a penalty for the user to add
_LEFT_OUT = (
    "peft leaves the penalty of {names} to you, and the adapter came after apply, so that nothing adds it: apply after "
    "get_peft_model, or add _get_{first}_loss() of the peft model to the loss"
)
_OWN = {"ADALORA": "orth_reg_weight", "SHADOW": "auxiliary_loss_weight"}  # added by the tuner's own forward


class TunerPenalty(PenaltyLayer):
    """Adds the penalty of one kind of tuner to the loss of every training forward, with the weights of peft's config.

    ``own``: the tuner's forward adds it to a named loss by itself. Then this one adds it where there is no such loss
    (a loss of one's own from the logits, outputs in a tuple) and otherwise only has the log know.
    """

    last: Tensor | None = None  # as it joined the loss of the last forward

    def __init__(self, name: str, own: bool) -> None:
        super().__init__(Schedule("constant", 1.0), keep_step=False)
        self.method_name, self.own = name, own

    def finish(self, model: nn.Module, outputs: object, as_tuple: bool) -> None:
        """Read the penalty, which may depend on what was drawn in this forward."""
        self.last = None
        if not self.training or (self.own and not as_tuple and getattr(outputs, "loss", None) is not None):
            return
        with torch.autocast(next(model.parameters()).device.type, enabled=False):
            value = _value(model, self.method_name)
        if isinstance(value, Tensor):
            self.penalise(value)
            self.last = self.penalties[-1]

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"last": None}


def penalise_tuners(hosts: list[nn.Module], outers: list[nn.Module], inner: nn.Module) -> list[str]:
    """Have ``inner`` add and log what the active adapters of ``hosts`` are penalised by; one line a penalty."""
    if not hosts:
        return []
    from peft.tuners.tuners_utils import BaseTuner

    lines, tuners = [], [outer for outer in outers if isinstance(outer, BaseTuner)]
    for host in hosts:
        for name, own in _penalties(active_adapter(host)[1], with_forward=is_peft(host)).items():
            layer = TunerPenalty(name, own)
            add_module(inner, f"peft_{name}", layer.train(inner.training))
            for tuner in tuners:
                if own:
                    undo_later(inner, tuner.register_forward_hook(functools.partial(_note, layer, inner)).remove)
                elif (original := getattr(type(tuner), f"_get_{name}_loss", None)) is not None:
                    tuner.__dict__[f"_get_{name}_loss"] = functools.partial(_counted, layer, original, tuner)
            what = "is added by its own forward" if own else "joins the loss"
            lines.append(f"peft: the penalty of {name} {what}; logged as penalty_{name}")
    return lines


def warn_of_left_out(model: nn.Module) -> None:
    """Warn of penalties that the active adapters of ``model`` leave to the user and that no layer adds."""
    there = {m.method_name for m in model.modules() if isinstance(m, TunerPenalty)}
    config = getattr(model, "peft_config", {})
    found = [n for name in _active(model) if name in config for n in _penalties(config[name], with_forward=True)]
    found = [n for n in found if n not in there and n.upper() not in _OWN]
    if found:
        warnings.warn(_LEFT_OUT.format(names=", ".join(found), first=found[0]), stacklevel=2)


def _counted(layer: TunerPenalty, original: Callable, tuner: nn.Module, *args, **kwargs):
    """In place of a tuner's own method: what joined the loss already refuses to be added to it again."""
    if layer.last is not None and layer.last.requires_grad:
        return Penalty.wrap(layer.last)
    return original(tuner, *args, **kwargs)


def _penalties(config, with_forward: bool) -> dict[str, bool]:
    """Name of each penalty of an adapter -> whether the tuner's own forward, where it runs, adds it."""
    from peft import PEFT_TYPE_TO_TUNER_MAPPING

    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if getattr(config, _OWN.get(kind, ""), 0):
        return {kind.lower(): with_forward}
    found = [m[1] for name in dir(PEFT_TYPE_TO_TUNER_MAPPING.get(config.peft_type)) if (m := _LEFT.fullmatch(name))]
    return {name: False for name in found if getattr(config, f"{name}_config", None) is not None}


def _value(model: nn.Module, name: str) -> Tensor | float | None:
    """The penalty as peft computes it, its weights included; None where no layer has it."""
    from peft import PEFT_TYPE_TO_TUNER_MAPPING, AdaLoraModel

    active = [each for each in _active(model) if each in getattr(model, "peft_config", {})]
    if not active:
        return None
    if name == "adalora":
        zero = SimpleNamespace(loss=torch.zeros((), device=next(model.parameters()).device))
        parts = SimpleNamespace(forward=lambda: zero, named_parameters=model.named_parameters)
        of = SimpleNamespace(model=parts, peft_config=model.peft_config, trainable_adapter_name=active[0])
        return AdaLoraModel.forward(of).loss
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[model.peft_config[active[0]].peft_type]
    compute = getattr(tuner, f"_get_{name}_loss", None)  # Shadow's needs labels
    return compute(model, active) if compute is not None else None


def _active(model: nn.Module) -> list[str]:
    """The active adapters of the first layer that peft adapts, none if they are disabled."""
    adapted = next((m for m in model.modules() if "base_layer" in m._modules), None)
    return [] if adapted is None or adapted.disable_adapters else list(adapted.active_adapters)


def _note(layer: TunerPenalty, inner: nn.Module, tuner: nn.Module, args: tuple, outputs: object) -> None:
    means, before = means_of(layer), inner.__dict__.pop("_klnorm_loss", None)
    loss = getattr(outputs, "loss", None)
    if means is not None and before is not None and isinstance(loss, Tensor):
        config = tuner.peft_config[tuner.active_adapters[0]]
        weight = getattr(config, _OWN[layer.method_name.upper()])
        means.add(penalty=loss.detach() - before, beta=torch.as_tensor(weight))
