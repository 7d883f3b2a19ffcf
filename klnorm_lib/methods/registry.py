"""The one list of methods; exports, command line, cards, counting and the common tests are derived from it.

A new method is a file of its own and one import below, in the order in which methods are listed. One of another
package is an entry point: see ``klnorm_lib.methods.plugins``.
"""

# ruff: noqa: F401, I001
from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from klnorm_lib.methods.contract.method import Method
from klnorm_lib.methods.plugins import PLAIN, Registry
from klnorm_lib.methods.together import PLUS, Together, shares

from klnorm_lib.methods.klnorm import KLNorm
from klnorm_lib.methods.vib import VIB
from klnorm_lib.methods.norm_head import NormHead
from klnorm_lib.methods.mlp_head import MLPHead
from klnorm_lib.methods.dropout import Dropout
from klnorm_lib.methods.guided_dropout import GuidedDropout
from klnorm_lib.methods.gaussian_dropout import GaussianDropout
from klnorm_lib.methods.mixout import Mixout
from klnorm_lib.methods.r_drop import RDrop
from klnorm_lib.methods.l2_sp import L2SP
from klnorm_lib.methods.ewc import EWC
from klnorm_lib.methods.child_tuning import ChildTuning

_imported = [each for each in vars().values() if isinstance(each, type) and issubclass(each, Method)]
REGISTRY = Registry([cls for cls in _imported if cls is not Method])


def names() -> list[str]:
    """Names that :func:`build` takes; ``plain`` means no method."""
    return [PLAIN, *REGISTRY]


def build(name: str, **fields) -> Method | Together | None:
    """The method of that name with those hyperparameters; None for ``plain``.

    ``first+second`` is both together; their hyperparameters are then called ``first.field``. Raises ``ValueError`` for
    an unknown name or hyperparameter, naming those that exist.
    """
    if name == PLAIN:
        if fields:
            raise ValueError(f"plain has no hyperparameters, got {', '.join(fields)}")
        return None
    if PLUS in name:
        return Together(tuple(_one(part, own) for part, own in shares(name, fields).items()))
    return _one(name, fields)


def _one(name: str, fields: dict) -> Method:
    if name not in REGISTRY:
        if name in REGISTRY.broken:
            raise ValueError(f"the method {name!r} is not there: {REGISTRY.broken[name]}")
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"unknown method {name!r}{hint} There are: {', '.join(names())}")
    existing = [f.name for f in dataclasses.fields(REGISTRY[name])]
    unknown = sorted(set(fields) - set(existing))
    if unknown:
        raise ValueError(f"{name} has no hyperparameter {', '.join(unknown)}; it has {', '.join(existing)}")
    return REGISTRY[name](**fields)


def to_dict(method: Method | Together | None) -> dict[str, Any]:
    """A method (or None: plain) as plain JSON."""
    return {"name": PLAIN} if method is None else method.to_dict()


def from_dict(saved: dict[str, Any]) -> Method | Together | None:
    """The method that :func:`to_dict` wrote."""
    fields = dict(saved)
    if "name" not in fields:
        raise ValueError(f"a saved method needs a 'name', got {saved!r}")
    return build(fields.pop("name"), **fields)


def recorded_fields(method: Method | Together | None) -> dict[str, Any]:
    """The hyperparameters as they enter a run's hash: all but those of ``later`` that have the value of old records."""
    values = to_dict(method)
    del values["name"]
    later = getattr(method, "later", {})
    return {name: value for name, value in values.items() if name not in later or value != later[name]}
