"""The dtype that the configuration of a pretrained encoder declares, beside the one of its weights on disk."""

from __future__ import annotations

import json
from pathlib import Path


def declare_float32(folder: Path) -> None:
    """Have ``from_pretrained`` load the encoder in ``folder`` as float32, whatever its file keeps.

    transformers loads a model in the dtype that its configuration declares; weights in float16 cannot be trained.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
