r"""``klnorm new-method``: all pieces of a method in a checkout of this repository, so that its tests hold at once.

What is written is a small method that works: a learned scale before the head, with a penalty. Its idea, its equations
and its card are then replaced by those of the new method.
"""

from __future__ import annotations

import keyword
import re
import tomllib
from pathlib import Path
from typing import Annotated

import typer

from klnorm_lib.cli import completion, output
from klnorm_lib.cli.application import app

REGISTRY = Path("klnorm_lib/methods/registry.py")
CASES = Path("tests/methods/cases.py")
CONTENTS = Path("_toc.yml")


@app.command("new-method")
def new_method(
    name: Annotated[str, typer.Argument(metavar="NAME", help="In lower case, as in records: my_method.")],
) -> None:
    """Write a new method into this checkout: file, card, tests' row, registry line; a working one, to be replaced."""
    root = checkout(Path.cwd())
    for path in write(root, name):
        output.note(f"wrote {path}")
    output.note(
        f"Now put your method into klnorm_lib/methods/{name}.py, what it does into book/methods/{name}.md, and its "
        f"hyperparameters into the last row of {CASES}; then: python -m pytest tests/methods tests/book -k {name}"
    )


def checkout(folder: Path) -> Path:
    """The root of the checkout of this repository that ``folder`` is in; raises ``ValueError`` where there is none."""
    for root in (folder, *folder.parents):
        if all((root / path).is_file() for path in ("pyproject.toml", REGISTRY, CASES, CONTENTS)):
            project = tomllib.loads((root / "pyproject.toml").read_text("utf-8")).get("project", {})
            if project.get("name") == "klnorm-lib":
                return root
    raise ValueError(
        f"{folder} is not inside a checkout of klnorm-lib, where methods are added; clone the repository and run "
        "this in it. A method of a package of your own is registered by an entry point, see klnorm_lib.methods.plugins"
    )


def write(root: Path, name: str) -> list[Path]:
    """Write every piece of the method ``name`` below ``root``; the paths, relative to it.

    Raises ``ValueError`` for a name that cannot be one or is taken, before anything is written.
    """
    _check(root, name)
    card = Path("book/methods") / f"{name}.md"
    texts = {
        Path("klnorm_lib/methods") / f"{name}.py": _filled(METHOD, name),
        card: _filled(CARD, name),
        REGISTRY: _with(
            root / REGISTRY,
            _after_last(r"from klnorm_lib\.methods\.\w+ import \w+\n"),
            f"from klnorm_lib.methods.{name} import {_class(name)}\n",
        ),
        CASES: _with(
            root / CASES,
            r"ROWS: dict\[str, Row\] = \{\n(?:.*\n)*?(?=\}\n)",
            f'    "{name}": Row({{"strong": {{"strength": 0.1}}}}, penalised=True),\n',
        ),
        CONTENTS: _with(
            root / CONTENTS,
            _after_last(r" +- file: book/methods/\w+\n"),
            f"          - file: {card.with_suffix('')}\n",
        ),
    }
    for path, text in texts.items():
        (root / path).write_text(text, encoding="utf-8")
    return list(texts)


def _check(root: Path, name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} cannot be the name of a method; write words in lower case, as in my_method")
    taken = completion.method("")
    files = [
        root / "klnorm_lib/methods" / name,
        root / f"klnorm_lib/methods/{name}.py",
        root / f"book/methods/{name}.md",
    ]
    if name in taken or any(file.exists() for file in files):
        raise ValueError(f"the name {name!r} is taken; choose another one than {', '.join(taken)}")


def _with(path: Path, place: str, line: str) -> str:
    """The text of a file with ``line`` behind the first match of ``place``."""
    text = path.read_text("utf-8")
    found = re.search(place, text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{path} has no place where a method would be added; add it by hand: {line.strip()}")
    return text[: found.end()] + line + text[found.end() :]


def _after_last(line: str) -> str:
    return rf"(?s:.*)^{line}"


def _class(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _filled(template: str, name: str) -> str:
    from klnorm_lib.pages.evidence import NONE

    words = {"NAME": name, "CLASS": _class(name), "TITLE": name.replace("_", " ").capitalize(), "NONE": NONE}
    return re.sub(r"@(\w+)@", lambda found: words[found[1]], template)


METHOD = '''\
r"""@TITLE@: features before the head are scaled, and a penalty keeps the scale near 1.

SURNAME and SURNAME YEAR, "TITLE OF THE PAPER" (arXiv NUMBER). The idea in a paragraph. With x the vector that the last
linear layer of the head reads and s the learned scale,

.. math:: y = s \\odot x, \\qquad \\frac{\\lambda}{2}\\,\\|s - 1\\|^2

the second of which is added to the training loss; s starts at 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from klnorm_lib.methods.arguments import argument
from klnorm_lib.methods.contract.method import Method
from klnorm_lib.methods.head import insert_before_head
from klnorm_lib.methods.penalty import PenaltyLayer, check_strengths
from klnorm_lib.methods.schedule import Schedule


@dataclass(frozen=True)
class @CLASS@(Method):
    """Scale the features before the head's last Linear by a vector that is penalised for leaving 1.

    Raises ``ValueError`` for a strength that is negative or not finite, ``TypeError`` if it is not a number.
    """

    strength: float = argument(0.01, "weight of the penalty, at least 0")

    name = "@NAME@"
    properties = frozenset({"identity_at_init", "deterministic", "batch_invariant"})

    def __post_init__(self) -> None:
        check_strengths(self, "strength")

    def added_parameters(self, width: int, outputs: int = 2) -> int:
        """One a feature, d of them."""
        return width

    def attach(self, model: nn.Module) -> list[str]:
        """Insert the scale before the head."""
        path = insert_before_head(model, lambda size: @CLASS@Layer(size, self))
        return [f"a scale before {path}, strength = {self.strength:g}"]


class @CLASS@Layer(PenaltyLayer):
    """The scale and its penalty; shapes (..., features), unchanged."""

    def __init__(self, features: int, config: @CLASS@) -> None:
        super().__init__(Schedule("constant", config.strength), keep_step=False)
        self.scale = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        self.penalise(0.5 * (self.scale - 1).square().sum())  # 1/2 |s - 1|^2, times lambda
        return self.scale * x  # y = s * x
'''

CARD = """\
# @TITLE@

## What it does

In a paragraph: the idea, who published it, and how it differs from its neighbours. Before the last linear layer of the
head it puts a learned scale, $y = s \\odot x$, and adds to the training loss

$$\\frac{\\lambda}{2}\\,\\|s - 1\\|^2.$$

The scale starts at 1, so that the model's first logits are unchanged.

## One-line use

```python
from klnorm_lib import @CLASS@, apply

report = apply(model, @CLASS@(strength=0.1))
```

## Defaults

<!-- arguments -->

| Argument | Default | Meaning |
|---|---|---|
| `strength` | `0.01` | weight of the penalty, at least 0 |

Properties with the defaults, each tested: `identity_at_init`, `deterministic`, `batch_invariant`.

<!-- /arguments -->

The default is a choice of ours. A study should tune it.

## Cost

| Method | Added parameters | At width 384 |
|---|---|---|
| `@CLASS@()` | $d$ | 384 |

## Evidence

<!-- evidence -->

@NONE@

<!-- /evidence -->

## Caveats

- Under Adam a penalty is not decay: its gradient is divided by the same running size as that of the task.
"""
