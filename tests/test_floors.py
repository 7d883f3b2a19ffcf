"""The house: a module imports from its own floor or from those below, never from above."""

import ast
from pathlib import Path

import pytest

import klnorm_lib

ROOT = Path(klnorm_lib.__file__).parent
FLOORS = (("functional", "tasks", "encoders", "studies"), ("methods", "probes"), ("study",), ("report",), ("cli",))
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
FLOOR |= {"cli_fisher": 4, "cli_lists": 4, "cli_options": 4, "cli_study": 4, "__main__": 4}
FILES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT or p.stem != "__init__")


def rooms_imported(source: str, package: tuple[str, ...]) -> set[str]:
    """Rooms of the library that a module's source imports, relative imports resolved."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "klnorm_lib" else [module]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("klnorm_lib.")}
    return found - {"__version__"}


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    package = ("klnorm_lib", *parts[:-1])
    above = [r for r in rooms_imported(file.read_text(), package) if FLOOR[r] > FLOOR[parts[0]]]
    assert not above, f"{'/'.join(parts)} is on floor {FLOOR[parts[0]]} and imports {above} from above"


def test_an_import_from_above_is_seen():
    lines = "def f():\n    from klnorm_lib.study import run\nfrom ..report import card\nimport klnorm_lib.cli\n"
    assert rooms_imported(lines, ("klnorm_lib", "methods")) == {"study", "report", "cli"}
    assert rooms_imported("from klnorm_lib import functional", ("klnorm_lib",)) == {"functional"}
