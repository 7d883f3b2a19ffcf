"""The frozen baseline: right features, C chosen on validation, the same numbers twice, and errors that help."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from klnorm_lib import cli, encoders, study
from klnorm_lib.study import features
from klnorm_lib.study.fits import Frozen
from tests.study import small
from tests.study.test_run import numbers


def frozen_run(name, reviews, **fields):
    run = study.Run(None, str(name), "frozen", data=str(reviews), text="words", label="verdict", device="cpu")
    return dataclasses.replace(run, **fields)


@pytest.fixture
def nothing_kept():
    features._kept.clear()


@pytest.mark.parametrize("name", ["small", "small:random", "tf-idf"])
def test_same_run_gives_the_same_numbers_from_memory_or_anew(encoder, reviews, name, nothing_kept):
    run = frozen_run(name if name == "tf-idf" else f"{encoder}{name.removeprefix('small')}", reviews)
    first, kept = study.run(run, progress=False), study.run(run, progress=False)
    features._kept.clear()
    torch.manual_seed(5)
    anew = study.run(run, progress=False)
    assert numbers(first) == numbers(kept) == numbers(anew)
    assert first.gap["accuracy"] == first.train["accuracy"] - first.test["accuracy"]
    assert 0 <= first.calibration["test"]["ece"] <= 1
    study.Record.from_dict(json.loads(first.to_line()))


def test_seed_matters_only_for_weights_drawn_afresh(encoder, reviews):
    def test_loss(name, seed):
        return study.run(frozen_run(name, reviews, seed=seed), progress=False).test["nll"]

    assert test_loss(encoder, 0) == test_loss(encoder, 1)
    assert test_loss(f"{encoder}:random", 0) != test_loss(f"{encoder}:random", 1)


def test_features_are_the_mean_over_tokens_whatever_the_padding(encoder):
    model, processor = encoders.load(str(encoder), 2)
    texts = ["the film", "the book was not very good and the room was cold"]
    together = features._texts(model.base_model, processor, texts, 64, "cpu")
    for text, row in zip(texts, together, strict=True):
        hidden = model.base_model(**processor(text, return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(row, hidden.mean(0).detach(), atol=1e-5)


def test_pairs_are_four_blocks(encoder, tmp_path):
    u, v = np.array([[1.0, 2.0]]), np.array([[3.0, -1.0]])
    assert features.four(u, v).tolist() == [[1, 2, 3, -1, 2, 3, 3, -2]]
    pairs = tmp_path / "pairs.csv"
    lines = [f"the {a},the {b},{'same' if a == b else 'other'}" for a in small.WORDS[:9] for b in small.WORDS[:9]]
    pairs.write_text("\n".join(["first,second,verdict", *lines]))
    for name, block in ((str(encoder), 32), ("tf-idf", None)):
        run = study.Run(None, name, "frozen", data=str(pairs), text="first", text_pair="second", label="verdict")
        record = study.run(run, progress=False)
        assert record.task["kind"] == "pair"
        weights = record.parameters["trainable"] - 1
        assert weights == 4 * block if block else weights % 4 == 0


def test_standardised_rows_have_length_one_on_average():
    rng = np.random.default_rng(0)
    parts = features.standardised({"train": rng.normal(3, 7, (50, 20)), "test": rng.normal(3, 7, (5, 20))})
    assert (parts["train"] ** 2).sum(1).mean() == pytest.approx(1.0)
    assert parts["train"].mean(0) == pytest.approx(0, abs=1e-12)


def test_tf_idf_learns_words_from_the_training_rows_only():
    splits = {"train": {"t": ["good film", "bad film"]}, "test": {"t": ["good good plot", "unseen words"]}}
    rows = features.tf_idf(splits, ["t"])
    assert rows["train"].shape == (2, 5)  # good, bad, film, good film, bad film
    assert rows["test"][1].nnz == 0
    assert rows["test"][0].data == pytest.approx([1.0])


def test_c_is_chosen_on_validation_among_the_grid(encoder, reviews):
    grid = [0.01, 1.0, 100.0]
    record = study.run(frozen_run(encoder, reviews, method_args={"grid": grid}), progress=False)
    assert [e["C"] for e in record.evaluations] == grid
    best = max(record.evaluations, key=lambda e: (e["validation"]["accuracy"], -e["validation"]["nll"]))
    assert record.selected["C"] == best["C"]
    assert record.validation == best["validation"]
    assert record.method["fields"] == {"grid": grid}


def test_the_numbers_are_those_of_scikit_learn(encoder, reviews):
    run = frozen_run("tf-idf", reviews, method_args={"grid": [10.0]})
    record = study.run(run, progress=False)
    from klnorm_lib import tasks

    data, task, _ = tasks.from_file(str(reviews), "words", None, "verdict")
    rows = features.tf_idf(data, task.text_columns)
    model = LogisticRegression(C=10.0, max_iter=2000).fit(rows["train"], data["train"]["label"])
    assert record.test["accuracy"] == model.score(rows["test"], data["test"]["label"])
    assert record.parameters == {"total": rows["train"].shape[1] + 1, "trainable": rows["train"].shape[1] + 1} | {
        "added": rows["train"].shape[1] + 1
    }


def test_regression_is_ridge(encoder, tmp_path):
    scores = small.csv(tmp_path / "scores.csv", scores=True)
    for name in (encoder, "tf-idf"):
        record = study.run(frozen_run(str(name), scores), progress=False)
        assert set(record.test) == {"pearson", "spearman", "mse"}
        assert record.calibration == {"test": {}, "ood": {}}
    assert record.test["spearman"] > 0.5  # the score is one word of the text


def test_finished_run_is_not_done_again(encoder, reviews, tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    first = study.run(frozen_run(encoder, reviews), path, progress=False)
    monkeypatch.setattr(Frozen, "fit", lambda *a: pytest.fail("fitted again"))
    assert study.run(frozen_run(encoder, reviews, method_args={"grid": list(first.method["fields"]["grid"])}), path)


def test_out_of_domain_rows_are_merged_or_left_alone(encoder):
    run = study.Run("topic_shift", "tf-idf", "frozen", size=40)
    record = study.run(run, progress=False)
    assert record.ood
    assert set(record.calibration["ood"]) == set(record.ood)
    alone = study.run(dataclasses.replace(run, ood=False), progress=False)
    assert alone.ood == {}
    assert alone.test == record.test
    assert alone.hash != record.hash
    assert "--no-ood" in alone.command
    assert "ood" not in record.run
    assert not [name for name in (*alone.rows, *alone.task["checksums"]) if name.startswith("ood")]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoder": "log-mel"}, "use encoder 'tf-idf'"),
        ({"encoder": "tf-idf", "method": "plain"}, "no weights to fine-tune"),
        ({"encoder": "tf-idf", "method": "klnorm"}, "no weights to fine-tune"),
        ({"learning_rate": 1e-3, "steps": 7}, "steps, learning_rate would have no effect"),
        ({"method_args": {"C": 1}}, "no hyperparameter C"),
        ({"method_args": {"grid": [1, -1]}}, "positive values of C"),
        ({"method_args": {"grid": []}}, "positive values of C"),
        ({"method_args": {"grid": [1, 1.0]}}, "different"),
        ({"method_args": {"grid": "all"}}, "positive values of C"),
    ],
)
def test_what_cannot_be_done_is_said(encoder, reviews, tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        study.run(frozen_run(encoder, reviews, **fields), tmp_path / "r.jsonl", progress=False)
    assert not (tmp_path / "r.jsonl").exists()


def test_command_line_runs_and_lists_it(reviews, tmp_path):
    words = ["run", "--data", reviews, "--text", "words", "--label", "verdict", "--method", "frozen"]
    words += ["--encoder", "tf-idf", "--records", tmp_path / "r.jsonl", "--json", "--method-arg", "grid=[1, 10]"]
    result = CliRunner().invoke(cli.app, list(map(str, words)))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["method"]["fields"] == {"grid": [1.0, 10.0]}
    for command, names in (("methods", ["frozen"]), ("encoders", ["tf-idf", "log-mel"])):
        listed = [row["name"] for row in json.loads(CliRunner().invoke(cli.app, [command, "--json"]).stdout)]
        assert set(names) <= set(listed)
