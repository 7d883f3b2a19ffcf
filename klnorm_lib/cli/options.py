"""Options that several commands of ``klnorm`` have."""

from __future__ import annotations

from typing import Annotated

import typer


def _as_json(ctx: typer.Context, value: bool) -> bool:
    ctx.meta["json"] = value  # an error is told in JSON as well
    return value


Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.", callback=_as_json)]
