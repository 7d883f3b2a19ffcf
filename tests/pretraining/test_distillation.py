"""The teacher: words are matched across vocabularies, and its vectors are learnt and kept."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertForMaskedLM

from klnorm_lib import encoders
from klnorm_lib.pretraining.text.cooccurrence import principal
from klnorm_lib.pretraining.text.distillation import Distiller, Targets, Teacher, mean_by
from klnorm_lib.pretraining.text.pretrain import pretrain
from tests.pretraining.test_pretrain import config, corpus  # noqa: F401

NANO = "klnorm-nano"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "gar", "##den", "gate", "##s", "unbeliev", "##ably"]


@pytest.fixture(scope="module")
def teacher():
    return Teacher(NANO, PIECES, 5, torch.device("cpu"))


def test_words_are_matched_whatever_the_pieces(teacher):
    # the garden gates / unbelievably the the gate
    rows = torch.tensor([[2, 5, 6, 7, 8, 9, 3], [2, 10, 11, 5, 5, 8, 3]])
    targets = teacher.targets(rows)
    assert targets.index.tolist() == [[-1, 0, 1, 1, 2, 2, -1], [-1, 3, 3, 4, 5, 6, -1]]
    assert targets.words.shape == (7, teacher.width)
    # The same by hand, from the teacher's own tokenizer on the plain text.
    model, tokenizer = teacher.model, encoders.load(NANO, 2)[1]
    encoded = tokenizer(["the garden gates"], return_tensors="pt")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        hidden = model(encoded["input_ids"]).last_hidden_state[0].float()
    words = encoded.word_ids(0)
    for w in range(3):
        mine = hidden[[i for i, owner in enumerate(words) if owner == w]].mean(0)
        torch.testing.assert_close(targets.words[w], mine, rtol=0.05, atol=0.05)
    torch.testing.assert_close(targets.sentences[0], hidden.mean(0), rtol=0.05, atol=0.05)


def test_a_row_that_begins_inside_a_word(teacher):
    assert teacher.targets(torch.tensor([[2, 7, 5, 1, 3]])).index.tolist() == [[-1, 0, 1, 2, -1]]


def test_one_vector_a_piece(teacher):
    vectors = teacher.static()
    assert vectors.shape == (len(PIECES), teacher.width)
    assert np.isfinite(vectors).all()
    parts = principal(vectors, 4)
    assert parts.std() == pytest.approx(1, abs=1e-4)
    gram = parts.T @ parts
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-3)


def test_distance_is_zero_at_the_teacher_and_ignores_what_it_cut_off():
    torch.manual_seed(0)
    distiller = Distiller(6, 6)
    for layer in (distiller.words, distiller.sentences):
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    hidden, index = torch.randn(2, 3, 6), torch.tensor([[-1, 0, 0], [-1, 1, 2]])
    words = torch.stack([hidden[0, 1:].mean(0), hidden[1, 1], torch.zeros(6)])  # the last word has no vector
    exact = Targets(words, hidden[:, 0], index)
    assert distiller(hidden, hidden[:, 0], exact).item() == pytest.approx(0, abs=1e-5)
    opposite = Targets(-words, -hidden[:, 0], index)
    assert distiller(hidden, hidden[:, 0], opposite).item() == pytest.approx(4, abs=1e-5)


def test_means_of_groups():
    vectors, group = torch.tensor([[1.0], [3.0], [10.0], [99.0]]), torch.tensor([0, 0, 2, -1])
    assert mean_by(vectors, group, 3).tolist() == [[2.0], [0.0], [10.0]]


def test_student_learns_from_the_teacher_and_keeps_its_pooler(corpus, tmp_path):  # noqa: F811
    fields = {"teacher": NANO, "length": 20, "shorten": True, "steps": 40}
    summary = pretrain(config(corpus, tmp_path / "taught", **fields), progress=False)
    assert summary["teacher"]["name"] == NANO
    assert len(summary["teacher"]["sha256"]) == 64
    saved = load_file(tmp_path / "taught" / "model.safetensors")
    model, _ = encoders.load(str(tmp_path / "taught"), 2)
    torch.testing.assert_close(model.bert.pooler.dense.weight, saved["bert.pooler.dense.weight"].float())
    head = BertForMaskedLM.from_pretrained(tmp_path / "taught", dtype="float32")
    torch.testing.assert_close(head.cls.predictions.bias, saved["cls.predictions.bias"].float())
    assert json.loads((tmp_path / "taught" / "pretraining.json").read_text())["config"]["teacher"] == NANO


def test_more_steps_only_before_the_rate_falls(corpus, tmp_path):  # noqa: F811
    pretrain(config(corpus, tmp_path, steps=20, minutes=1e-9), progress=False)
    assert pretrain(config(corpus, tmp_path, steps=8), progress=False)["step"] == 8
    with pytest.raises(ValueError, match="go on with --steps 8"):
        pretrain(config(corpus, tmp_path, steps=20), progress=False)
