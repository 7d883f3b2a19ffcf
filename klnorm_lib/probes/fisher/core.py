"""The diagonal empirical Fisher information of a model's parameters."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from klnorm_lib.probes.fisher import losses
from klnorm_lib.probes.fisher.batches import rows_of, to_device
from klnorm_lib.probes.fisher.func import Func
from klnorm_lib.probes.fisher.hooks import Hooks
from klnorm_lib.probes.fisher.labels import Labels
from klnorm_lib.probes.fisher.loop import Loop
from klnorm_lib.probes.fisher.tensors import FisherTensors
from klnorm_lib.sites.measuring import without_training
from klnorm_lib.sites.walk import bare_parameters, opened

METHODS = ("hooks", "func", "loop")


def diagonal_fisher(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    loss: losses.Loss | None = None,
    method: str = "hooks",
    progress: bool = True,
) -> dict[str, Tensor]:
    r"""The mean over sequences of the squared gradient of each sequence's loss, by parameter.

    .. math:: F_j = \frac{1}{n} \sum_{i=1}^{n} \left( \frac{\partial \ell_i}{\partial \theta_j} \right)^2

    where :math:`\ell_i` is the loss of sequence i alone, in evaluation mode. Returns parameter name -> float32 tensor
    on the CPU, of the parameter's shape, for the names of ``model.named_parameters()`` that require a gradient: frozen
    parameters are left out, a parameter that modules share is there once, and one without elements is there without
    any. The model is left as it was. Of a model in peft, ``DataParallel``, ``DistributedDataParallel`` or
    ``torch.compile`` the model inside is computed, not compiled, and named without their prefixes; nothing is added up
    over processes.

    ``batches``: dicts of tensors with one row a sequence; they are moved to the model's device. ``loss``: a function
    (model, batch) -> (B,), each value dependent on its own sequence only. None for transformers' masked, causal and
    sequence-to-sequence language models (mean cross-entropy over the sequence's labelled tokens, -100 where there is
    no label) and classifiers of sequences, sound or images (cross-entropy, -100 for a row without a class; squared
    error where transformers has it, then every number is a score); a sequence without any label has no loss and is
    not counted, which a warning says. ``method``: "hooks" takes one backward pass a batch and keeps one sequence's
    gradient of one parameter at a time; what it cannot separate by sequence goes to torch.func or a loop, and a warning
    names it. "func" maps torch.func.grad over the sequences. "loop" is the reference: a backward pass for every
    sequence. ``progress``: a bar, in a terminal.

    A model in float16 or bfloat16 is computed in its type and added up in float32; float16 loses small gradients, which
    a warning says.

    Raises ``ValueError`` for a loss that is not finite (saying for which sequence), that is not one number a sequence,
    or that depends on the rest of the batch; for a label out of range (saying which); without labelled sequences; and
    for a model that has no loss of its own.
    Source: Kirkpatrick et al. (2017); per-sequence gradients from activations: Goodfellow (2015).
    """
    with FisherSum(model, loss, method) as fisher:
        for batch in _shown(batches, progress):
            fisher.add(batch)
        return FisherTensors(fisher.mean(), fisher.model)


class FisherSum:
    """Adds up squared per-sequence gradients batch by batch; a context manager, so that the model is left as it was.

    ``add(batch)``, then ``sums`` (parameter name -> tensor on the model's device, float32, or float64 for a model in
    float64) and ``sequences``, their number; ``mean()`` is the Fisher information. ``clear()`` begins anew, with what
    was found out about the model. See :func:`diagonal_fisher` for the arguments.
    """

    def __init__(self, model: nn.Module, loss: losses.Loss | None = None, method: str = "hooks") -> None:
        if method not in METHODS:
            raise ValueError(f"method={method!r} is not one of: {', '.join(METHODS)}")
        self.model, self.method, self.sequences, self.unlabelled, self._seen = opened(model), method, 0, 0, 0
        self._kind = losses.kind_of(model) if loss is None else None
        self._loss = loss or losses.loss_for(self._kind)
        self.parameters = {n: p for n, p in bare_parameters(model).items() if p.requires_grad}
        self._full = {n: p for n, p in self.parameters.items() if p.numel()}
        self._labels = Labels(self._kind, self.model) if self._kind is not None else None
        if any(p.dtype == torch.float16 for p in self._full.values()):
            warnings.warn(
                "the model is in float16, where gradients below 6e-8 are lost: weights that matter little come out too "
                "small, or zero; convert it with .float() or .bfloat16()",
                stacklevel=3,
            )
        if not self._full:
            raise ValueError(f"no parameter of {type(model).__name__} requires a gradient, so there is nothing to do")
        self.device = next(iter(self.parameters.values())).device
        self._engine, self._left = None, None

    @property
    def sums(self) -> dict[str, Tensor]:
        """The sums so far."""
        found = self._engine.sums
        return {n: found[n] if n in found else torch.zeros_like(p) for n, p in self.parameters.items()}

    def __enter__(self) -> FisherSum:
        self._left = evaluation_mode(self.model)
        self._left.__enter__()
        with torch.inference_mode(False):  # sums are added to
            if self.method == "hooks":
                self._engine = Hooks(self.model, self._loss, self._full, self._kind)
            else:
                self._engine = (Func if self.method == "func" else Loop)(self.model, self._loss, self._full)
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._engine.close()
        finally:
            self._left.__exit__(*error)

    def add(self, batch: Mapping[str, Any]) -> Tensor:
        """Add the sequences of one batch; returns the losses of those that were counted, (B,).

        Raises ``ValueError`` when a loss is not finite or a label out of range, saying which sequence it is.
        """
        if self._engine is None:
            raise RuntimeError("use it as a context: with FisherSum(model) as fisher: ...")
        rows, batch = rows_of(batch), to_device(batch, self.device)
        first, self._seen = self._seen, self._seen + rows
        batch, place = self._labels.given(batch, first) if self._labels else (batch, torch.arange(rows))
        self.unlabelled += rows - len(place)
        rows = len(place)
        if not rows:
            return torch.zeros(0)
        with torch.inference_mode(False), torch.enable_grad():
            values = self._engine.add(batch, rows)
        bad = ~values.isfinite().cpu()
        if bad.any():
            which = ", ".join(str(first + int(i)) for i in place[bad][:10])
            raise ValueError(f"the loss is not finite for sequence {which} (counted from 0, over all batches)")
        self.sequences += rows
        return values

    def prepare(self, batch: Mapping[str, Any]) -> None:
        """Find out on a batch what ``add`` will find out on its first one; adds nothing."""
        rows, batch = rows_of(batch), to_device(batch, self.device)
        batch, place = self._labels.given(batch) if self._labels else (batch, torch.arange(rows))
        if self.method == "hooks" and len(place):
            with torch.inference_mode(False), torch.enable_grad():
                self._engine.prepare(batch, len(place))

    def clear(self) -> None:
        """Begin anew with no sequence, keeping what was found out about the model."""
        self.sequences, self.unlabelled, self._seen = 0, 0, 0
        self._engine.clear()

    def mean(self) -> dict[str, Tensor]:
        """The Fisher information, float32 on the CPU."""
        if not self.sequences:
            raise ValueError("no sequence with a label was given, so there is no Fisher information to report")
        if self.unlabelled:
            what = "label" if self._kind == "classification" else "labelled token"
            warnings.warn(f"{self.unlabelled} sequences have no {what}, so no loss; they are not counted", stacklevel=3)
        found = {n: (total / self.sequences).clamp_(min=0).float().cpu() for n, total in self.sums.items()}
        bad = [name for name, value in found.items() if not value.isfinite().all()]
        if bad:
            raise ValueError(f"squared gradients are not finite in: {', '.join(bad)}")
        return found


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, whatever the mode of each module is; on leaving, flags and gradients are as they were.

    Meanwhile nothing runs compiled, since compiled code passes hooks by, gradients of embeddings are dense, and nothing
    that depends on weights is kept from one forward to the next, as LeViT keeps its attention biases.
    """
    keeping = [m for m in model.modules() if isinstance(getattr(m, "attention_bias_cache", None), dict)]
    handles = [m.register_forward_pre_hook(lambda m, _: m.attention_bias_cache.clear()) for m in keeping]
    sparse = [m for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) and m.sparse]
    flags = [(module, module.training) for module in model.modules()]
    kept = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    try:
        for module, _ in flags:
            module.training = False  # not eval(): some modules override it to do more
        for module in sparse:
            module.sparse = False
        for p, _, _ in kept:
            p.grad = None
        with without_training(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, handle in zip(keeping, handles, strict=True):
            handle.remove()
            module.attention_bias_cache.clear()
        for module in sparse:
            module.sparse = True
        for module, flag in flags:
            module.training = flag
        for p, wanted, grad in kept:
            p.requires_grad_(wanted)
            p.grad = grad


def _shown(batches: Iterable[Mapping[str, Any]], progress: bool) -> Iterator[Mapping[str, Any]]:
    """The batches, with a bar on the error stream while they go by."""
    if not progress:
        yield from batches
        return
    from rich.console import Console
    from rich.progress import track

    total = len(batches) if hasattr(batches, "__len__") else None
    console = Console(stderr=True, force_jupyter=False)
    yield from track(batches, "Fisher", total=total, console=console, transient=True, disable=not console.is_terminal)
