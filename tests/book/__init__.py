"""The book's rules, each able to fail."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The build's scripts are no package: they run before anything is installed as one.
sys.path.insert(0, str(ROOT / "book" / "_build_tools"))

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROSE = sorted(p for p in (ROOT / "book").rglob("*.md") if "_build_tools" not in p.parts)
