"""What conda would hand to pip, replayed without installing: environment.yml's pip lines, in a new environment."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import yaml


def pip_lines(root: Path) -> list[str]:
    """The lines below ``pip:`` in environment.yml."""
    entries = yaml.safe_load((root / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    return next(entry["pip"] for entry in entries if isinstance(entry, dict))


def main() -> int:
    root = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        print("== new environment; pip resolves, and installs nothing")
        venv.create(folder, with_pip=True)
        pip = [str(Path(folder, "bin/python")), "-m", "pip", "install", "--dry-run", "--quiet", "-U"]
        # conda does the same: the lines in a file beside environment.yml, so that relative paths mean this folder.
        with tempfile.NamedTemporaryFile("w", dir=root, prefix=".environment.", suffix=".txt") as requirements:
            requirements.write("\n".join(pip_lines(root)) + "\n")
            requirements.flush()
            result = subprocess.run([*pip, "-r", requirements.name], cwd=root)
    print("== environment.yml resolves" if result.returncode == 0 else "== environment.yml does not resolve")
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
