"""Hooks that hand over, in one backward pass, what every supported module's parameters contribute for each sequence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from klnorm_lib.probes.fisher.lookups import Lookups
from klnorm_lib.probes.fisher.modules import Contribution, Rule, Tokens, embedding, rule_for
from klnorm_lib.probes.fisher.selection import Selection
from klnorm_lib.probes.fisher.squares import Product, Rows, add_squares


class Taps:
    """Listens to the supported modules that have ``wanted`` parameters, and adds up squares per parameter in ``sums``.

    A parameter that is used more than once in a pass (a tied decoder, a layer that is run twice) is squared when all
    its uses have been heard. Modules whose input has no batch axis are noted in ``without_batch`` (parameter name ->
    module name). ``expand``: ids without batch axis (1, T) are looked up as (B, T), so that the positions have one.
    """

    def __init__(self, model: nn.Module, wanted: Mapping[str, nn.Parameter], expand: bool = True) -> None:
        self.sums = {n: torch.zeros(p.shape, dtype=torch.float32, device=p.device) for n, p in wanted.items()}
        self.without_batch: dict[str, str] = {}
        self.covered: set[str] = set()
        self._names = {id(p): n for n, p in wanted.items()}
        self._expand, self._handles, self._tables = expand, [], False
        self._rows, self._selecting = 0, None
        self._calls: dict[str, int] = defaultdict(int)
        self._heard: dict[str, list[Contribution]] = defaultdict(list)
        for path, module in model.named_modules():
            rule, own = rule_for(module), self._own(module)
            if rule and own:
                self.covered.update(own.values())
                if rule is embedding:
                    self._tables = True
                else:
                    hook = self._listener(path, rule, own)
                    self._handles.append(module.register_forward_hook(hook, with_kwargs=True))

    def run(self, rows: int, loss: Callable[[], Tensor]) -> Tensor:
        """One forward and backward pass of ``loss() -> (B,)``; returns the losses, (B,)."""
        self._calls.clear()
        self._heard.clear()
        self._rows = rows
        try:
            with Lookups(rows, self._expand, self._lookup) if self._tables else nullcontext():
                values = loss()
            if values.shape != (rows,):
                raise ValueError(f"the loss of {rows} sequences must have shape ({rows},), got {tuple(values.shape)}")
            if values.requires_grad:
                # The derivative of the sum: a sequence's loss depends on that sequence's activations alone.
                values.backward(torch.ones_like(values))
            for name in list(self._heard):  # some use of it had no influence on the loss
                self._square(name)
        finally:
            self._rows = 0  # not listening
        return values.detach()

    def select(self, layer: nn.Module, selection: Selection, loss: Callable[[], Tensor]) -> Tensor:
        """As ``run``, where ``layer`` is handed the selection of its input only."""
        handle = layer.register_forward_pre_hook(lambda _, args: (selection(args[0]), *args[1:]))
        self._selecting = layer, selection
        try:
            return self.run(len(selection.counts), loss)
        finally:
            self._selecting = None
            handle.remove()

    def close(self) -> None:
        """Take all hooks off."""
        while self._handles:
            self._handles.pop().remove()

    def _own(self, module: nn.Module) -> dict[str, str]:
        """Wanted parameters of the module itself: own name -> full name."""
        own = {k: self._names.get(id(p)) for k, p in module._parameters.items() if p is not None}
        return {k: name for k, name in own.items() if name}

    def _listener(self, path: str, rule: Rule, own: dict[str, str]) -> Callable:
        def after(module: nn.Module, args: tuple, kwargs: dict[str, Any], out: Tensor) -> Tensor | None:
            if not self._rows or not torch.is_grad_enabled():
                return None
            x = (args[0] if args else next(iter(kwargs.values()))).detach()
            selected = self._selecting is not None and module is self._selecting[0]
            tokens = Tokens(self._rows, self._selecting[1].offsets if selected else None)
            if not selected and not tokens.fit(x):
                self.without_batch.update(dict.fromkeys(own.values(), path))
                return None
            return self._expect(own, out, lambda delta: rule(module, x, delta, tokens))

        return after

    def _lookup(self, weight: Tensor, ids: Tensor, padding: int | None, out: Tensor) -> Tensor:
        """Rows ``ids`` of an embedding's ``weight`` were looked up."""
        name = self._names.get(id(weight))
        if name is None or not torch.is_grad_enabled():
            return out
        tokens = Tokens(self._rows)
        if ids.dim() == 0 or len(ids) != self._rows:
            self.without_batch[name] = name.removesuffix(".weight")
            return out
        changed = self._expect({"weight": name}, out, lambda delta: embedding(padding, ids, delta, tokens))
        return out if changed is None else changed

    def _expect(self, own: dict[str, str], out: Tensor, contributions: Callable) -> Tensor | None:
        """Take note of a use; its contributions are made when the gradient of ``out`` arrives."""
        changed = None
        if not out.requires_grad:
            # Parameters are frozen meanwhile, so the graph begins here; a copy may be changed in place.
            out = changed = out.requires_grad_().clone()
        for name in own.values():
            self._calls[name] += 1
        once = [contributions]
        out.register_hook(lambda delta: self._hear(own, once.pop()(delta)))
        return changed

    @torch.no_grad()
    def _hear(self, own: dict[str, str], contributions: Iterator[tuple[str, Contribution]]) -> None:
        for key, contribution in contributions:
            name = own.get(key)
            if name is None:
                continue
            self._heard[name].append(contribution)
            if len(self._heard[name]) == self._calls[name]:
                self._square(name)

    def _square(self, name: str) -> None:
        heard, total = self._heard.pop(name), self.sums[name]
        whole = [h for h in heard if isinstance(h, Tensor)]
        if whole:
            total.add_(sum(whole[1:], start=whole[0]).square().sum(0))
        else:
            products, rows = ([h for h in heard if isinstance(h, kind)] for kind in (Product, Rows))
            add_squares(total, products, rows)
