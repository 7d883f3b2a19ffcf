"""Hooks that hand over, in one backward pass, what every supported module's parameters contribute for each sequence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from itertools import accumulate
from operator import mul
from typing import Any

import torch
from torch import Tensor, nn

from klnorm_lib.probes.fisher.lookups import Lookups
from klnorm_lib.probes.fisher.modules import Contribution, Rule, Tokens, embedding, rule_for
from klnorm_lib.probes.fisher.selection import Selection
from klnorm_lib.probes.fisher.squares import Product, Rows, accumulated, add_squares, zeros_for

Forms = Mapping[str, set[str]]


class Unforeseen(Exception):
    """A pass uses parameters in another way than the trial did, or cannot be made with hooks.

    ``reasons``: parameter name -> in which way. ``failed``: what went wrong with the pass as a whole.
    """

    def __init__(self, reasons: Mapping[str, str], failed: str = "") -> None:
        super().__init__(failed or "; ".join(sorted(set(reasons.values()))))
        self.reasons, self.failed = dict(reasons), failed


class Taps:
    """Listens to the supported modules that have ``wanted`` parameters, and adds up squares per parameter in ``sums``.

    A parameter that is used more than once in a pass (a tied decoder, a layer that is run twice) is squared when all
    its uses have been heard. ``expand``: ids without batch axis (1, T) are looked up as (B, T), so that the positions
    have one. ``tokens``: numbers of tokens that a sequence has anywhere in the batch.

    Noted are ``forms`` (parameter name -> how its inputs have the batch axis), ``lengths`` (-> the length of their
    first axis, one a use), and ``without_batch`` (-> module name), where there can be none. With ``known``, the forms
    of a trial, a use in another form, or a forward that fails, raises :class:`Unforeseen` before anything is added.
    """

    def __init__(
        self,
        model: nn.Module,
        wanted: Mapping[str, nn.Parameter],
        expand: bool = True,
        known: Forms | None = None,
        sums: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.sums = zeros_for(wanted) if sums is None else {name: sums[name] for name in wanted}
        self.without_batch: dict[str, str] = {}
        self.covered: set[str] = set()
        self.forms: dict[str, set[str]] = defaultdict(set)
        self.lengths: dict[str, list[int]] = defaultdict(list)
        self._names = {id(p): n for n, p in wanted.items()}
        self._expand, self._known, self._handles, self._tables = expand, known, [], False
        self._unforeseen: dict[str, str] = {}
        self._dtype, self._tokens = accumulated(wanted), set()
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

    def run(self, rows: int, loss: Callable[[], Tensor], tokens: Iterable[int] = (), backward: bool = True) -> Tensor:
        """One forward and backward pass of ``loss() -> (B,)``; returns the losses, (B,)."""
        self._calls.clear()
        self._heard.clear()
        self._unforeseen.clear()
        self._rows, self._tokens = rows, set(tokens)
        try:
            with Lookups(rows, self._expand, self._lookup) if self._tables else nullcontext():
                try:
                    values = loss()
                except Exception as error:
                    if self._known is None:
                        raise
                    raise Unforeseen({}, f"a pass with hooks failed ({type(error).__name__}: {error})") from error
            if values.shape != (rows,):
                raise ValueError(f"the loss of {rows} sequences must have shape ({rows},), got {tuple(values.shape)}")
            if self._unforeseen:
                raise Unforeseen(self._unforeseen)
            if values.requires_grad and backward:
                # The derivative of the sum: a sequence's loss depends on that sequence's activations alone.
                values.backward(torch.ones_like(values))
            for name in list(self._heard):  # some use of it had no influence on the loss
                self._square(name)
        finally:
            self._rows = 0  # not listening
        return values.detach()

    def select(
        self,
        layer: nn.Module,
        selection: Selection,
        loss: Callable[[], Tensor],
        tokens: Iterable[int] = (),
        backward: bool = True,
    ) -> Tensor:
        """As ``run``, where ``layer`` is handed the selection of its input only."""
        handle = layer.register_forward_pre_hook(lambda _, args: (selection(args[0]), *args[1:]))
        self._selecting = layer, selection
        try:
            return self.run(len(selection.counts), loss, tokens, backward)
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
            tokens = Tokens(self._rows, self._selecting[1].offsets if selected else None, self._dtype)
            form = "selected" if selected else self._form(x)
            if not self._note(own.values(), path, form, self._rows if selected else len(x)):
                return None
            return self._expect(own, out, lambda delta: rule(module, x, delta, tokens))

        return after

    def _lookup(self, weight: Tensor, ids: Tensor, padding: int | None, out: Tensor) -> Tensor:
        """Rows ``ids`` of an embedding's ``weight`` were looked up."""
        name = self._names.get(id(weight))
        if name is None or not torch.is_grad_enabled():
            return out
        tokens = Tokens(self._rows, dtype=self._dtype)
        form = "ids" if ids.dim() and len(ids) == self._rows else None
        if not self._note([name], name.removesuffix(".weight"), form, len(ids) if ids.dim() else 1):
            return out
        return self._expect({"weight": name}, out, lambda delta: embedding(padding, ids, delta, tokens))

    def _form(self, x: Tensor) -> str | None:
        """How x has the batch axis: (B, ..., D), or all tokens of all sequences one after the other, (B T, D)."""
        if x.dim() < 2:
            return None
        if len(x) == self._rows:
            self._tokens.update(accumulate(x.shape[1:-1], mul))
            return f"{x.dim()} axes"
        each, rest = divmod(len(x), self._rows)
        return "tokens" if x.dim() == 2 and not rest and each in self._tokens else None

    def _note(self, names: Iterable[str], path: str, form: str | None, length: int) -> bool:
        """Whether the batch axis is where it can be used; notes it."""
        for name in names:
            self.lengths[name].append(length)
            if form is None:
                self.without_batch[name] = path
            else:
                self.forms[name].add(form)
            # Whatever its form, with one sequence everything belongs to it.
            if self._known is not None and form not in self._known.get(name, ()) and self._rows > 1:
                known = name in self._known
                what = "had a batch axis at first, and has none or another later" if known else "came into play later"
                self._unforeseen[name] = f"{path} {what}"
                return False
        return form is not None or (self._known is not None and self._rows == 1)

    def _expect(self, own: dict[str, str], out: Tensor, contributions: Callable) -> Tensor:
        """Take note of a use; its contributions are made when the gradient of ``out`` arrives.

        Returned is a copy to go on with: a tensor that is changed in place afterwards forgets its hooks.
        """
        if not out.requires_grad:  # parameters are frozen meanwhile, so the graph begins here
            out.requires_grad_()
        for name in own.values():
            self._calls[name] += 1
        once = [contributions]
        out.register_hook(lambda delta: self._hear(own, once.pop()(delta)))
        return out.clone()

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
