"""One row for each name of the registry: the settings and models with which the common tests run it.

A common test chooses among rows by what a method states (``method.properties``) and by what its row says, never by
name. A new method needs one row here; ``klnorm new-method`` writes it.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from klnorm_lib.methods import Method, build
from klnorm_lib.probes.fisher.table import save_fisher
from klnorm_lib.sites import dropout_sites, unwrap
from tests import zoo


@dataclass(frozen=True)
class Row:
    """How the common tests run a method.

    ``settings``: label -> hyperparameters; all run on a model that reads. ``main``: labels that run on a model that
    hears and under LoRA as well, as the first one does. ``penalised``: in training something joins the loss. ``lora``:
    it can be applied after ``get_peft_model``; where not, it must refuse and name LoRA. ``trains_on``: a loaded model
    can be trained on; where not, it must say how to go on. ``made_for``: hyperparameters that depend on the model.
    """

    settings: Mapping[str, Mapping[str, Any]]
    main: tuple[str, ...] = ()
    penalised: bool = False
    lora: bool = True
    trains_on: bool = True
    made_for: Callable[[nn.Module], Mapping[str, Any]] = lambda model: {}


def a_fisher(model: nn.Module) -> dict[str, str]:
    """A file with a random Fisher of the model's encoder."""
    return {"fisher": _saved(tuple((n, p.shape) for n, p in unwrap(model).base_model.named_parameters()))}


def a_rate_a_site(model: nn.Module) -> dict[str, dict[str, float]]:
    """A rate for every dropout site of the model, no two alike."""
    return {"rates": {site: 0.1 + 0.02 * i for i, site in enumerate(dropout_sites(model))}}


@functools.cache
def _saved(shapes: tuple[tuple[str, torch.Size], ...]) -> str:
    g = torch.Generator().manual_seed(3)
    fisher = {name: torch.rand(shape, generator=g) + 0.1 for name, shape in shapes}
    return str(save_fisher(Path(_FOLDER.name) / f"fisher-{abs(hash(shapes))}.safetensors", fisher, {}))


_FOLDER = tempfile.TemporaryDirectory(prefix="klnorm-cases-")

ROWS: dict[str, Row] = {
    "klnorm": Row(
        {
            "B": {"beta": 0.1, "schedule": "linear", "warmup_steps": 3},
            "A": {"beta": 0.1, "form": "A"},
            "C": {"beta": 0.1, "form": "C", "schedule": "cyclical", "warmup_steps": 2},
            "C-batch": {"beta": 0.1, "form": "C", "statistics": "batch"},
            "full": {"beta": 0.1, "heads": "full"},
            "diagonal": {"beta": 0.1, "heads": "diagonal"},
            "group": {"beta": 0.1, "statistics": "group", "groups": 4},
            "batch": {"beta": 0.1, "statistics": "batch"},
            "prior": {"beta": 0.1, "prior": "learned_diagonal"},
            "internal": {"beta": 0.1, "placement": "internal"},
            "internal-A": {"beta": 0.1, "placement": "internal", "form": "A", "train_base": True},
            "internal-C": {"beta": 0.1, "placement": "internal", "form": "C"},
            "internal-rms": {"beta": 0.1, "placement": "internal", "statistics": "rms"},
        },
        main=("internal", "internal-A", "internal-C"),
        penalised=True,
    ),
    "vib": Row(
        {
            "linear": {"bottleneck": 8, "beta": 0.1, "warmup_steps": 3},
            "one-draw": {"bottleneck": 8, "beta": 0.1, "schedule": "constant", "samples": 1},
        },
        penalised=True,
    ),
    "norm_head": Row({kind: {"kind": kind, "groups": 4} for kind in ("layer", "batch", "rms", "group")}),
    "mlp_head": Row({"rank-4": {"rank": 4}}),
    "dropout": Row(
        {
            "p": {"p": 0.2},
            "none": {"p": 0.0},
            "site": {"rates": {"layer.0.ffn_output": 0.3}},
            "off": {"rates": {"layer.0.ffn_output": 1.0}},
        }
    ),
    "guided_dropout": Row({"uneven": {}}, made_for=a_rate_a_site),
    "gaussian_dropout": Row({"p": {"p": 0.2}, "site": {"rates": {"layer.0.ffn_output": 0.3}}}),
    "mixout": Row({"half": {"p": 0.5}, "none": {"p": 0.0}}, lora=False),
    "r_drop": Row({"half": {"alpha": 0.5}}, penalised=True),
    "l2_sp": Row({"both": {"alpha": 0.1, "beta": 0.1}}, penalised=True, lora=False, trains_on=False),
    "ewc": Row({"uneven": {"strength": 0.1}}, penalised=True, lora=False, trains_on=False, made_for=a_fisher),
    "child_tuning": Row({"third": {"keep": 0.3}}, lora=False, trains_on=False),
}


@dataclass(frozen=True)
class Case:
    """One setting of one row, on one model of the zoo."""

    name: str
    label: str
    model: str

    @property
    def row(self) -> Row:
        """The row of the method."""
        return ROWS[self.name]

    def method(self, model: nn.Module) -> Method:
        """The method as ``apply`` takes it for ``model``."""
        return ready(build(self.name, **self.row.settings[self.label]), model)

    def __str__(self) -> str:
        return f"{self.name}-{self.label}-{self.model}"


def ready(method: Method, model: nn.Module) -> Method:
    """The method with what depends on the model, and with rows of training seen."""
    return dataclasses.replace(method, **ROWS[method.name].made_for(model)).prepare(model, [zoo.batch(model, seed=7)])


READS, HEARS = "bert", "wav2vec2"  # of the zoo
READ = [Case(name, label, READS) for name, row in ROWS.items() for label in row.settings]
FIRST = [Case(name, next(iter(row.settings)), READS) for name, row in ROWS.items()]
MAIN = [case for case in READ if case in FIRST or case.label in case.row.main]
HEARD = [Case(case.name, case.label, HEARS) for case in MAIN]
CASES = [*READ, *HEARD]
