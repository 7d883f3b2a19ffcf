"""The SetFit-style arm: its loss, its pairs, one budget, the choice on validation, the same numbers twice."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from klnorm_lib import cli, encoders, study
from klnorm_lib.study import features
from klnorm_lib.study.fits import contrast
from klnorm_lib.tasks import audio_cache
from tests.study import hearing, small
from tests.study.test_run import numbers


def setfit_run(name, reviews, **fields):
    return dataclasses.replace(small.run(name, reviews, method="setfit"), **fields)


@pytest.fixture(scope="module")
def record(encoder, reviews):
    return study.run(setfit_run(encoder, reviews, steps=12, evaluations=3), progress=False)


def cosines(e):
    unit = e / e.norm(dim=1, keepdim=True)
    return unit @ unit.T


def test_loss_is_the_mean_over_pairs_of_each_kind():
    e = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 0, 2, 1])
    c, pairs = cosines(e), [(i, j) for i in range(5) for j in range(i + 1, 5)]
    same = [(1 - c[i, j]) ** 2 for i, j in pairs if labels[i] == labels[j]]
    other = [c[i, j] ** 2 for i, j in pairs if labels[i] != labels[j]]
    assert (len(same), len(other)) == (2, 8)
    expected = sum(same) / len(same) / 2 + sum(other) / len(other) / 2
    torch.testing.assert_close(contrast.contrast(e, labels), expected)


def test_loss_of_one_kind_of_pairs_is_that_kind():
    e = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    c = cosines(e)[[0, 0, 1], [1, 2, 2]]
    torch.testing.assert_close(contrast.contrast(e, torch.zeros(3)), (1 - c).square().mean())
    torch.testing.assert_close(contrast.contrast(e, torch.arange(3)), c.square().mean())


def test_loss_of_scores_wants_a_cosine_that_falls_with_their_distance():
    angle = torch.tensor([0.0, 1.0])
    e = torch.stack([angle.cos(), angle.sin()], 1)
    scores = torch.tensor([2.0, 2.0 + 4 * (1 - float(angle[1].cos()))])
    assert contrast.contrast(e, scores, span=4.0).item() == pytest.approx(0.0, abs=1e-12)
    assert contrast.contrast(e, scores, span=8.0).item() > 1e-3


def test_loss_gradient_is_right():
    e = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([0, 1, 0, 1])
    (gradient,) = torch.autograd.grad(contrast.contrast(e, labels), e)
    assert gradient.abs().sum() > 0
    assert (gradient * e).sum(1).detach() == pytest.approx(torch.zeros(4), abs=1e-6)  # lengths do not matter


def test_partners_are_other_rows_of_the_same_class():
    import datasets

    rows = datasets.Dataset.from_dict({"x": list(range(7)), "label": [0, 0, 0, 1, 1, 1, 2]})
    pairs = contrast.Pairs(rows, False, seed=0)
    drawn = {i: {pairs[i][1]["x"] for _ in range(30)} for i in range(7)}
    assert drawn == {0: {1, 2}, 1: {0, 2}, 2: {0, 1}, 3: {4, 5}, 4: {3, 5}, 5: {3, 4}, 6: {6}}
    assert [pairs[i][0]["x"] for i in range(7)] == list(range(7))
    scores = contrast.Pairs(rows, True, seed=0)
    assert {scores[0][1]["x"] for _ in range(60)} == set(range(1, 7))
    rng, others = np.random.default_rng(3), [[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]]
    pairs = contrast.Pairs(rows, False, seed=3)
    assert [pairs[i][1]["x"] for i in range(6)] == [rng.choice(of_class) for of_class in others]


def test_embedding_is_the_mean_over_tokens_as_for_the_frozen_baseline(encoder):
    model, processor = encoders.load(str(encoder), 2)
    texts = ["the film", "the book was not very good and the room was cold"]
    with torch.no_grad():
        ours = contrast.Embedder(model.base_model.eval(), None)(**processor(texts, padding=True, return_tensors="pt"))
    expected = features._texts(model.base_model, processor, texts, 64, "cpu")
    np.testing.assert_allclose(ours.logits, expected, atol=1e-5)
    assert ours.loss is None


def test_an_encoder_without_hidden_states_is_refused():
    encoder = torch.nn.Linear(2, 2)
    encoder.config, encoder.forward = SimpleNamespace(), lambda **inputs: SimpleNamespace(last_hidden_state=None)
    with pytest.raises(study.StudyError, match="setfit"):
        contrast.Embedder(encoder, None)(input_ids=torch.zeros(1, 2))


def test_training_brings_rows_of_a_class_together(record):
    losses = [e["train_loss"] for e in record.evaluations]
    assert losses[-1] < 0.8 * losses[0]


def test_step_and_c_are_chosen_on_validation(record):
    assert [e["step"] for e in record.evaluations] == [4, 8, 12]
    best = max(record.evaluations, key=lambda e: (e["validation"]["accuracy"], -e["validation"]["nll"], -e["step"]))
    assert (record.selected["step"], record.selected["C"]) == (best["step"], best["C"])
    assert record.validation == best["validation"]
    assert all(e["C"] in record.method["fields"]["grid"] for e in record.evaluations)


def test_record_is_whole(record):
    study.Record.from_dict(json.loads(record.to_line()))
    assert record.gap["accuracy"] == record.train["accuracy"] - record.test["accuracy"]
    assert 0 <= record.calibration["test"]["ece"] <= 1
    assert record.method["added_parameters"] == record.parameters["added"] == 32 + 1
    assert record.parameters["total"] == record.parameters["trainable"]
    scores = study.rows.decode(record.row_scores["test"])
    assert scores.mean() == pytest.approx(record.test["accuracy"])


def test_same_run_gives_the_same_numbers(encoder, reviews):
    run = setfit_run(encoder, reviews)
    first = study.run(run, progress=False)
    torch.manual_seed(5)
    assert numbers(study.run(run, progress=False)) == numbers(first)
    assert numbers(study.run(dataclasses.replace(run, seed=1), progress=False)) != numbers(first)


def test_a_step_sees_as_many_texts_as_in_every_other_arm(encoder, reviews, monkeypatch):
    seen = []
    forward = contrast.Embedder.forward

    def counting(self, labels=None, **inputs):
        if labels is not None:
            seen.append(len(labels))
        return forward(self, labels, **inputs)

    monkeypatch.setattr(contrast.Embedder, "forward", counting)
    study.run(setfit_run(encoder, reviews, steps=3, evaluations=1, gradient_accumulation=2), progress=False)
    assert seen == [4] * 6


def test_scores_and_pairs_of_texts(encoder, tmp_path):
    scores = small.csv(tmp_path / "scores.csv", scores=True)
    record = study.run(setfit_run(encoder, scores), progress=False)
    assert set(record.test) == {"pearson", "spearman", "mse"}
    pairs = tmp_path / "pairs.csv"
    lines = [f"the {a},the {b},{'same' if a == b else 'other'}" for a in small.WORDS[:9] for b in small.WORDS[:9]]
    pairs.write_text("\n".join(["first,second,verdict", *lines]))
    run = setfit_run(encoder, pairs, text="first", text_pair="second")
    assert study.run(run, progress=False).task["kind"] == "pair"


def test_recordings(tmp_path, monkeypatch):
    monkeypatch.setenv(audio_cache.VARIABLE, str(tmp_path / "cache"))
    hears, clips = hearing.encoder(tmp_path / "hears"), hearing.table(tmp_path / "clips")
    record = study.run(hearing.run(hears, clips, method="setfit"), progress=False)
    assert record.task["kind"] == "audio"
    model, processor = encoders.load(str(hears), 2)
    sounds = [np.sin(np.arange(n) / 9).astype(np.float32) for n in (1600, 3200)]
    embedder = contrast.Embedder(model.base_model.eval(), None)

    def heard(clips):
        inputs = processor(clips, sampling_rate=16000, padding=True, return_tensors="pt")
        with torch.no_grad():
            return embedder(**inputs).logits

    torch.testing.assert_close(heard(sounds)[:1], heard(sounds[:1]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 8, "gradient_accumulation": 4}, "batches of 2"),
        ({"batch_size": 5}, "batches of 5"),
        ({"method_args": {"grid": []}}, "positive values of C"),
        ({"method_args": {"rank": 3}}, "no hyperparameter rank"),
        ({"encoder": "tf-idf"}, "no weights to fine-tune"),
    ],
)
def test_what_cannot_be_done_is_refused_before_training(encoder, reviews, fields, message):
    with pytest.raises(ValueError, match=message):
        study.run(setfit_run(encoder, reviews, **fields), progress=False)


def test_the_command_runs_it(encoder, reviews, tmp_path):
    line = [
        "run", "--data", str(reviews), "--text", "words", "--label", "verdict", "--encoder", str(encoder), "--method",
        "setfit", "--steps", "2", "--evaluations", "1", "--batch-size", "4", "--records", str(tmp_path / "r.jsonl"),
    ]  # fmt: skip
    result = CliRunner().invoke(cli.app, line)
    assert result.exit_code == 0, result.output
    (record,) = study.read_records(tmp_path / "r.jsonl")
    assert record.method["name"] == "setfit"
    listed = CliRunner().invoke(cli.app, ["methods"])
    assert "setfit" in listed.output
