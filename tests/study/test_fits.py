"""A further way to fit is one class and its registration: runs, hashes, studies and listings take it as it is."""

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
from typer.testing import CliRunner

from klnorm_lib import cli, methods, study
from klnorm_lib.study import evaluation, fit_protocol, inputs
from klnorm_lib.study.fit_protocol import Fit, featurisers, fit_of, register
from klnorm_lib.study.fits import FITS, linear
from klnorm_lib.sweep import grid, workers
from klnorm_lib.sweep.worker import Job
from tests.study import small


@dataclasses.dataclass(frozen=True)
class Majority(Fit):
    """Predicts the training rows' most frequent class, with a margin."""

    margin: float = 1.0
    name: ClassVar[str] = "majority"
    description: ClassVar[str] = "The most frequent class."
    takes_steps: ClassVar[bool] = False
    shares_features: ClassVar[bool] = True
    featurisers: ClassVar[dict[str, str]] = {"nothing": "no features at all"}
    used_fields: ClassVar[frozenset[str]] = frozenset(
        {"task", "encoder", "method", "method_args", "size", "split_seed", "seed", "data", "text", "label", "device"}
    )

    @classmethod
    def build(cls, run):
        return cls(**run.method_args)

    def hyperparameters(self):
        return {"margin": self.margin}

    def encoder(self, run, task):
        from klnorm_lib.encoders.sources import EncoderSource

        return EncoderSource(run.encoder, "featuriser", run.encoder, None, None)

    def fit(self, inputs, record, reporter):
        counts = np.bincount(inputs.data["train"]["label"], minlength=inputs.task.num_labels)
        row = np.where(counts == counts.max(), self.margin, 0.0)
        record.parameters = {"total": 1, "trainable": 0, "added": 1}
        record.selected = {"step": 1, "C": 1.0, "metric": inputs.task.metrics[0], "rule": evaluation.RULE}
        record.validation = {"accuracy": 0.5, "nll": 1.0}
        record.evaluations = [{"step": 1, "train_loss": 1.0, "penalty": None, "validation": record.validation}]
        return {n: np.tile(row, (len(split), 1)) for n, split in inputs.data.items() if n != "validation"}


@pytest.fixture
def majority(monkeypatch):
    monkeypatch.setattr(fit_protocol, "_fits", dict(fit_protocol._fits))
    return register(Majority)


@pytest.fixture
def run(majority, reviews):
    return study.Run(None, "nothing", "majority", data=str(reviews), text="words", label="verdict", device="cpu")


def test_a_further_fit_runs_and_is_recorded(run, tmp_path):
    records = tmp_path / "r.jsonl"
    record = study.run(run, records, progress=False)
    assert record.method["fields"] == {"margin": 1.0}
    assert record.test["accuracy"] == pytest.approx(0.5)
    assert study.hash_of_record(record) == record.hash
    assert study.run(run, records, progress=False).already_done
    wider = dataclasses.replace(run, method_args={"margin": 3.0})
    assert study.run_hash(wider) != record.hash
    assert "--learning-rate" not in record.command


def test_its_statements_are_heeded(run, encoder, reviews):
    with pytest.raises(ValueError, match="'majority' takes no gradient steps, so steps would have no effect"):
        study.run(dataclasses.replace(run, steps=7), progress=False)
    with pytest.raises(ValueError, match="nothing has no weights to fine-tune: use it with method 'majority'"):
        study.run(dataclasses.replace(run, method="plain"), progress=False)
    assert featurisers()["nothing"] == "no features at all, only with method majority"


def test_studies_and_listings_take_it(run):
    text = """
    common: {steps: 6, batch_size: 8, max_length: 16}
    arms: {majority: {method: majority, encoder: nothing}, plain: {settings: {learning_rate: 1e-3}}}
    parts: {p: {tasks: {topic_shift: [40]}, encoders: [klnorm-nano], arms: all, draws: 3}}
    """
    runs = [item.run for item in grid.parse(text, "s").final([])]
    assert {r.steps for r in runs if r.method == "majority"} == {study.Run("t", "e").steps}
    assert {r.steps for r in runs if r.method == "plain"} == {6}
    jobs = [Job(number, r) for number, r in enumerate(runs)]
    assert [len(batch) for batch in workers.batches(jobs, 2)] == [1, 1, 1, 2, 1]
    listed = CliRunner().invoke(cli.app, ["methods"])
    assert "The most frequent class." in " ".join(listed.output.split())


def test_a_method_of_another_package_may_not_hide_behind_a_fit(monkeypatch):
    class Theirs(methods.Method):
        name = "frozen"

    monkeypatch.setattr(methods, "REGISTRY", {"frozen": Theirs})
    with pytest.raises(ValueError, match="'frozen' is a way to fit, and .*Theirs is a method of that name; rename"):
        inputs.build_fit(study.Run("trec", "klnorm-tiny", "frozen"))


def test_a_name_is_given_once(majority):
    with pytest.raises(ValueError, match="'frozen' already"):
        register(type("Other", (Majority,), {"name": "frozen"}))
    assert register(majority) is fit_of("majority") is Majority


@pytest.mark.parametrize("fit", FITS, ids=lambda fit: fit.name)
def test_a_fit_reads_only_fields_that_there_are(fit):
    fields = {f.name for f in dataclasses.fields(study.Run)}
    assert fit.used_fields <= fields
    assert {
        "task",
        "data",
        "encoder",
        "method",
        "method_args",
        "size",
        "split_seed",
        "seed",
        "device",
    } <= fit.used_fields
    assert fit.takes_steps == ({"steps", "learning_rate"} <= fit.used_fields)


def tied(grid, task, rows, labels):
    """As ``linear.tried``, with the same scores for every C."""
    for c, model, scores, _ in REAL(grid, task, rows, labels):
        yield c, model, {**scores, "validation": {"accuracy": 0.5, "macro_f1": 0.5, "nll": 1.0}}, (0.5, -1.0)


REAL = linear.tried


@pytest.mark.parametrize("method", ["frozen", "setfit"])
def test_among_ties_the_earliest_step_and_the_smallest_c_are_chosen(encoder, reviews, monkeypatch, method):
    monkeypatch.setattr(linear, "tried", tied)
    if method == "frozen":
        run = study.Run(None, str(encoder), "frozen", data=str(reviews), text="words", label="verdict", device="cpu")
    else:
        run = small.run(encoder, reviews, method="setfit")
    record = study.run(dataclasses.replace(run, method_args={"grid": [1.0, 10.0, 100.0]}), progress=False)
    assert (record.selected["C"], record.selected["step"]) == (1.0, record.evaluations[0]["step"])
    assert len(record.evaluations) > 1
