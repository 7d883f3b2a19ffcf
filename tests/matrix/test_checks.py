"""The matrix on a fixed sample of architectures, and that each of its checks can find a fault."""

import pytest
import torch
from torch import nn

import klnorm_lib
from klnorm_lib.methods import klnorm, penalty
from klnorm_lib.sites import axes
from tests.matrix import architectures, checks, dropouts, penalties, run

SAMPLE = (
    "text/bert",
    "text/gemma2",
    "text/modernbert",
    "text/opt",
    "text/t5",
    "audio/wav2vec2",
    "audio/whisper",
    "image/vit",
)


@pytest.mark.parametrize("check", checks.CHECKS)
@pytest.mark.parametrize("name", SAMPLE)
def test_no_fault(name, check):
    answer = checks.run(name, check)
    allowed = ("ok",) if name == "text/bert" else ("ok", "refused", "depends", checks.NOT_APPLICABLE)
    assert answer.split(":")[0] in allowed, answer


@pytest.mark.parametrize(
    "name", ["text/cohere_compass_text", "text/eurobert", "text/gemma3", "text/t5gemma2", "image/imagegpt"]
)
def test_the_classified_position_is_found_whatever_the_code_of_the_model(name):
    assert checks.run(name, "pooled") == "ok"


def test_padding_is_left_out_where_the_model_takes_no_mask():
    assert checks.run("text/fnet", "internal") == "ok"


def doubled(monkeypatch, target, name):
    kept = getattr(target, name)
    monkeypatch.setattr(target, name, lambda *args, **kwargs: 2 * kept(*args, **kwargs))


def test_pooled_finds_a_penalty_twice_as_large(monkeypatch):
    doubled(monkeypatch, klnorm.KLNormLayer, "_kl")
    assert checks.run("text/bert", "pooled").startswith("FAULT: the penalty is ")


def test_pooled_finds_positions_that_are_never_classified(monkeypatch):
    monkeypatch.setattr(penalty.PenaltyLayer, "positions", lambda self, x: None)
    assert checks.run("text/gpt2", "pooled").startswith("FAULT: the penalty is ")


def test_pooled_finds_a_penalty_without_gradient(monkeypatch):
    kept = klnorm.KLNormLayer.penalise
    monkeypatch.setattr(klnorm.KLNormLayer, "penalise", lambda self, kl, x=None: kept(self, kl.detach(), x))
    monkeypatch.setattr(klnorm.GaussianHeads, "forward", lambda self, x: (x * 0.0, torch.ones_like(x)))
    assert "FAULT" in checks.run("text/bert", "pooled")


def test_internal_finds_another_function_at_the_start(monkeypatch):
    kept = klnorm.measure_norm

    def off(*args):
        found = kept(*args)
        return klnorm.MeasuredNorm(found.statistics, found.eps, 1.01 * found.gamma, found.bias, found.channels_first)

    monkeypatch.setattr(klnorm, "measure_norm", off)
    answer = checks.run("text/bert", "internal")
    assert answer.startswith("FAULT: logits of ")
    assert answer.endswith("at the start")


def test_internal_finds_padding_that_is_counted(monkeypatch):
    monkeypatch.setattr(axes, "real_positions", lambda config, mask, length: None)
    assert checks.run("text/bert", "internal").startswith("FAULT: the penalty of bert.")


def test_internal_finds_padding_counted_in_another_order_of_axes(monkeypatch):
    monkeypatch.setattr(axes.Positions, "arrange", lambda self, values, memory, strides=(): values)
    monkeypatch.setattr(axes.Positions, "check", lambda self, values: None)
    assert checks.run("text/qwen3", "internal").startswith("FAULT: the penalty beside 16 more pads")


@pytest.mark.parametrize("check", ["dropout", "guided"])
def test_a_dropout_that_keeps_its_rate_is_found(monkeypatch, check):
    kept = dropouts.measured_rates

    def one_lost(model, batch):
        next(m for m in model.modules() if isinstance(m, nn.Dropout) and m.p > 0).p = 0.7
        return kept(model, batch)

    monkeypatch.setattr(dropouts, "measured_rates", one_lost)
    assert "masks at 0.7" in checks.run("text/bert", check)


def test_fisher_finds_one_tensor_that_is_off(monkeypatch):
    kept = checks.diagonal_fisher

    def off(model, batches, method="hooks", progress=True):
        found = kept(model, batches, method=method, progress=progress)
        if method == "hooks":
            found["bert.encoder.layer.0.output.dense.bias"] *= 1.01
        return found

    monkeypatch.setattr(checks, "diagonal_fisher", off)
    assert checks.run("text/bert", "fisher").startswith("FAULT: bert.encoder.layer.0.output.dense.bias")


def test_saved_finds_a_weight_that_changes(monkeypatch):
    kept = klnorm_lib.load

    def changed(folder):
        model = kept(folder)
        next(model.parameters()).data[5:] += 1e-3
        return model

    monkeypatch.setattr(klnorm_lib, "load", changed, raising=False)
    assert checks.run("text/bert", "saved").startswith("FAULT: pooled, load: logits")


def test_padding_that_moves_logits_is_named():
    assert checks.run("text/fnet", "padding").startswith("depends: logits move by ")
    assert checks.run("image/vit", "padding") == checks.NOT_APPLICABLE


def test_an_error_of_another_library_is_a_fault_and_no_refusal(monkeypatch):
    monkeypatch.setattr(klnorm.KLNormLayer, "_normalise", lambda self, x: x @ x)
    assert checks.run("text/bert", "internal").startswith("FAULT: RuntimeError in ")


def test_a_norm_that_is_another_function_is_found_inside_a_language_model(monkeypatch):
    assert checks.checks_of("causal/mamba") == ["start"]
    assert checks.run("causal/mamba", "start") == "ok"
    monkeypatch.setattr(penalties, "logits_of", lambda model, batch: torch.rand(3, 4))
    assert checks.run("causal/mamba", "start").startswith("FAULT: logits of ")


def test_the_record_goes_on_where_it_ended(tmp_path, monkeypatch):
    out = tmp_path / "part.json"
    answered = []

    def all_answers(names, jobs, minutes):
        for name in names[:2]:
            answered.append(name)
            yield name, {"pooled": "ok"} if name != "text/arcee" else {"not built": "too large"}

    monkeypatch.setattr(run, "all_answers", all_answers)
    monkeypatch.setattr("sys.argv", ["run", "--out", str(out)])
    run.main()
    run.main()
    assert answered == architectures.names()[:4]


def test_a_process_that_ends_early_leaves_faults():
    found = run.closed("text/bert", {"pooled": "ok"}, "the process ended with -9")
    assert found == {name: "ok" if name == "pooled" else "FAULT: the process ended with -9" for name in checks.CHECKS}
