"""What a method adds, by formula: parameters, beside those of an encoder."""

from __future__ import annotations

from klnorm_lib.methods.contract.method import Method


def added_parameters(method: Method | None, width: int, outputs: int = 2) -> int:
    """Trainable parameters that ``method`` adds before a head of ``width`` features and ``outputs`` logits.

    The formula is that of the method's own ``added_parameters``; no method (None) adds 0. Raises ``ValueError`` for
    KL-Norm inside the encoder, which depends on how many normalisations that has, and ``TypeError`` for a method
    without a formula.
    """
    return 0 if method is None else method.added_parameters(width, outputs)


def encoder_parameters(width: int, layers: int) -> int:
    r"""Weights in the matrices of a transformer's ``layers``, :math:`12 L d^2`: attention :math:`4d^2`, network
    :math:`8d^2` with its usual inner width 4d. Embeddings, biases and normalisations are left out.
    """
    return 12 * layers * width * width
