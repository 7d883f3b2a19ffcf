"""From folders of ``klnorm fisher`` to what ships with the library.

``python -m klnorm_lib.probes.fisher.package FOLDER...`` writes the table of every model, the full tensors of built-in
encoders, and the record of how the ranking of sites settles. Runs with labels drawn from the model go into the record
only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from klnorm_lib.encoders.language_model import load_language_model
from klnorm_lib.encoders.sources import names
from klnorm_lib.probes.fisher import convergence
from klnorm_lib.probes.fisher.table import TABLES, FisherTable, load_fisher, save_fisher


def package(folders: Sequence[str | Path], tables: Path = TABLES, record: Path = convergence.RECORD) -> list[Path]:
    """Write tables, tensors and record; returns the files. Raises what reading the folders raises."""
    written = []
    for folder in map(Path, folders):
        table = FisherTable.load(folder / "table.json")
        if table.provenance["labels"] != "true":
            continue
        model = table.provenance["model"]
        stem = model.replace("/", "--")
        written.append(table.save(tables / f"{stem}.json"))
        if model in names():
            fisher, origin = load_fisher(folder / "fisher.safetensors")
            encoder = dict(load_language_model(model)[0].base_model.named_parameters())
            kept = {name: tensor for name, tensor in fisher.items() if name in encoder}
            written.append(save_fisher(tables / f"{stem}.safetensors", kept, origin, torch.bfloat16))
            written[-1].chmod(0o644)
    record.write_text(json.dumps(convergence.record(folders)) + "\n", "utf-8")
    return [*written, record]


if __name__ == "__main__":
    print("\n".join(map(str, package(sys.argv[1:]))))
