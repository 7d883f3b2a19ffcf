r"""Mixout: in training, all that leaves a neuron is at random its fine-tuned or its pretrained weights.

Lee, Cho and Kang 2020, "Mixout: Effective Regularization to Finetune Large-scale Pretrained Language Models"
(arXiv 1909.11299). Let w be a weight, u its pretrained value and :math:`m \sim \mathrm{Bernoulli}(1-p)`, one m for all
weights that read the same input feature of a layer; then

.. math:: \tilde w = \frac{m\,w + (1-m)\,u - p\,u}{1-p} = u + \frac{m}{1-p}\,(w - u)

whose mean is w, and whose derivative in w is :math:`m/(1-p)`, of mean 1. It is dropout of the inputs to what
fine-tuning has changed. In evaluation :math:`\tilde w = w`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor, nn

from klnorm_lib.methods.arguments import argument
from klnorm_lib.methods.contract.method import Method, drawing
from klnorm_lib.methods.contract.model_class import rebuild
from klnorm_lib.methods.contract.undo import replace_module
from klnorm_lib.sites.walk import encoder_of, places

DEFAULT_P = 0.7


@dataclass(frozen=True)
class Mixout(Method):
    """Mix the weights of the encoder's trainable linear layers with those that they had when it was applied.

    Taken are all linear layers of the encoder, a pooler included where the model counts it as part of the encoder. Left
    alone are the head, which has no pretrained value to go back to, and embeddings, biases and normalisations, which
    have no input neurons to draw. A fresh mask is drawn from torch's global generator for every layer and forward pass
    (a recomputed one is the same). The pretrained weights are kept as buffers, so memory for weights grows by theirs;
    the parameters keep their names, and a saved model still opens without this library.

    Raises ``ValueError`` unless 0 <= p < 1, ``TypeError`` if p is not a number; ``attach`` raises ``ValueError`` when
    the encoder has no linear layer, or none that trains, as under LoRA.
    """

    p: float = argument(
        DEFAULT_P,
        "probability that an input feature of a layer meets its pretrained weights, at least 0 and below 1",
    )

    name = "mixout"

    def __post_init__(self) -> None:
        if isinstance(self.p, bool) or not isinstance(self.p, Real):
            raise TypeError(f"p must be a number of at least 0 and below 1, got {self.p!r}")
        if not 0.0 <= self.p < 1.0:  # false for NaN as well
            raise ValueError(f"p must be at least 0 and below 1 (at 1 nothing would be trained), got {self.p}")
        object.__setattr__(self, "p", float(self.p))

    @property
    def properties(self) -> frozenset[str]:
        return drawing(self.p > 0)

    def added_parameters(self, width: int, outputs: int = 2) -> int:
        """None: 0."""
        return 0

    def attach(self, model: nn.Module) -> list[str]:
        """Put a mixing layer in place of every trainable linear layer of the encoder."""
        encoder = encoder_of(model)
        prefix = next(name for name, module in model.named_modules() if module is encoder)
        linear = [place for place in places(encoder, prefix) if isinstance(place.module, nn.Linear)]
        if not linear:
            raise ValueError(f"no linear layer found inside the encoder of {type(model).__name__}; nothing to mix")
        chosen = [place for place in linear if place.module.weight.requires_grad]
        if not chosen:
            raise ValueError(
                f"all {len(linear)} linear layers of the encoder are frozen, so their weights are the pretrained ones "
                "already and mixing changes nothing; use Mixout with full fine-tuning, not with LoRA"
            )
        made: dict[int, nn.Module] = {}  # a layer that is used in two places stays one layer
        for place in chosen:
            layer = made.setdefault(id(place.module), _mixing_copy(place.module, self.p))
            replace_module(model, place.path, layer)
        return [f"p = {self.p:g} in {place.path}" for place in chosen]


def mix(weight: Tensor, pretrained: Tensor, p: float) -> Tensor:
    r""":math:`u + m\,(w - u)/(1-p)`, one :math:`m \sim \mathrm{Bernoulli}(1-p)` a column; differentiable in w.

    Shapes: two of (outputs, inputs) -> (outputs, inputs). Arithmetic in at least float32. Draws from torch's global
    generator.
    """
    dtype = torch.promote_types(torch.float32, weight.dtype)
    kept = torch.rand(weight.shape[1], dtype=dtype, device=weight.device).ge_(p).div_(1.0 - p)
    # u + m (w - u) / (1 - p)
    return torch.lerp(pretrained.to(dtype), weight.to(dtype), kept).to(weight.dtype)


class Pretrained(nn.Module):
    """Holds the pretrained weight of one layer as a buffer, on the layer's device and in its dtype."""

    added_by_klnorm = True

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().clone())


@functools.cache
def _mixing(base: type[nn.Linear]) -> type[nn.Linear]:
    class MixingLinear(base):
        # An attribute, not forward: some attention code (WavLM's) takes the weight and does without the layer's call.
        @property
        def weight(self) -> Tensor:
            weight = self._parameters["weight"]
            if not self.training or self.mixout_p == 0.0:
                return weight
            return mix(weight, self.mixout.weight, self.mixout_p)

        def kept_parameters(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
            yield self._parameters["weight"], self.mixout.weight

        def __reduce_ex__(self, protocol):
            return rebuild, (base, _mixing), self.__dict__

    MixingLinear.__name__ = MixingLinear.__qualname__ = f"Mixing{base.__name__}"
    return MixingLinear


def _mixing_copy(linear: nn.Linear, p: float) -> nn.Linear:
    """A mixing layer with the very parameters, hooks and mode of ``linear``, which stays as it is."""
    copied = {key: type(value)(value) if isinstance(value, dict) else value for key, value in vars(linear).items()}
    layer = rebuild(type(linear), _mixing)
    layer.__dict__.update(copied)
    layer.mixout_p = p
    layer.mixout = Pretrained(linear.weight)
    return layer
