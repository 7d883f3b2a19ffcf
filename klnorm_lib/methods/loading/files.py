"""Files of a saved model: the error says which one is corrupt, incomplete or absent."""

from __future__ import annotations

import json
from pathlib import Path

from klnorm_lib.encoders.no_code import inside


def read_json(file: Path) -> dict:
    """The object of a JSON file; raises FileNotFoundError, or ValueError for a file that is cut off."""
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist; give the folder that save_pretrained wrote")
    try:
        return json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is corrupt or truncated ({error}); save the model again") from error


def read_safetensors(path: Path) -> dict:
    """All tensors of a folder by their name in the file, shards joined.

    Raises FileNotFoundError without such a file, ValueError for a corrupt file and for shards that are absent.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = sorted(path.glob("model*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no model*.safetensors in {path}; save with safe serialisation")
    state: dict = {}
    for file in files:
        try:
            state |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"checkpoint {file} is corrupt or truncated ({error}); save the model again") from error
    index = path / "model.safetensors.index.json"
    if index.exists():
        lost = {part for part in read_json(index)["weight_map"].values() if not inside(path, part, str(index)).exists()}
        if lost:
            raise ValueError(f"{path} lacks the shards {', '.join(sorted(lost))}; copy them again")
    return state
