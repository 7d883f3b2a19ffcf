"""`klnorm tasks`, `klnorm methods` and `klnorm encoders`."""

import json

import pytest

from tests.cli import call


@pytest.mark.parametrize("command", ["tasks", "methods", "encoders"])
def test_lists_parse_as_json(command):
    rows = json.loads(call(command, "--json").stdout)
    assert isinstance(rows, list)
    assert all(row["name"] for row in rows)
    plain = call(command).stdout
    assert all(row["name"] in plain for row in rows)


def test_rows_of_recordings_are_counted_without_opening_them(monkeypatch):
    from klnorm_lib.tasks import audio

    monkeypatch.setattr(audio, "decode", lambda *a: pytest.fail("a sound file was decoded"))
    rows = {row["name"]: row for row in json.loads(call("tasks", "--json").stdout)}
    assert set(rows["spoken_words"]["rows"]) == {"train", "validation", "test"}
    assert min(rows["spoken_words"]["rows"].values()) > 0
    assert rows["spoken_words"]["sources"] == ["built-in"]
    assert rows["superb_ks"]["sources"] == ["hub"]


def test_methods_tell_their_defaults():
    rows = {row["name"]: row for row in json.loads(call("methods", "--json").stdout)}
    assert rows["klnorm"]["fields"]["beta"] == 1e-3
    assert "plain" in rows
    assert all(row["description"] for row in rows.values())


def test_one_method_tells_what_its_hyperparameters_are():
    (row,) = json.loads(call("methods", "klnorm", "--json").stdout)
    shown = " ".join(call("methods", "klnorm").stdout.split())
    assert all(name in shown for name in row["fields"])
    assert "rank of the low-rank heads, at least 1" in shown
    assert "no method 'klnrom' (did you mean klnorm?); there are" in call("methods", "klnrom", code=2).stderr
