"""The Fisher information by other libraries, each helped as far as a user of it could help it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib import metadata, util

import torch
from torch import Tensor, nn

Way = Callable[[], dict[str, Tensor]]


def versions() -> dict[str, str]:
    """Versions of the other libraries, where they are installed."""
    found = {}
    for name in ("opacus", "nngeometry"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "from source" if util.find_spec(name) else "not installed"
    return found


def helped(model: nn.Module, batch: dict[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor], dict[int, str]]:
    """A copy of the model, its batch, and the names of its parameters by id.

    Positions get a batch axis, without which the others go wrong, and decoder inputs are made from the labels. A
    parameter that is registered again where it is not used (BERT's decoder bias) is there once. Padding rows are
    trained, which changes nothing for sequences without padding.
    """
    model, batch = copy.deepcopy(model), dict(batch)
    names = {id(p): n for n, p in model.named_parameters()}
    if model.config.is_encoder_decoder:
        batch["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    else:
        rows, tokens = batch["input_ids"].shape
        batch["position_ids"] = torch.arange(tokens).repeat(rows, 1)
    if hasattr(getattr(model, "cls", None), "predictions"):
        del model.cls.predictions.bias
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.padding_idx = None
    return model, batch, names


def opacus(model: nn.Module, loss: Callable, batch: dict[str, Tensor]) -> Way:
    """Gradients of all sequences (``grad_sample``), squared and averaged; needs training mode, dropout at 0."""
    from opacus.grad_sample import GradSampleModule

    model, batch, names = helped(model, batch)
    wrapped = GradSampleModule(model.train(), strict=False, loss_reduction="sum")

    def way() -> dict[str, Tensor]:
        loss(wrapped, batch).sum().backward()
        found = {}
        for p in model.parameters():
            each = p.grad_sample[0] if isinstance(p.grad_sample, list) else p.grad_sample
            found[names[id(p)]] = each.square().mean(0)
            p.grad_sample = p.grad = None
        return found

    return way


def nngeometry(model: nn.Module, loss: Callable, batch: dict[str, Tensor]) -> Way:
    """The diagonal of the covariance of the gradients of all sequences' losses."""
    from nngeometry.backend.torch_hooks.torch_hooks import TorchHooksJacobianBackend
    from nngeometry.layercollection import LayerCollection
    from torch.utils.data import DataLoader, TensorDataset

    model, batch, names = helped(model, batch)
    modules, layers = dict(model.named_modules()), LayerCollection.from_model(model, ignore_unsupported_layers=True)
    data = DataLoader(TensorDataset(*batch.values()), batch_size=len(batch["input_ids"]))
    jacobian = TorchHooksJacobianBackend(
        model=model, function=lambda *given: loss(model, dict(zip(batch, given, strict=True)))[:, None]
    )

    def way() -> dict[str, Tensor]:
        flat, found = jacobian.get_covariance_diag(data, layers), {}
        for name in layers.layers:
            begin = layers.p_pos[name]
            for p in (modules[name].weight, getattr(modules[name], "bias", None)):
                if p is not None:
                    # What is tied is there twice: the sum of the squares is not the square of the sum.
                    part = flat[begin : begin + p.numel()].view(p.shape)
                    found[names[id(p)]] = found.get(names[id(p)], 0) + part
                    begin += p.numel()
        return found

    return way


PEERS = {"opacus": opacus, "nngeometry": nngeometry}
