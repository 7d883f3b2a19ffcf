"""A method sees the training rows once each, and the run's draws, modes and gradients stay as they were."""

from dataclasses import dataclass

import pytest
import torch
from transformers import DataCollatorWithPadding

from klnorm_lib import Dropout, Method, encoders
from klnorm_lib.study.preparing import Batches, prepare

WORDS = ["a good film", "bad", "so long a text that it needs padding", "dull and slow", "fine"]


@dataclass(frozen=True)
class Looking(Method):
    """Keeps what it was shown."""

    seen: tuple = ()
    name = "looking"

    def prepare(self, model, batches):
        torch.rand(3)
        assert not model.training
        rows = []
        for batch in batches:
            model(**batch).loss.backward()
            rows += batch["labels"].tolist()
        model.requires_grad_(False)
        return Looking(tuple(rows))


@pytest.fixture(scope="module")
def nano():
    return encoders.load("klnorm-nano", 5)


def batches(processor, size=2):
    rows = [{**processor(text), "label": i} for i, text in enumerate(WORDS)]
    return Batches(rows, DataCollatorWithPadding(processor), size, "cpu")


def test_every_row_once_with_its_label(nano):
    model, processor = nano
    sizes = [batch["input_ids"].shape[0] for batch in batches(processor)]
    assert sizes == [2, 2, 1]
    (ready,) = prepare([Looking()], model, batches(processor))
    assert ready.seen == (0, 1, 2, 3, 4)


def test_nothing_of_the_run_changes(nano):
    model, processor = nano
    model.train()
    model.classifier.eval()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    plain = Dropout()
    assert prepare([Looking(), plain], model, batches(processor))[1] is plain
    assert torch.equal(torch.rand(2), expected)
    assert model.training
    assert not model.classifier.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_methods_that_need_no_rows_see_none(nano):
    model, _ = nano
    assert prepare([Dropout()], model, None) == [Dropout()]
