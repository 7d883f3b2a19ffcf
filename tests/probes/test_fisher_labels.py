"""Labels of the losses that are known by class: which are not counted, and which are refused, in all three ways."""

import warnings

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from torch import nn

from klnorm_lib.probes import diagonal_fisher
from klnorm_lib.probes.fisher import FisherSum
from klnorm_lib.probes.landscape.evaluation import MeanLoss
from tests.probes import language

METHODS = ("hooks", "func", "loop")
ROWS = 6


def classifier(outputs=3, **config):
    return language.build("bert-classifier", num_labels=outputs, **config)


def batch_with(labels, kind="classification", rows=ROWS):
    return language.batch(kind, rows, 8) | {"labels": torch.as_tensor(labels)}


def all_ways(model, batches):
    """The Fisher information in the three ways, found equal, and what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = [diagonal_fisher(model, batches, method=method, progress=False) for method in METHODS]
    for way in found[:2]:
        assert max(language.apart(way, found[2]).values()) < 1e-5
    return found[2], [str(w.message) for w in said]


def refused(model, batch, match, error=ValueError):
    for method in METHODS:
        with pytest.raises(error, match=match):
            diagonal_fisher(model, [batch], method=method, progress=False)


def test_rows_of_a_classifier_without_a_label_are_not_counted():
    model, labels = classifier(), torch.tensor([0, 1, 2, 0, 1, 2])
    labels[[0, 2, 3, 5]] = -100
    batch = batch_with(labels)
    found, said = all_ways(model, [batch])
    true, _ = all_ways(model, [{k: v[[1, 4]] for k, v in batch.items()}])
    assert max(language.apart(found, true).values()) < 1e-5
    assert len(said) == 3
    assert all("4 sequences have no label, so no loss; they are not counted" in text for text in said)
    refused(model, batch_with([-100] * ROWS), "no sequence with a label")


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ([0, 1, -1, 0, 1, 2], "label -1 of sequence 2 must be 0 to 2, or -100"),
        ([0, 1, 2, 0, 3, 7], "label 3 of sequence 4 must be 0 to 2.* 1 more"),
        ([0, 1, 2, 0, -99, 2], "label -99 of sequence 4"),
        ([0.0, 1.0, 2.0, 0.0, 1.0, 2.0], "whole numbers"),
        ([[0, 1]] * ROWS, r"shape \(6, 2\).* do not fit a classifier with 3 outputs"),
        ([[0.0, 1.0, float("nan")]] * ROWS, "label nan of sequence 0 .at 2. must be 0 or 1"),
        ([[0, 1, 2]] * ROWS, "label 2 of sequence 0 .at 2. must be 0 or 1"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, match):
    refused(classifier(), batch_with(labels), match)


def test_sequences_are_counted_over_all_batches():
    model = classifier()
    good, bad = batch_with([0, 1, 2, 0, 1, 2]), batch_with([0, 1, 2, 0, 1, 5])
    for method in METHODS:
        with pytest.raises(ValueError, match="label 5 of sequence 11 "):
            diagonal_fisher(model, [good, bad], method=method, progress=False)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 1)])
def test_whole_numbers_of_any_width_are_classes(dtype, shape):
    model, labels = classifier(), torch.tensor([0, 1, 2, 0, 1, 2])
    found, _ = all_ways(model, [batch_with(labels.to(dtype).view(shape))])
    true, _ = all_ways(model, [batch_with(labels)])
    assert max(language.apart(found, true).values()) < 1e-6


@pytest.mark.parametrize("labels", [[0.5, -100.0, 3.0, 1.0, -1.0, 0.0], [1, -100, 3, 1, -1, 0]])
def test_scores_of_a_regression_may_be_any_number(labels):
    """As in transformers, -100 is a score like any other."""
    model = classifier(1)
    _, said = all_ways(model, [batch_with(labels)])
    assert not said
    with FisherSum(model) as fisher:
        losses = fisher.add(batch_with(labels))
    assert torch.isclose(losses.mean(), model.eval()(**batch_with(torch.tensor(labels).float())).loss)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_refused(bad):
    refused(classifier(1), batch_with([0.5, 1.0, bad, 1.0, 0.0, 0.0]), "of sequence 2 must be a finite number")


@pytest.mark.parametrize("config", [{}, {"problem_type": "multi_label_classification"}])
def test_several_labels_a_row(config):
    model, labels = classifier(**config), torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0]] * 2)
    found, _ = all_ways(model, [batch_with(labels)])
    true, _ = all_ways(model, [batch_with(labels.float())])
    assert max(language.apart(found, true).values()) < 1e-6
    labels[1] = -100
    found, said = all_ways(model, [batch_with(labels)])
    kept = {k: v[[0, 2, 3, 4, 5]] for k, v in batch_with(labels).items()}
    assert max(language.apart(found, all_ways(model, [kept])[0]).values()) < 1e-5
    assert all("1 sequences have no label" in text for text in said)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_labels_of_language_models_are_words_of_the_vocabulary(name):
    model, kind = language.build(name), language.MODELS[name][3]
    batch = language.batch(kind, 3, 8)
    true, _ = all_ways(model, [batch])
    found, _ = all_ways(model, [batch | {"labels": batch["labels"].int()}])
    assert max(language.apart(found, true).values()) < 1e-6
    for bad in (-1, language.WORDS, 10**6):
        labels = batch["labels"].clone()
        labels[1, 2] = bad
        refused(
            model, batch | {"labels": labels}, rf"label {bad} of sequence 1 .at 2. must be 0 to {language.WORDS - 1}"
        )
    refused(model, batch | {"labels": batch["labels"].float()}, "whole numbers")
    refused(model, batch | {"labels": batch["labels"][:, 0]}, r"shape \(batch, tokens\)")


def test_labels_that_are_not_there_or_have_another_name():
    model, batch = classifier(), batch_with([0, 1, 2, 0, 1, 2])
    labels = batch.pop("labels")
    refused(model, batch, "no labels; give them as a tensor 'labels'")
    refused(model, batch | {"labels": None}, "no labels")
    refused(model, batch | {"label": labels}, "rename 'label' to 'labels'")


def test_what_is_no_list_of_labels_is_refused():
    model, batch = classifier(), batch_with([0, 1, 2, 0, 1, 2])
    refused(model, batch | {"labels": torch.tensor(1)}, "one row a sequence")
    refused(classifier(problem_type="multiple choice"), batch, "problem_type is 'multiple choice'; it must be one of")


def test_a_head_of_another_size_than_the_config_says():
    model = classifier()
    model.classifier = nn.Linear(language.WIDTH, 5)
    all_ways(model, [batch_with([0, 1, 2, 4, 4, 3])])
    refused(model, batch_with([0, 1, 2, 4, 5, 3]), "label 5 of sequence 4 must be 0 to 4")


def test_the_mean_loss_counts_the_same_sequences():
    model, labels = classifier().eval(), [0, -100, 2, -100, -100, 1]
    batch = batch_with(labels)
    state = torch.get_rng_state()
    mean = MeanLoss(model.train(), [batch])
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    model.eval()
    with torch.no_grad():
        assert torch.isclose(mean.at({}), model(**batch).loss.double())
    with pytest.raises(ValueError, match="label 3 of sequence 7"):
        MeanLoss(model, [batch, batch_with([0, 3, 2, 0, 0, 0])])
    with pytest.raises(ValueError, match="no sequence"):
        MeanLoss(model, [batch_with([-100] * ROWS)])


def test_prompts_of_peft_are_seen():
    """Their parameters lie outside of the model, whose own forward knows nothing of them."""
    model = get_peft_model(classifier(), PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2))
    found, _ = all_ways(model, [batch_with([0, 1, 2, 0, 1, 2])])
    prompts = [n for n in found if "prompt" in n]
    assert prompts
    assert all(found[n].any() for n in prompts)
