"""Code that comes with a checkpoint is refused, and files outside a folder are."""

import ast
import json
from pathlib import Path

import pytest

import klnorm_lib
from klnorm_lib import encoders, load
from klnorm_lib.encoders.language_model import load_language_model
from klnorm_lib.encoders.no_code import inside
from tests import zoo


def calls_that_leave_it_open(source):
    tree = ast.parse(source)
    peft = {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "peft" for a in n.names}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "from_pretrained"):
            continue
        given = {k.arg: k.value for k in node.keywords}.get("trust_remote_code")
        refused = isinstance(given, ast.Constant) and given.value is False
        if not refused and getattr(node.func.value, "id", "") not in peft:
            yield node.lineno


def test_every_from_pretrained_refuses_code():
    files = sorted(Path(klnorm_lib.__file__).parent.rglob("*.py"))
    assert {f.name: list(calls_that_leave_it_open(f.read_text("utf-8"))) for f in files} == {f.name: [] for f in files}
    assert list(calls_that_leave_it_open("AutoModel.from_pretrained('x')")) == [1]


@pytest.mark.parametrize("opens", [lambda folder: encoders.load(folder, 2), load_language_model, load])
def test_a_configuration_with_code_is_refused_and_nothing_runs(opens, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question on the terminal"))
    folder, marker = tmp_path / "model", tmp_path / "ran"
    zoo.build("bert").save_pretrained(folder)
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass OwnConfig: ...\n")
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"model_type": "own-architecture", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    settings["klnorm"] = {"format": 1, "methods": []}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="Python code of its own"):
        opens(str(folder))
    assert not marker.exists()


def test_a_saved_model_of_an_unknown_architecture_names_it(tmp_path):
    zoo.build("bert").save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings |= {"model_type": "of-next-year", "klnorm": {"format": 1, "methods": []}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="'of-next-year', which transformers"):
        load(tmp_path)


def test_names_that_lead_out_of_a_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "other").write_text("")
    (folder / "link").symlink_to(tmp_path / "other")
    for name in ("../other", str(tmp_path / "other"), "link"):
        with pytest.raises(ValueError, match="outside"):
            inside(folder, name, "index.json")
    assert inside(folder, "model.safetensors", "index.json") == folder / "model.safetensors"
