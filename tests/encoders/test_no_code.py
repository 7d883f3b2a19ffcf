"""Code that comes with a checkpoint is refused, and files outside a folder are."""

import ast
import json
import shutil
from pathlib import Path

import pytest

import klnorm_lib
from klnorm_lib import encoders, load
from klnorm_lib.encoders.language_model import load_language_model
from klnorm_lib.encoders.no_code import inside
from tests import zoo

OPENS = ("from_pretrained", "from_config")


def calls_that_leave_it_open(source):
    tree = ast.parse(source)
    peft = {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "peft" for a in n.names}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and getattr(node.func, "attr", "") in OPENS):
            continue
        given = {k.arg: k.value for k in node.keywords}.get("trust_remote_code")
        refused = isinstance(given, ast.Constant) and given.value is False
        if not refused and getattr(node.func.value, "id", "") not in peft:
            yield node.lineno


def test_every_from_pretrained_refuses_code():
    files = sorted(Path(klnorm_lib.__file__).parent.rglob("*.py"))
    assert {f.name: list(calls_that_leave_it_open(f.read_text("utf-8"))) for f in files} == {f.name: [] for f in files}
    for call in ("AutoModel.from_pretrained('x')", "AutoModel.from_config(c)", "a.from_config(c, trust_remote_code=t)"):
        assert list(calls_that_leave_it_open(call)) == [1]


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


def test_a_snapshot_of_the_hub_is_inside_its_repository(tmp_path):
    snapshot, blobs = tmp_path / "models--org--name/snapshots/abc", tmp_path / "models--org--name/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "1").write_text("")
    (tmp_path / "other").write_text("")
    (snapshot / "part").symlink_to(blobs / "1")
    (snapshot / "bad").symlink_to(tmp_path / "other")
    assert inside(snapshot, "part", "index.json") == snapshot / "part"
    with pytest.raises(ValueError, match="outside"):
        inside(snapshot, "bad", "index.json")


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("model.safetensors.index.json", {"weight_map": {"a": "../other.safetensors"}}),
        ("model.safetensors.index.json", {"weight_map": {"a": "link.safetensors"}}),
        ("config.json", {"model_type": "bert", "transformers_weights": "../other.safetensors"}),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["../other.safetensors"]}),
        ("tokenizer_config.json", {"vocab_file": "/etc/passwd"}),
    ],
)
def test_an_encoder_that_reads_outside_its_folder_is_refused(file, values, tmp_path):
    folder = tmp_path / "model"
    zoo.build("bert", kind="encoder").save_pretrained(folder)
    (folder / "model.safetensors").rename(tmp_path / "other.safetensors")
    (folder / "model-1.safetensors").write_bytes((tmp_path / "other.safetensors").read_bytes())
    (folder / "link.safetensors").symlink_to(tmp_path / "other.safetensors")
    (folder / file).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"{file} names .* outside"):
        encoders.load(str(folder), 2)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("model.safetensors.index.json", {"weight_map": []}),
        ("model.safetensors.index.json", {"weight_map": {"a": 1}}),
        ("config.json", {"model_type": "bert", "transformers_weights": 3}),
        ("tokenizer_config.json", {"vocab_file": 3}),
    ],
)
def test_something_else_in_place_of_a_file_name_is_told(file, values, tmp_path):
    zoo.build("bert", kind="encoder").save_pretrained(tmp_path)
    (tmp_path / file).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"{file}: {list(values)[-1]} has .* where the name of a file should be"):
        encoders.resolve(str(tmp_path))


def test_the_files_that_were_read_are_fingerprinted(tmp_path):
    found = encoders.resolve("klnorm-nano")
    files = found.files()
    assert files["model.safetensors"] == found.sha256
    assert {"config.json", "tokenizer.json"} < set(files)
    assert "model.safetensors" not in encoders.resolve("klnorm-nano:random").files()
    folder = tmp_path / "copy"
    shutil.copytree(found.location, folder)
    assert encoders.resolve(str(folder)).files() == files
    (folder / "tokenizer_config.json").write_text("{}")
    changed = encoders.resolve(str(folder))
    assert changed.sha256 == found.sha256  # the hash of a record stays, and its files say what was other
    assert {name for name in files if changed.files()[name] != files[name]} == {"tokenizer_config.json"}
