"""What a training run logs of its penalties: means over the logging interval, in the stock Trainer's own log."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

ACTIVE = 0.01  # nats above which a feature counts as active


class Means:
    """Running means of tensors, kept on their device until they are read, so that no step waits for the device."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, **values: Tensor) -> None:
        """One more value of each name; a gradient is not kept."""
        for name, value in values.items():
            value = value.detach().as_subclass(Tensor).to(torch.promote_types(torch.float32, value.dtype), copy=True)
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self) -> dict[str, Tensor]:
        """The means since the last time they were read."""
        means = {name: total.cpu() / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means


def start(model: nn.Module, layers: Iterable[nn.Module]) -> None:
    """Have ``model`` and its penalised layers keep what :func:`collect` reads."""
    for module in (model, *layers):
        module.__dict__["_klnorm_means"] = Means()


def stop(model: nn.Module, layers: Iterable[nn.Module]) -> None:
    """Keep nothing any more."""
    for module in (model, *layers):
        module.__dict__.pop("_klnorm_means", None)


def means_of(module: nn.Module) -> Means | None:
    """Where ``module`` keeps its means; None if nobody wants them, in evaluation, and while a graph is compiled."""
    if not module.training or torch.compiler.is_compiling():
        return None
    return module.__dict__.get("_klnorm_means")


def collect(model: nn.Module, layers: Iterable[nn.Module], step: int) -> dict[str, float]:
    r"""The row of the log, all keys beginning with ``penalty``; empty where no penalised forward was made.

    ``penalty``: the sum that joined the loss; ``penalty_task_loss``: the loss without it; ``penalty_step``: the step
    of the schedules. For each method ``penalty_NAME`` and ``penalty_NAME_beta``, and where there is a KL for each
    feature, ``penalty_NAME_kl_per_feature``, its mean over features in nats, and ``penalty_NAME_active_units``, the
    number of features whose KL, averaged over the interval's examples, is above 0.01 nats. Layers of one method:
    penalties and active units are summed, beta and the KL for each feature averaged. A tuner of peft that penalises
    itself has its name there too; what its own forward adds (AdaLoRA, Shadow) is not part of ``penalty``.
    """
    if "_klnorm_means" not in model.__dict__:
        return {}
    row = {name: float(value) for name, value in model.__dict__["_klnorm_means"].read().items()}
    by_method: dict[str, list[dict[str, Tensor]]] = {}
    for layer in layers:
        means = layer.__dict__.get("_klnorm_means")
        if means is not None and (found := means.read()):
            by_method.setdefault(layer.method_name, []).append(found)
    for name, found in by_method.items():
        key = f"penalty_{name}"
        row[key] = sum(float(f["penalty"]) for f in found)
        row[f"{key}_beta"] = sum(float(f["beta"]) for f in found) / len(found)
        features = [f["features"] for f in found if "features" in f]
        if features:
            kl = torch.cat(features)
            row[f"{key}_kl_per_feature"] = float(kl.mean())
            row[f"{key}_active_units"] = int((kl > ACTIVE).sum())
    return row | {"penalty_step": step} if row else {}
