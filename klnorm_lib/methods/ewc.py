r"""EWC: a penalty on the distance from the pretrained weights, larger for weights that pretraining depends on.

Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks" (arXiv 1612.00796), with the
pretraining as the first task. With F the diagonal Fisher information of the pretraining loss at :math:`\theta_0`,

.. math:: \frac{\lambda}{2}\sum_j \bar F_j\,(\theta_j - \theta_{0,j})^2, \qquad
   \bar F_j = \frac{F_j}{\tfrac1n\sum_{k=1}^n F_k}.

The paper weighs with F as it is. Divided by its mean over the n penalised parameters, a constant F is L2-SP of
:math:`\alpha = \lambda`, so that both have one scale and differ in nothing but how the penalty is distributed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike

import torch
from torch import Tensor, nn

from klnorm_lib.methods import anchor
from klnorm_lib.methods.anchor import Anchor
from klnorm_lib.methods.arguments import argument
from klnorm_lib.methods.contract.method import TRAINING_ONLY, Method
from klnorm_lib.methods.origin import check_tensors, check_weights, named_origin
from klnorm_lib.methods.penalty import check_strengths
from klnorm_lib.sites.parameters import Named, pretrained_parameters


@dataclass(frozen=True)
class EWC(Method):
    """Add strength/2 times the Fisher-weighted squared distance of the encoder from its weights at ``apply``.

    Penalised are the parameters that ``L2SP`` penalises: the trainable ones of the encoder, its pooler left out, which
    the loss of a language model does not depend on. Head and pooler are not penalised. What else the Fisher names is
    not used.

    The start (in the parameters' dtype) and the normalised Fisher (in float32) are kept as buffers, twice the memory of
    the encoder's weights, and are not saved: a model that ``load`` gives predicts, and raises ``RuntimeError`` in
    training, saying how to go on.

    Raises ``ValueError`` for a strength that is negative or not finite, ``TypeError`` for one that is not a number, or
    a fisher that is no name or path. Applying it raises ``FileNotFoundError`` when there is no such Fisher, and
    ``ValueError`` when that of the model's own encoder was made from other weights, when it lacks a parameter or has
    it in another shape, when it is zero everywhere, and when nothing of the encoder trains, as under LoRA.
    """

    strength: float = argument(0.01, "lambda, the weight of the penalty on the scale of ``L2SP(alpha)``, at least 0")
    fisher: str | None = argument(
        None,
        "name of an encoder whose full Fisher tensors ship with the library, or a safetensors file of "
        "``klnorm fisher``; None: those of the model's own encoder",
    )

    name = "ewc"
    properties = TRAINING_ONLY

    def __post_init__(self) -> None:
        check_strengths(self, "strength")
        if self.fisher is not None:
            if not isinstance(self.fisher, (str, PathLike)):
                raise TypeError(
                    f"fisher must be a name or a path, got {type(self.fisher).__name__}; write tensors down with "
                    "klnorm_lib.probes.fisher.table.save_fisher and name the file"
                )
            object.__setattr__(self, "fisher", str(self.fisher))

    def added_parameters(self, width: int, outputs: int = 2) -> int:
        """None: 0."""
        return 0

    def resolved(self, model: nn.Module) -> Method:
        """The method with the name of the model's own encoder where no Fisher is named."""
        if self.fisher is not None:
            return self
        return dataclasses.replace(self, fisher=named_origin(model, "apply EWC(fisher=FILE)"))

    def attach(self, model: nn.Module) -> list[str]:
        """Keep the encoder's weights and penalise, in training, each one's distance by its Fisher information."""
        from klnorm_lib.probes.fisher.table import load_fisher

        found = pretrained_parameters(model, "frozen weights are the pretrained ones already, leave EWC out")
        source = self.resolved(model).fisher
        fisher, provenance = load_fisher(source)
        check_weights(model, source, provenance)
        weights = normalised(found, fisher, model.base_model_prefix, source)
        parameters = [each.parameter for each in found]
        anchor.attach(model, self.name, Anchor("EWC", self.strength, parameters, weights))
        count = sum(parameter.numel() for parameter in parameters)
        seen = f" ({provenance['sequences']:,} sequences)" if "sequences" in provenance else ""
        return [f"strength = {self.strength:g} on {count:,} parameters of the encoder, by the Fisher of {source}{seen}"]

    def attach_saved(self, model: nn.Module) -> list[str]:
        """Mark ``model`` as one whose initial weights are unknown; no Fisher is looked up."""
        anchor.attach(model, self.name, Anchor("EWC", self.strength))
        return ["the pretrained weights are not in the saved model: it predicts, and raises in training"]


def normalised(
    found: Sequence[Named], fisher: Mapping[str, Tensor], prefix: str, source: object = "the Fisher given"
) -> list[Tensor]:
    r"""The Fisher of each of ``found``, divided by the mean over all their elements: :math:`\bar F`, float32.

    ``fisher``: under the encoder's own names, or with ``prefix.`` before them. Raises ``ValueError`` naming ``source``
    and the parameters that it lacks or has in another shape, or when the mean is zero or not finite.
    """
    own = {**{name.removeprefix(f"{prefix}."): tensor for name, tensor in fisher.items()}, **fisher}  # own names first
    check_tensors(found, own, source, "Freeze what is not to be penalised (requires_grad_(False)) before apply()")
    tensors = [own[each.name] for each in found]
    mean = sum(t.double().sum().item() for t in tensors) / sum(t.numel() for t in tensors)
    if not 0.0 < mean < float("inf"):
        raise ValueError(f"the Fisher information of {source} has the mean {mean}, by which nothing can be weighed")
    return [(t.double() / mean).to(torch.float32) for t in tensors]  # F_j / mean of F
