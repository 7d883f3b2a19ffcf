"""The forward of a changed model: passes, the penalty in ``outputs.loss``, and a watch that it is not lost."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from klnorm_lib.methods.contract.fresh_parts import check_fresh_parts
from klnorm_lib.methods.contract.guards import (
    check_divided,
    check_kept,
    check_whole,
    exporting,
    warn_in_evaluation,
    watch,
)
from klnorm_lib.methods.contract.left_padding import warn_of_left_padding
from klnorm_lib.methods.contract.tuners import warn_of_left_out
from klnorm_lib.methods.monitoring import means_of
from klnorm_lib.methods.passes import loss_and_logits, twice
from klnorm_lib.methods.penalty import PenaltyLayer, penalty_layers
from klnorm_lib.methods.precision import refuse_float16
from klnorm_lib.sites.axes import Positions


def penalised_forward(model: nn.Module, base_forward: Callable, given: inspect.BoundArguments):
    """The outputs of ``base_forward``, called with ``given``, with the penalty in their loss."""
    layers = penalty_layers(model)
    _check_once(model)
    as_tuple = _name_outputs(model, given)
    if model.training and torch.is_grad_enabled():
        model._klnorm_trained = True
        check_whole(model)
        if not torch.compiler.is_compiling():
            check_divided(given)
            check_kept(model)
            if check_fresh_parts(model):
                warn_of_left_out(model)
    warn_of_left_padding(model, base_forward, given)
    mask, labels = _mask(model, given), given.arguments.get("labels")
    samples = 1
    if labels is not None and model.training:
        samples = max((layer.samples for layer in layers), default=1)
    if samples > 1:
        given.arguments["labels"] = torch.cat([labels] * samples)
    model._klnorm_pending = False  # the graph of the forward before is gone

    real = _positions(model, given.arguments, mask)
    decoders = _decoder_layers(model)
    decoded = _decoder_positions(model, given.arguments, real) if decoders else real

    def one_pass():
        encoder = model.base_model
        encoder._klnorm_open = True
        for layer in layers:
            places = decoded if id(layer) in decoders else real
            layer.enter(samples, torch.is_grad_enabled(), places)
        try:
            outputs = base_forward(*given.args, **given.kwargs)
            for layer in layers:
                layer.settle(loss_and_logits(outputs, labels is not None)[1])
                layer.finish(model, outputs, as_tuple)
            penalties = [p for layer in layers for p in layer.penalties]
            for layer in layers:
                if layer.penalties:
                    layer.note(torch.stack(layer.penalties).sum())
        finally:
            encoder._klnorm_open = False
            for layer in layers:
                layer.leave()
        total = torch.stack([p.to(penalties[0].device) for p in penalties]).sum() if penalties else None
        return outputs, total

    outputs, total = one_pass()
    comparing = [layer for layer in layers if layer.second_pass and model.training]
    if comparing:
        outputs, total = twice(comparing, (outputs, total), one_pass, labels is not None, samples)
    outputs = _attach_penalty(model, outputs, total, labels is not None, samples)
    return outputs.to_tuple() if as_tuple and not isinstance(outputs, tuple) else outputs


def _check_once(model: nn.Module) -> None:
    # Saved models may be opened in float16 to predict; the first training step is where that would go wrong.
    training = model.training and torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if training and not model.__dict__.get("_klnorm_checked"):
        refuse_float16(model)
        model._klnorm_checked = True


def _positions(model: nn.Module, given: Mapping[str, object], mask: Tensor | None) -> Positions:
    return Positions.of(model.config, mask, next((given[k] for k in _TOKENS if given.get(k) is not None), None))


def _mask(model: nn.Module, given: inspect.BoundArguments) -> Tensor | None:
    """The attention mask; where none is given, or the model takes none (FNet), it is read off the padding token."""
    if given.arguments.get("attention_mask") is not None:
        return given.arguments["attention_mask"]
    anything = next((n for n, p in given.signature.parameters.items() if p.kind is p.VAR_KEYWORD), None)
    mask = given.arguments.get(anything, {}).get("attention_mask")
    tokens, padding = given.arguments.get("input_ids"), getattr(model.config, "pad_token_id", None)
    return tokens != padding if mask is None and tokens is not None and padding is not None else mask


def _decoder_layers(model: nn.Module) -> set[int]:
    """Layers in the decoder of an encoder-decoder model, whose positions are not those of ``attention_mask``."""
    if not getattr(model.config, "is_encoder_decoder", False):
        return set()
    named = ((name, m) for name, m in model.named_modules() if isinstance(m, PenaltyLayer))
    return {id(layer) for name, layer in named if "decoder" in name.split(".")}


def _decoder_positions(model: nn.Module, given: Mapping[str, object], real: Positions) -> Positions:
    """Of a decoder that was given no tokens of its own, but those of the encoder shifted by one, the encoder's."""
    mask = given.get("decoder_attention_mask")
    own = any(given.get(k) is not None for k in ("decoder_input_ids", "decoder_inputs_embeds"))
    return Positions(model.config, mask) if own or mask is not None else real


_TOKENS = ("input_ids", "inputs_embeds", "input_values", "input_features")


def _name_outputs(model: nn.Module, given: inspect.BoundArguments) -> bool:
    """Make the model name its outputs, since in a tuple the loss looks like the logits; whether a tuple was wanted."""
    parameters = given.signature.parameters
    anything = next((name for name, p in parameters.items() if p.kind is p.VAR_KEYWORD), None)
    others = given.arguments.get(anything, {})
    by_name = given.arguments.get("return_dict", others.get("return_dict"))
    as_tuple = not (getattr(model.config, "return_dict", True) if by_name is None else by_name)
    if as_tuple and "return_dict" in parameters:
        given.arguments["return_dict"] = True
    elif as_tuple and anything is not None:
        given.arguments[anything] = {**others, "return_dict": True}
    return as_tuple


def _attach_penalty(model: nn.Module, outputs, total: Tensor | None, has_labels: bool, samples: int):
    is_tuple = isinstance(outputs, tuple)
    loss, logits = loss_and_logits(outputs, has_labels)
    if total is None:
        total = torch.zeros((), device=next(model.parameters()).device)
    elif model.training:
        means = means_of(model)
        if means is not None:
            means.add(penalty=total, **({} if loss is None else {"penalty_task_loss": loss}))
        loss = None if loss is None else loss + total
        if means is not None and loss is not None:
            model.__dict__["_klnorm_loss"] = loss.detach().clone()  # peft may add to it in place
        if total.requires_grad and not torch.compiler.is_compiling():
            watch(model, outputs if logits is None else logits, loss)
    if not model.training and loss is not None and loss.requires_grad and not torch.compiler.is_compiling():
        warn_in_evaluation(model, loss)
    if samples > 1:
        logits = logits.unflatten(0, (samples, -1)).mean(0)
    if not exporting():  # which refuses tensors that a forward leaves behind
        model._klnorm_auxiliary = total
    if is_tuple:
        rest = outputs[1 + int(has_labels) :]
        return (loss, logits, *rest) if has_labels else (logits, *rest)
    if loss is not None:
        outputs["loss"] = loss
    if samples > 1:
        outputs["logits"] = logits
    return outputs
