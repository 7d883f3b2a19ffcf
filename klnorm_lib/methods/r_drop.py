r"""R-Drop: predictions under two dropout masks for the same input should agree.

Liang, Wu, Li, Wang, Meng, Qin, Chen, Zhang and Liu 2021, "R-Drop: Regularized Dropout for Neural Networks" (arXiv
2106.14448). Every training batch passes through the model twice. With p and q the two predicted distributions of an
example and L1, L2 the two task losses, training minimises

.. math:: \frac{L_1 + L_2}{2} + \alpha\,J, \qquad
   J = \tfrac12\big(\mathrm{KL}(p\,\|\,q) + \mathrm{KL}(q\,\|\,p)\big) = \tfrac12\sum_k (p_k - q_k)\ln\frac{p_k}{q_k},

J averaged over the batch. The paper adds the two losses, so that its alpha is twice this one. In regression J is the
squared difference of the two outputs, as in the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from klnorm_lib.methods.arguments import argument
from klnorm_lib.methods.contract.method import TRAINING_ONLY, Method
from klnorm_lib.methods.contract.undo import add_module
from klnorm_lib.methods.penalty import PenaltyLayer, check_strengths
from klnorm_lib.methods.schedule import Schedule
from klnorm_lib.sites import encoder_of

REGRESSION, MULTI_LABEL = "regression", "multi_label_classification"


@dataclass(frozen=True)
class RDrop(Method):
    """Run every training batch twice and penalise ``alpha`` times the divergence of the two predictions.

    Training needs labels in the model's call. The outputs are those of the first pass, with the loss of
    both. Penalties of other methods are averaged over the passes. In evaluation there is one pass and no penalty. With
    all dropout at rate 0, and nothing else drawn, both passes agree and nothing but the time is added.

    Raises ``ValueError`` for an alpha that is negative or not finite, ``TypeError`` if it is not a number; ``attach``
    raises ``ValueError`` for a model without a head. In training a model whose predictions are not of shape
    (batch, outputs) raises ``ValueError``, and a loss computed from the logits without labels ``RuntimeError``.
    """

    alpha: float = argument(
        1.0,
        "weight of the divergence (nats, mean over the batch; in regression the squared difference), at least 0",
    )

    name = "r_drop"
    properties = TRAINING_ONLY

    def __post_init__(self) -> None:
        check_strengths(self, "alpha")

    def added_parameters(self, width: int, outputs: int = 2) -> int:
        """None: 0."""
        return 0

    def attach(self, model: nn.Module) -> list[str]:
        """Have ``model`` run twice in training."""
        if encoder_of(model) is model:
            raise ValueError(
                f"{type(model).__name__} is an encoder without a head, so it predicts nothing that could be compared; "
                "load it with AutoModelForSequenceClassification or AutoModelForAudioClassification"
            )
        add_module(model, self.name, RDropLayer(self.alpha, model.config))
        return [f"two passes in training, alpha = {self.alpha:g}"]


class RDropLayer(PenaltyLayer):
    """Weighs the divergence of two passes; has neither parameters nor anything to be saved."""

    second_pass = True

    def __init__(self, alpha: float, config) -> None:
        super().__init__(Schedule("constant", alpha), keep_step=False)
        self.config = config

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """alpha times the mean over the batch of :func:`divergence`, (); logits (batch, outputs)."""
        kind = getattr(self.config, "problem_type", None)
        if kind is None and first.shape[-1] == 1:
            kind = REGRESSION
        # alpha J, mean over the batch
        return self.schedule.beta * divergence(first, second, kind).mean()


def divergence(first: Tensor, second: Tensor, kind: str | None = None) -> Tensor:
    r"""How far two predictions of the same examples are apart: J of the module's docstring.

    With z the logits and p, q the distributions, :math:`\tfrac12\sum_k (p_k - q_k)(\ln p_k - \ln q_k)`; for ``kind``
    ``"multi_label_classification"`` the same for every label's Bernoulli distribution, summed over labels, where the
    difference of the logs is that of the logits; for ``"regression"`` the mean over outputs of
    :math:`(z_1 - z_2)^2`. Shapes: two of (batch, outputs) -> (batch,), in nats. Arithmetic in at least float32.
    """
    first, second = (z if z.dtype.itemsize >= 4 else z.float() for z in (first, second))
    if kind == REGRESSION:
        return (first - second).square().mean(-1)
    if kind == MULTI_LABEL:
        return 0.5 * ((first.sigmoid() - second.sigmoid()) * (first - second)).sum(-1)
    first, second = first.log_softmax(-1), second.log_softmax(-1)
    return 0.5 * ((first.exp() - second.exp()) * (first - second)).sum(-1)
