"""``klnorm new-method`` writes a whole method, and whichever piece is left out, a test says which."""

import re
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from klnorm_lib import cli
from klnorm_lib.cli.new_method import checkout, write
from tests.book import ROOT
from tests.methods.pieces import missing

NAME = "learned_scale"
PIECES = {
    "klnorm_lib/methods/learned_scale.py": None,
    "book/methods/learned_scale.md": None,
    "klnorm_lib/methods/registry.py": "from klnorm_lib.methods.learned_scale import",
    "tests/methods/cases.py": '    "learned_scale": Row(',
    "_toc.yml": "          - file: book/methods/learned_scale\n",
}


def clone(folder):
    """A checkout that a method can be written into; what no method touches is linked."""
    for path in ROOT.iterdir():
        if path.name in ("_toc.yml", "pyproject.toml"):
            shutil.copy(path, folder)
        elif path.name in ("book", "tests"):
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.name not in ("klnorm_lib", "build", "records", "runs") and not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    (folder / "klnorm_lib").mkdir()
    for path in (ROOT / "klnorm_lib").iterdir():
        if path.name == "methods":
            shutil.copytree(path, folder / "klnorm_lib/methods", ignore=shutil.ignore_patterns("__pycache__"))
        elif path.name != "__pycache__":
            (folder / "klnorm_lib" / path.name).symlink_to(path)
    return folder


@pytest.fixture
def written(tmp_path):
    write(clone(tmp_path), NAME)
    return tmp_path


def contents(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.suffix in (".py", ".md", ".yml")}


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    root = clone(tmp_path_factory.mktemp("clone"))
    return root, contents(root)


def test_no_method_of_the_library_lacks_a_piece():
    assert missing(ROOT) == []


def test_all_tests_hold_for_a_new_method_at_once(written):
    assert missing(written) == []
    # Its evidence is not among them: reading all records takes longer than all the rest.
    chosen = f"({NAME} or has_a_row or every_page_once or public_object) and not evidence"
    files = map(written.joinpath, RELATED)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *map(str, files)]
    done = subprocess.run(command, cwd=written, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-6000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 40
    lint = [sys.executable, "-m", "ruff"]
    changed = [str(written / path) for path in PIECES if path.endswith(".py")]
    for check in (["check", "-q"], ["format", "-q", "--check"]):
        done = subprocess.run([*lint, *check, *changed], cwd=written, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


RELATED = (
    "tests/methods/test_cases.py", "tests/methods/test_common.py", "tests/methods/test_properties.py",
    "tests/methods/test_counting.py", "tests/methods/test_arguments.py", "tests/book/test_contents.py",
    "tests/book/test_prose.py", "tests/test_own_script.py",
)  # fmt: skip


@pytest.mark.parametrize("path", PIECES)
def test_whichever_piece_is_left_out_is_named(written, path):
    begin = PIECES[path]
    if begin is None:
        (written / path).unlink()
    else:
        whole = (written / path).read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [each for each in whole if not each.startswith(begin)]
        assert len(kept) == len(whole) - 1
        (written / path).write_text("".join(kept), encoding="utf-8")
    (line,) = missing(written)
    assert path in line
    assert NAME in line


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MyMethod", "lower case"),
        ("my-method", "lower case"),
        ("2nd", "lower case"),
        ("lambda", "lower case"),
        ("a__b", "lower case"),
        ("klnorm", "taken"),
        ("plain", "taken"),
        ("frozen", "taken"),
        ("setfit", "taken"),
        ("contract", "taken"),
        ("registry", "taken"),
    ],
)
def test_names_that_are_refused(name, message, untouched):
    root, before = untouched
    with pytest.raises(ValueError, match=message):
        write(root, name)
    assert contents(root) == before


def test_the_command_writes_into_the_checkout_that_it_is_called_in(tmp_path, monkeypatch):
    root = clone(tmp_path)
    monkeypatch.chdir(root / "book")
    assert checkout(root / "book") == root
    result = CliRunner().invoke(cli.app, ["new-method", NAME])
    assert result.exit_code == 0, result.output
    assert all(path in result.stderr for path in PIECES)
    assert missing(root) == []
    again = CliRunner().invoke(cli.app, ["new-method", NAME])
    assert again.exit_code == 2
    assert "taken" in again.stderr


def test_outside_a_checkout_it_says_where_to_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, ["new-method", NAME])
    assert result.exit_code == 2
    assert "clone the repository" in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []
