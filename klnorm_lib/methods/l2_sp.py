r"""L2-SP: weight decay towards the pretrained weights in place of zero.

Li, Grandvalet and Davoine 2018, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks" (arXiv
1802.01483). SP is the starting point, :math:`\theta_0`. What was pretrained is shrunk towards it, what was not is
shrunk towards zero:

.. math:: \frac{\alpha}{2}\,\|\theta_{\text{enc}} - \theta_0\|^2 + \frac{\beta}{2}\,\|\theta_{\text{head}}\|^2

The gradient is :math:`\alpha(\theta - \theta_0)`. EWC weighs every parameter's square by its Fisher information; with a
constant one it is this method, which is therefore its control.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from klnorm_lib.methods import anchor
from klnorm_lib.methods.anchor import Anchor, head_parameters
from klnorm_lib.methods.arguments import argument
from klnorm_lib.methods.contract.method import TRAINING_ONLY, Method
from klnorm_lib.methods.penalty import check_strengths
from klnorm_lib.sites.parameters import pretrained_parameters


@dataclass(frozen=True)
class L2SP(Method):
    """Add alpha/2 times the squared distance of the encoder from its weights at ``apply`` to the training loss.

    The head has nothing to go back to; its penalty does not reach layers that later methods of the same ``apply`` put
    there. Both penalties are sums over parameters, not means, so their scale depends on the size of the encoder. A
    parameter that is frozen when the method is applied is not penalised if it trains later.

    The penalty joins the loss, so under Adam its gradient is rescaled with the rest, unlike AdamW's decoupled decay.
    The pretrained weights are kept as buffers, in the parameters' dtype, and are not saved: a model that ``load`` gives
    predicts, and raises ``RuntimeError`` in training, saying how to go on.

    Raises ``ValueError`` for an alpha or beta that is negative or not finite, ``TypeError`` if it is not a number;
    ``attach`` raises ``ValueError`` when nothing of the encoder trains, as under LoRA.
    """

    alpha: float = argument(
        0.01,
        "weight of the penalty on the encoder's distance from its start, at least 0; embeddings, biases and "
        "normalisations are included",
    )
    beta: float = argument(
        0.0,
        "weight of the penalty on the head's distance from zero, at least 0; the pooler counts as head",
    )

    name = "l2_sp"
    properties = TRAINING_ONLY

    def __post_init__(self) -> None:
        check_strengths(self, "alpha", "beta")

    def added_parameters(self, width: int, outputs: int = 2) -> int:
        """None: 0."""
        return 0

    def attach(self, model: nn.Module) -> list[str]:
        """Keep the encoder's weights and penalise the distance from them in training."""
        found = pretrained_parameters(model, "frozen weights are the pretrained ones already, leave L2SP out")
        head = head_parameters(model) if self.beta else []
        parameters = [each.parameter for each in found]
        anchor.attach(model, self.name, Anchor("L2SP", self.alpha, parameters, beta=self.beta, head=head))
        lines = [f"alpha = {self.alpha:g} on {_count(parameters)} parameters of the encoder"]
        return lines + ([f"beta = {self.beta:g} on {_count(head)} parameters of the head"] if head else [])

    def attach_saved(self, model: nn.Module) -> list[str]:
        """Mark ``model`` as one whose initial weights are unknown."""
        anchor.attach(model, self.name, Anchor("L2SP", self.alpha))
        return ["the pretrained weights are not in the saved model: it predicts, and raises in training"]


def _count(parameters: list[nn.Parameter]) -> str:
    return f"{sum(parameter.numel() for parameter in parameters):,}"
