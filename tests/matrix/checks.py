"""What is checked on every architecture: each check returns "ok", "refused: why", "depends: how far" or "FAULT: what".

from tests.matrix import checks

checks.run("text/bert", "pooled")      # "ok"
"""

from __future__ import annotations

import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

import klnorm_lib
from klnorm_lib import Dropout, GuidedDropout, KLNorm, apply, effective_rates
from klnorm_lib.probes import diagonal_fisher
from klnorm_lib.sites import dropout_sites
from tests.matrix import architectures, dropouts
from tests.matrix.models import Fault, built, demand, depends, logits_of, moved
from tests.matrix.penalties import SAME, internal, pooled, start

RATE = 0.3
NOT_APPLICABLE = "–"


def padding(name: str) -> str:
    """Logits of the plain model do not depend on padding; where they do, by how much."""
    model = built(name)
    if not architectures.takes_padding(name, model):
        return NOT_APPLICABLE
    moves = depends(name, model)
    return "ok" if moves < SAME else f"depends: logits move by {moves:.1g}"


def dropout(name: str) -> str:
    """``Dropout``: with a rate of its own for every site every mask has that of its site; with one, all have that."""
    model = architectures.build(name)
    wanted = dropouts.distinct(dropout_sites(model))
    apply(model, Dropout(rates=wanted))
    batch = architectures.batch(name, model, rows=dropouts.ROWS)
    compare_rates(wanted, dropouts.measured_rates(model, batch))
    model = architectures.build(name)
    apply(model, Dropout(RATE))
    for site, drawn in dropouts.measured_rates(model, batch).items():
        demand(abs(drawn - RATE) < 1e-5, f"{site}: asked for {RATE}, masks at {drawn}")
    return "ok"


def guided(name: str) -> str:
    """Guided dropout with rates from the Fisher information: every mask has the rate of its site."""
    model = architectures.build(name)
    batch = architectures.batch(name, model, rows=dropouts.ROWS)
    method = GuidedDropout(fisher="task").prepare(model, [batch])
    apply(model, method)
    compare_rates(dict(method.rates), dropouts.measured_rates(model, batch))
    return "ok"


def compare_rates(wanted: dict[str, float], seen: dict[str, float]) -> None:
    """Raise ``Fault`` naming the first site whose masks have another rate than was asked for."""
    for site in {**wanted, **seen}:
        asked, drawn = wanted.get(site), seen.get(site)
        same = asked is not None and drawn is not None and abs(asked - drawn) < 1e-5
        # A mask of rate 0 is not drawn at all.
        demand(same or (asked == 0 and drawn is None), f"{site}: asked for {asked}, masks at {drawn}")


def fisher(name: str) -> str:
    """One pass a batch gives, tensor by tensor, what a pass for every sequence gives."""
    model = built(name)
    batch = architectures.batch(name, model, ragged=True)
    loop = diagonal_fisher(model, [batch], method="loop", progress=False)
    hooks = diagonal_fisher(model, [batch], progress=False)
    demand(list(loop) == list(hooks), "hooks and loop name different parameters")
    floor = 1e-12 * max(float(tensor.max()) for tensor in loop.values() if tensor.numel())
    for key, expected in loop.items():
        if expected.numel():
            gap, size = float((hooks[key] - expected).abs().max()), float(expected.max())
            demand(gap <= 1e-3 * size + floor, f"{key}: hooks differ by {gap:.2g} where the loop has {size:.2g}")
    return "ok"


def saved(name: str) -> str:
    """What ``save_pretrained`` wrote comes back bit-equal by ``klnorm_lib.load`` and by the Auto class."""
    answers = {}
    methods = {
        "pooled": KLNorm(form="C"),
        "internal": KLNorm(placement="internal"),
        "dropout": Dropout(RATE),
    }
    for label, method in methods.items():
        model = built(name)
        try:
            apply(model, method)
        except Exception as error:
            answers[label] = answer_of(error)
            continue
        if isinstance(method, KLNorm):
            moved(model)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            come_back(name, model, Path(folder), label)
        answers[label] = "ok"
    left = [answer for answer in answers.values() if answer != "ok"]
    return left[0] if len(left) == len(answers) else "ok"


def come_back(name: str, model: PreTrainedModel, folder: Path, label: str) -> None:
    """Raise ``Fault`` unless both ways of opening ``folder`` give the logits of ``model``, of dropout its rates too."""
    batch = architectures.batch(name, model, ragged=True)
    expected = logits_of(model, batch)
    ways = {"load": klnorm_lib.load, "from_pretrained": architectures.auto_class(name).from_pretrained}
    for way, opened in ways.items():
        again = opened(folder)
        found = logits_of(again, batch)
        demand(torch.equal(found, expected), f"{label}, {way}: logits {float((found - expected).abs().max()):.2g} off")
        if label == "dropout":
            demand(effective_rates(again) == effective_rates(model), f"{way}: the rates are not those saved")


CHECKS: dict[str, Callable[[str], str]] = {
    "pooled": pooled,
    "internal": internal,
    "dropout": dropout,
    "guided": guided,
    "fisher": fisher,
    "saved": saved,
    "padding": padding,
}


OF_LANGUAGE_MODELS: dict[str, Callable[[str], str]] = {"start": start}


def checks_of(name: str) -> list[str]:
    """The checks of a classifier, or of a language model of which there is no classifier."""
    return list(OF_LANGUAGE_MODELS if name.startswith(("masked/", "causal/")) else CHECKS)


def run(name: str, check: str) -> str:
    """The answer of one check on one architecture; an error that is no refusal of this library's is a fault."""
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return (CHECKS | OF_LANGUAGE_MODELS)[check](name)
        except Exception as error:
            return answer_of(error)


def answer_of(error: Exception) -> str:
    """A refusal is an error that a line of ``klnorm_lib`` raises on purpose."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    if isinstance(error, Fault):
        return f"FAULT: {text}"
    own = Path(klnorm_lib.__file__).parent in Path(frame.filename).parents
    if own and (frame.line or "").startswith("raise"):
        return f"refused: {text}"
    return f"FAULT: {type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}: {text[:200]}"
