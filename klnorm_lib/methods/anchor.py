r"""A penalty on the encoder's distance from the parameters that it had before training: what L2-SP and EWC share.

.. math:: \tfrac12 \sum_j w_j\,(\theta_j - \theta_{0,j})^2 + \tfrac{\beta}{2}\,\|\theta_{\text{head}}\|^2
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from klnorm_lib.methods.contract.undo import add_module
from klnorm_lib.methods.head import BeforeHead
from klnorm_lib.methods.penalty import PenaltyLayer
from klnorm_lib.methods.schedule import Schedule
from klnorm_lib.sites.walk import encoder_of, places

_LOST = (
    "this model was loaded with its trained weights, and the pretrained ones that {name} needs are not saved with "
    "it. It predicts as it is. To train on: build the pretrained model, apply the method to it, and then "
    "model.load_state_dict(loaded.state_dict())"
)


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters outside the encoder, and those of its pooler; not those of methods' own layers."""
    encoder = encoder_of(model)
    roots = [model] if encoder is model else [child for child in model.children() if child is not encoder]
    pooler = encoder._modules.get("pooler")
    found: dict[int, nn.Parameter] = {}
    for root in [pooler] if encoder is model else [*roots, pooler]:
        if root is None:
            continue
        replaced = [m.linear for m in root.modules() if isinstance(m, BeforeHead)]
        for place in [*places(root), *(place for linear in replaced for place in places(linear))]:
            for parameter in place.module.parameters(recurse=False):
                if parameter.requires_grad:
                    found.setdefault(id(parameter), parameter)
    return list(found.values())


class Anchor(PenaltyLayer):
    """Adds the penalty to the loss of every training forward; the start is kept in buffers that are not saved.

    ``start``: of the parameters' own dtype, so memory for weights grows by as much as the encoder's; ``weights``, one
    tensor of the same shape each, by as much again. None of it is in ``state_dict``. Arithmetic in at least float32,
    whatever autocast says. ``name`` says in errors whose it is; with no ``parameters`` it refuses to train.
    """

    def __init__(
        self,
        name: str,
        alpha: float,
        parameters: Sequence[nn.Parameter] = (),
        weights: Sequence[Tensor] | None = None,
        beta: float = 0.0,
        head: Sequence[nn.Parameter] = (),
    ) -> None:
        super().__init__(Schedule("constant", 1.0), keep_step=False)
        self.name, self.alpha, self.beta = name, alpha, beta
        self._penalised, self._head = tuple(parameters), tuple(head)  # tuples, so that they are not registered twice
        self._weighted = weights is not None
        for index, parameter in enumerate(self._penalised):
            self.register_buffer(f"start_{index}", parameter.detach().clone(), persistent=False)
            if weights is not None:
                weight = weights[index].to(device=parameter.device, dtype=torch.float32, copy=True)
                self.register_buffer(f"weight_{index}", weight, persistent=False)

    def enter(self, samples: int, grad_expected: bool, positions: Callable[[int], Tensor | None]) -> None:
        """Open the layer for one forward of the model; in training the penalty is added at once."""
        super().enter(samples, grad_expected, positions)
        if not self.training:
            return
        if grad_expected:
            self._check()
        if self._penalised:
            self.penalise(self.penalty())

    def kept_parameters(self) -> Iterator[tuple[nn.Parameter, Tensor | None]]:
        """The penalised parameters, those of the encoder with their start."""
        yield from ((p, getattr(self, f"start_{index}")) for index, p in enumerate(self._penalised))
        yield from ((p, None) for p in self._head)

    def penalty(self) -> Tensor:
        """The penalty, () in float32 or better, at the parameters as they are."""
        device = self._penalised[0].device
        with torch.autocast(device.type, enabled=False):
            # alpha/2 sum_j w_j (theta_j - theta_0j)^2, tensor by tensor
            terms = [self.alpha / 2 * self._distance(index).to(device) for index in range(len(self._penalised))]
            if self.beta:  # beta/2 ||theta_head||^2
                terms += [self.beta / 2 * _wide(p).square().sum().to(device) for p in self._head]
            return torch.stack(terms).sum()

    def __setstate__(self, state: dict) -> None:
        if "_pulled" in state:  # of a model that was pickled under the old name
            state = {**state, "_penalised": state["_pulled"]}
        super().__setstate__(state)

    def _distance(self, index: int) -> Tensor:
        change = _wide(self._penalised[index]) - _wide(getattr(self, f"start_{index}"))
        if self._weighted:
            return (getattr(self, f"weight_{index}") * change.square()).sum()
        return change.square().sum()

    def _check(self) -> None:
        if not self._penalised:
            raise RuntimeError(_LOST.format(name=self.name))
        if not any(parameter.requires_grad for parameter in self._penalised):
            raise RuntimeError(
                f"all parameters that {self.name} penalises were frozen after it was applied, so it would do nothing; "
                "leave the method out, or train the encoder"
            )


def attach(model: nn.Module, name: str, anchor: Anchor) -> None:
    """Put ``anchor`` into ``model``, on its mode."""
    add_module(model, name, anchor.train(model.training))


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype.itemsize >= 4 else tensor.float()
