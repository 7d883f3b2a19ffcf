r"""Child-Tuning-D: only the weights that matter most to the task are trained, chosen once, before training.

Xu, Luo, Zhang, Tan, Chang, Huang and Huang 2021, "Raise a Child in Large Language Model: Towards Effective and
Generalizable Fine-tuning" (arXiv 2109.05687). With F the diagonal Fisher information of the task's loss at the
pretrained weights, on the training rows, and t such that a share ``keep`` of the weights has :math:`F_j \ge t`,

.. math:: g_j \leftarrow m_j\,g_j, \qquad m_j = \mathbf 1[F_j \ge t]

is done to every gradient. Nothing is rescaled: the paper divides by the share in its other variant only, F, whose mask
is drawn afresh in every step.

As in the authors' code the mask is over the weights of the encoder's layers taken together; embeddings, pooler and
head train in full. Three things differ. F is the mean of squared gradients of single examples, as the paper defines it,
in evaluation mode; the code squares the gradient of a batch, clipped tensor by tensor and with dropout on, which is
another quantity. Exactly the requested share is kept, ties included. And gradients are masked before they are clipped,
not after, so that the norm that is clipped is that of what is trained.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor, nn

from klnorm_lib.methods.arguments import argument
from klnorm_lib.methods.contract.method import TRAINING_ONLY, Method
from klnorm_lib.methods.contract.undo import add_module, undo_later
from klnorm_lib.methods.origin import check_tensors
from klnorm_lib.sites.parameters import Named, pretrained_parameters
from klnorm_lib.sites.walk import bare_parameters, encoder_of, unwrap

_LAYER = re.compile(r"(?:.+\.)?layers?\.\d+(?=\.)")
_OF_NO_USE = "Child-Tuning chooses among weights that train, leave it out"


@dataclass(frozen=True)
class ChildTuning(Method):
    """Train the share ``keep`` of the encoder's layers that has the highest Fisher information for the task.

    It must see training rows first: ``method = ChildTuning(keep=0.3).prepare(model, batches)``, where a batch is what
    the model is called with, labels included; then ``apply(model, method)``. A study does so by itself. The head is as
    it is then, as a rule a random one. Weights outside the mask get a gradient of exactly zero, whatever penalties
    other methods add, so that SGD and Adam leave them where they are; weight decay, AdamW's included, moves them all
    the same, as in the authors' code. Embeddings, pooler, head and layers of other methods train in full.

    The mask is a buffer, one byte a weight of the layers, and is not saved: a model that ``load`` gives predicts, and
    raises ``RuntimeError`` in training, telling how to go on.

    Raises ``ValueError`` unless 0 < keep <= 1, ``TypeError`` if it is not a number; ``prepare`` and ``attach`` raise
    ``ValueError`` when no weight of the layers trains, as under LoRA, and ``attach`` without ``prepare``.
    """

    keep: float = argument(
        0.3,
        "share of the weights of the layers, all layers together, that trains, above 0 and at most 1",
    )

    name: ClassVar[str] = "child_tuning"
    version: ClassVar[int] = 1
    properties: ClassVar[frozenset[str]] = TRAINING_ONLY
    kept: ClassVar[Mapping[str, Tensor] | None] = None

    def __post_init__(self) -> None:
        if isinstance(self.keep, bool) or not isinstance(self.keep, Real):
            raise TypeError(f"keep must be a number above 0 and at most 1, got {self.keep!r}")
        if not 0.0 < self.keep <= 1.0:  # false for NaN as well
            raise ValueError(f"keep must be above 0 (at 0 no layer would train) and at most 1, got {self.keep}")
        object.__setattr__(self, "keep", float(self.keep))

    def added_parameters(self, width: int, outputs: int = 2) -> int:
        """None: 0."""
        return 0

    def prepare(self, model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> ChildTuning:
        """The method with its mask, from the Fisher information of the model's loss on ``batches``."""
        from klnorm_lib.probes import diagonal_fisher

        found = in_layers(unwrap(model))
        names = {id(parameter): name for name, parameter in bare_parameters(model).items()}
        fisher = diagonal_fisher(model, batches, progress=False)
        prepared = dataclasses.replace(self)
        kept = highest([fisher[names[id(each.parameter)]] for each in found], self.keep)
        # No field: a record or checkpoint says how the mask was made, it does not contain it.
        object.__setattr__(prepared, "kept", {each.name: mask for each, mask in zip(found, kept, strict=True)})
        return prepared

    def attach(self, model: nn.Module) -> list[str]:
        """Mask the gradients of the encoder's layers."""
        if self.kept is None:
            raise ValueError(
                "ChildTuning has not seen the task yet: method = method.prepare(model, batches), where batches are "
                "training rows with labels, then apply it"
            )
        found = in_layers(model)
        advice = "Call prepare with the model that is to be trained, with the same parameters frozen"
        check_tensors(found, self.kept, "the mask of ChildTuning", advice, whole=True)
        masks = [self.kept[each.name] for each in found]
        layer = GradientMask([each.parameter for each in found], masks)
        add_module(model, self.name, layer)
        # On the encoder, since peft calls the model's forward past its hooks.
        undo_later(model, encoder_of(model).register_forward_pre_hook(layer.arm).remove)
        undo_later(model, layer.disarm)
        layer.arm()
        return _lines(found, masks)

    def attach_saved(self, model: nn.Module) -> list[str]:
        """Mark ``model`` as one whose mask is unknown."""
        layer = GradientMask([], [])
        add_module(model, self.name, layer)
        undo_later(model, encoder_of(model).register_forward_pre_hook(layer.arm).remove)
        return ["the mask is not in the saved model: it predicts, and raises in training"]


def in_layers(model: nn.Module) -> list[Named]:
    """The trainable parameters of the encoder's layers, those named ``layer.0.`` or ``layers.0.`` and so on.

    Raises ``ValueError`` when there are none.
    """
    found = [each for each in pretrained_parameters(model, _OF_NO_USE) if _LAYER.match(each.name)]
    if not found:
        raise ValueError(
            f"no parameter in the layers of the encoder of {type(model).__name__} trains (looked for names such as "
            f"layer.0.); {_OF_NO_USE}"
        )
    return found


def highest(scores: Sequence[Tensor], share: float) -> list[Tensor]:
    """Masks, bool and shaped as ``scores``, of the ``share`` of all their elements together that is highest.

    The number kept is ``share`` times the number of elements, rounded, and at least 1.
    """
    flat = torch.cat([score.flatten() for score in scores])
    kept = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    kept[flat.topk(max(1, round(share * len(flat))), sorted=False).indices] = True
    parts = kept.split([score.numel() for score in scores])
    return [part.reshape(score.shape) for part, score in zip(parts, scores, strict=True)]


class GradientMask(nn.Module):
    """Zeroes gradients where ``kept`` is false, by hooks on the parameters, before anything is accumulated or clipped.

    A copied or unpickled parameter has lost its hooks, so :meth:`arm` is called before every forward of the encoder.
    """

    added_by_klnorm = True

    def __init__(self, parameters: Sequence[nn.Parameter], kept: Sequence[Tensor]) -> None:
        super().__init__()
        self._masked = tuple(parameters)  # a tuple, so that they are not registered twice
        self._hooks: list = []
        for index, (parameter, mask) in enumerate(zip(parameters, kept, strict=True)):
            self.register_buffer(f"frozen_{index}", ~mask.to(parameter.device), persistent=False)

    def kept_parameters(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """The masked parameters and where they do not train."""
        yield from ((p, getattr(self, f"frozen_{index}")) for index, p in enumerate(self._masked))

    def arm(self, module: nn.Module | None = None, given: tuple = ()) -> None:
        """Set the hooks where there are none; raise ``RuntimeError`` in training when the mask is unknown."""
        if not self._masked and self.training and torch.is_grad_enabled():
            raise RuntimeError(
                "this model was loaded with its trained weights, and the mask of ChildTuning is not saved with it. It "
                "predicts as it is. To train on: build the pretrained model, prepare the method and apply it, and then "
                "model.load_state_dict(loaded.state_dict())"
            )
        if not self._hooks:
            self._hooks = [
                parameter.register_hook(functools.partial(self._mask, index))
                for index, parameter in enumerate(self._masked)
                if parameter.requires_grad
            ]

    def disarm(self) -> None:
        """Take the hooks off again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _mask(self, index: int, gradient: Tensor) -> Tensor:
        # g_j <- m_j g_j
        return gradient.masked_fill(getattr(self, f"frozen_{index}"), 0.0)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_hooks": []}


def _lines(found: Sequence[Named], masks: Sequence[Tensor]) -> list[str]:
    counts: dict[str, list[int]] = {}
    for each, mask in zip(found, masks, strict=True):
        layer = counts.setdefault(_LAYER.match(each.name).group(), [0, 0])
        layer[0] += int(mask.sum())
        layer[1] += mask.numel()
    return [f"{kept / total:.1%} of {total:,} parameters train in {layer}" for layer, (kept, total) in counts.items()]
