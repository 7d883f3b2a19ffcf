"""What a method states about itself holds, and what it does not state does not hold.

The properties are defined at :class:`klnorm_lib.methods.Method`. Every test runs over the whole table of cases and asks
a method for what it states: either the property is measured, or its absence is.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from klnorm_lib import apply
from tests import zoo
from tests.methods.cases import CASES
from tests.methods.loops import STILL, accumulated, gradient, moved, seeded, small

PER_CASE = pytest.mark.parametrize("case", CASES, ids=str)


class Pair:
    """A model without any draws of its own, off its start, and the same with a method applied."""

    def __init__(self, case):
        self.plain = moved(small(case.model, **STILL[case.model]), seed=2)
        self.model = moved(small(case.model, **STILL[case.model]), seed=2)
        method = case.method(self.model)
        self.report = apply(self.model, method)
        self.stated = self.model._klnorm_methods[0].properties
        self.inputs = zoo.batch(self.model, rows=8)


@pytest.fixture
def pair(case):
    return Pair(case)


def logits(model, inputs, training=False):
    with torch.no_grad():
        return model.train(training)(**inputs).logits


@PER_CASE
def test_identity_at_init(pair, case):
    modes = (False, True) if "deterministic" in pair.stated else (False,)
    changes = [logits(pair.model, pair.inputs, m) - logits(pair.plain, pair.inputs, m) for m in modes]
    changed = max(change.abs().max() for change in changes)
    if "identity_at_init" in pair.stated:
        assert changed < 1e-5
    else:
        assert changed > 1e-3


def losses_and_gradients(model, inputs, seeds=(1, 2)):
    found = []
    for seed in seeds:
        model.zero_grad()
        loss = seeded(model, inputs, seed).loss
        loss.backward()
        found.append((loss.detach(), gradient(model)))
    return found


@PER_CASE
def test_deterministic(pair, case):
    moved(pair.model).train()
    state = torch.get_rng_state()
    (loss, slope), (again, slope_again) = losses_and_gradients(pair.model, pair.inputs)
    torch.set_rng_state(state)
    same = torch.equal(loss, again) and torch.equal(slope, slope_again)
    assert same == ("deterministic" in pair.stated)


@PER_CASE
def test_batch_invariant(pair, case):
    moved(pair.model).double().train()
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in pair.inputs.items()}
    whole = accumulated(pair.model, inputs, 1)
    wrong = (accumulated(pair.model, inputs, 4) - whole).abs().max() / whole.abs().max()
    assert wrong < 1e-8 if "batch_invariant" in pair.stated else wrong > 1e-5


class Draws:
    """The innermost modules that draw in a training forward of a model, each with the input of its first call."""

    def __init__(self, model, inputs):
        self.found, self._open = [], []
        hooks = [h for m in model.modules() for h in (m.register_forward_pre_hook(self._enter, with_kwargs=True),
                                                      m.register_forward_hook(self._leave))]  # fmt: skip
        try:
            model.train()(**inputs)
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, module, args, kwargs):
        self._open.append([module, args, kwargs, torch.get_rng_state(), False])

    def _leave(self, module, args, output):
        module, args, kwargs, before, inside = self._open.pop()
        drew = not torch.equal(torch.get_rng_state(), before)
        if drew and not inside:
            self.found.append((module, args, kwargs))
        if drew and self._open:
            self._open[-1][-1] = True


def drawing(model, inputs):
    """Path of every module that draws -> the module with the input of its first call."""
    paths = {module: path for path, module in model.named_modules()}
    found = {}
    for module, args, kwargs in Draws(model, inputs).found:
        found.setdefault(paths[module], (module, args, kwargs))
    return found


def of(output):
    return output[0] if isinstance(output, tuple) else output


def deviation(module, args, kwargs, draws=300):
    """How many standard errors the mean over draws lies from the output in evaluation, at worst."""
    torch.manual_seed(0)
    with torch.no_grad():
        wanted = of(module.eval()(*args, **kwargs)).double()
        module.train()
        samples = torch.stack([of(module(*args, **kwargs)).double() for _ in range(draws)])
    samples = samples.reshape(-1, *wanted.shape)  # several draws an example become as many rows
    error = samples.std(0) / len(samples) ** 0.5
    return ((samples.mean(0) - wanted).abs() / (error + 1e-6 * wanted.abs().max())).max()


@PER_CASE
def test_mean_preserving(pair, case):
    moved(pair.model)
    inputs = {k: v[:2] if v.ndim == 1 else v[:2, :600] for k, v in pair.inputs.items()}
    with torch.random.fork_rng(devices=[]):
        # Layer-drop of earlier transformers draws in every training forward, at a rate of 0 too.
        own = drawing(pair.plain, inputs)
        found = [each for path, each in drawing(pair.model, inputs).items() if path not in own]
        assert bool(found) == ("deterministic" not in pair.stated)
        worst = [deviation(*each) for each in found]
    if "mean_preserving" in pair.stated:
        assert worst
        assert max(worst) < 6
    else:
        assert not worst or max(worst) > 20


@PER_CASE
def test_mergeable(pair, case):
    moved(pair.model)
    added = [n for n, m in pair.model.named_modules() if getattr(m, "added_by_klnorm", False)]
    state = {k: v for k, v in pair.model.state_dict().items() if not any(k.startswith(f"{n}.") for n in added)}
    lacking, unknown = pair.plain.load_state_dict(state, strict=False)
    assert not unknown
    equal = torch.equal(logits(pair.plain, pair.inputs), logits(pair.model, pair.inputs))
    assert (not lacking and equal) == ("mergeable" in pair.stated)


class Operations(TorchDispatchMode):
    """The tensor operations of a forward in order, single numbers apart, with the shapes of what they give."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = [t.shape for t in (result if isinstance(result, (tuple, list)) else [result]) if torch.is_tensor(t)]
        if any(len(shape) for shape in given):
            self.seen.append((str(function), given))
        return result


def operations(model, inputs):
    model.eval()(**inputs)  # what is made once, at the first call, is no cost of a forward
    with torch.no_grad(), Operations() as found:
        model.eval()(**inputs)
    return found.seen


@PER_CASE
def test_zero_inference_cost(pair, case):
    inputs = {k: v for k, v in pair.inputs.items() if k != "labels"}
    same = operations(pair.model, inputs) == operations(pair.plain, inputs)
    as_many = sum(p.numel() for p in pair.model.parameters()) == sum(p.numel() for p in pair.plain.parameters())
    assert (same and as_many) == ("zero_inference_cost" in pair.stated)
