"""One new layer directly before the last Linear of the head: the place shared by KL-Norm, VIB and their controls."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from klnorm_lib.methods.contract.undo import replace_module
from klnorm_lib.methods.penalty import PenaltyLayer
from klnorm_lib.methods.precision import of_trained
from klnorm_lib.sites import classifier_path


class BeforeHead(nn.Module):
    """``linear(layer(x))``: takes the place of the head's last Linear, after the head's own dropout.

    Shapes: (..., hidden_size) -> (..., num_labels).
    """

    added_by_klnorm = True
    contains_head = True  # which nothing may pass by

    def __init__(self, layer: nn.Module, linear: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        scores = self.linear(self.layer(x))
        if isinstance(self.layer, PenaltyLayer):
            self.layer.scored(scores)
        return scores

    def __getattr__(self, name: str):
        if name in ("weight", "bias"):
            raise AttributeError(
                f"the {name} of the model's head was read, past the layer before it, which would be lost: call the "
                "head, or the model, and use what it gives out. Code that computes logits or a loss from that "
                "weight itself (trl's SFTTrainer does) cannot train this model"
            )
        return super().__getattr__(name)


def insert_before_head(
    model: nn.Module, make: Callable[[int], nn.Module], replace_linear: Callable[[nn.Linear], nn.Linear] | None = None
) -> str:
    """Insert ``make(in_features)`` before the head's last Linear, in place; returns the Linear's dotted path.

    Raises ``ValueError`` when the model has no such Linear or another method is there already.
    """
    taken = [name for name, module in model.named_modules() if isinstance(module, BeforeHead)]
    if taken:
        raise ValueError(f"another method is already applied before {taken[0]}; give apply() one head method only")
    path = classifier_path(model)
    linear = model.get_submodule(path)
    _refuse_tied(model, path, linear)
    layer = make(linear.in_features).to(device=linear.weight.device, dtype=of_trained(linear.weight.dtype))
    layer.train(linear.training)
    if isinstance(layer, PenaltyLayer):
        layer.before_head = True
    replace_module(model, path, BeforeHead(layer, replace_linear(linear) if replace_linear else linear))
    return path


def _refuse_tied(model: nn.Module, path: str, linear: nn.Linear) -> None:
    # transformers finds tied weights by name when it saves and opens a model; in the new layer they have another one.
    own = {id(parameter) for parameter in linear.parameters()}
    everywhere = model.named_parameters(remove_duplicate=False)
    tied = [name for name, p in everywhere if id(p) in own and not name.startswith(f"{path}.")]
    if tied:
        raise ValueError(
            f"{path}, before which the layer would come, is tied to {', '.join(tied)}, and could not be saved; take "
            "placement='internal' where the method has it, a model with a classifier, or untie the weights "
            "(tie_word_embeddings=False in the config) before apply"
        )
