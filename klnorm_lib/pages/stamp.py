"""Versions and hardware, the last cell of every notebook."""

from __future__ import annotations

import html
from typing import Any

from klnorm_lib.study import machine


class Versions(dict):
    """What made the numbers above: a dict that prints as a table, in a notebook as HTML."""

    def __repr__(self) -> str:
        width = max(map(len, self))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in self.items())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th scope='row' style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
            for name, value in self.items()
        )
        # The class is that of pandas, which themes style for the dark as well.
        return f"<table class='dataframe'><caption>Versions and hardware</caption><tbody>{rows}</tbody></table>"


def versions() -> Versions:
    """Versions of python, this library and the packages that decide numbers, and the hardware they ran on."""
    hardware: dict[str, Any] = machine.hardware()
    return Versions(
        **machine.versions(),
        system=hardware["system"],
        processor=f"{hardware['cpu']} ({hardware['cores']} cores, {hardware['threads']} torch threads)",
        accelerator=hardware["gpu"] or "none",
        memory="unknown" if hardware["ram_gib"] is None else f"{hardware['ram_gib']} GiB",
    )
