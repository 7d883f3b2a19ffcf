"""Tables, numbers and the version stamp, from records made here."""

import dataclasses

import pandas as pd
import pytest

from klnorm_lib import pages, study
from tests.pages import made
from tests.study import small


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    encoder, reviews = small.encoder(folder / "small"), small.csv(folder / "reviews.csv")
    path = folder / "few.jsonl"
    asked = small.run(encoder, reviews, steps=1, evaluations=1)
    for seed in (1, 0):
        study.run(dataclasses.replace(asked, seed=seed), path, progress=False)
    study.run(dataclasses.replace(asked, method="klnorm", method_args={"beta": 0.1}), path, progress=False)
    with pytest.raises(study.NotFiniteError):
        study.run(dataclasses.replace(asked, learning_rate=1e36, max_grad_norm=1e30, steps=3), path, progress=False)
    return path


def test_frame_has_a_row_for_every_record(records):
    frame = pages.frame(study.read_records(records))
    assert list(frame["status"]) == ["finished"] * 3 + ["failed"]
    assert list(frame["seed"]) == [1, 0, 0, 0]


def test_summary_shows_every_point_and_the_number_of_runs(records):
    found = study.read_records(records)
    table = pages.summary(found)
    assert list(table["runs"]) == [2, 1]
    assert list(table["method"]) == ["plain", "klnorm(beta=0.1)"]
    by_seed = {r.run["seed"]: r.test["accuracy"] for r in found if r.method["name"] == "plain" and r.error is None}
    assert table["test, every run"][0] == f"{by_seed[0]:.3f}  {by_seed[1]:.3f}"
    assert table["mean"][0] == pytest.approx((by_seed[0] + by_seed[1]) / 2)
    assert pd.isna(table["mean"][1])  # one run has no mean


def test_tuning_runs_are_no_results(tmp_path):
    path = tmp_path / "text.jsonl"
    path.write_text("".join(record.to_line() for record in made.study()), encoding="utf-8")
    found = study.read_records(path)
    assert sum(pages.frame(found)["stage"] == "tuning") == 2
    assert set(pages.summary(found)["runs"]) == {3}


def test_markdown_escapes_and_aligns():
    table = pd.DataFrame({"a|b": ["x|y"], "n": [0.12345], "none": [None]})
    lines = pages.to_markdown(table).splitlines()
    assert lines[0] == "| a\\|b | n | none |"
    assert lines[1].split("|")[2].strip() == "---:"
    assert lines[2] == "| x\\|y | 0.123 | – |"


def test_empty_tables_say_so():
    assert "No records" in pages.to_markdown(pages.summary([]))


def test_number_is_looked_up_or_refused(records):
    found = study.read_records(records)
    value = pages.number(found, "test.accuracy", method="klnorm")
    assert value == next(r for r in found if r.method["name"] == "klnorm").test["accuracy"]
    with pytest.raises(LookupError, match="2 finished records fit"):
        pages.number(found, "test.accuracy", method="plain")
    with pytest.raises(LookupError, match="0 finished records fit method='vib'"):
        pages.number(found, "test.accuracy", method="vib")
    with pytest.raises(LookupError, match="it has accuracy"):
        pages.number(found, "test.f2", method="klnorm")


def test_versions_read_as_text_and_html():
    stamp = pages.versions()
    assert stamp["torch"] in repr(stamp)
    assert f"<td style='text-align:left'>{stamp['python']}</td>" in stamp._repr_html_()
    assert {"python", "transformers", "processor", "memory"} <= set(stamp)
