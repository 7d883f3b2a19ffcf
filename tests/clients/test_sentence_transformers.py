"""sentence-transformers calls the encoder and computes its own losses: a penalty raises, what is inside trains."""

import numpy as np
import pytest
from datasets import Dataset
from sentence_transformers import CrossEncoder, SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from sentence_transformers.losses import MultipleNegativesRankingLoss
from transformers import BertModel

from klnorm_lib import L2SP, Dropout, KLNorm, Mixout, NormHead, RDrop, apply
from tests.clients import pieces

INTERNAL = KLNorm(placement="internal", form="C", beta=0.01)
TEXTS = [pieces.text(i) for i in range(17)]


@pytest.fixture
def bi_encoder(tmp_path):
    pieces.bert(BertModel).save_pretrained(tmp_path / "base")
    pieces.tokenizer().save_pretrained(tmp_path / "base")
    return SentenceTransformer(str(tmp_path / "base"), device="cpu")


def train_bi_encoder(model, method, folder):
    report = apply(model[0].auto_model, method)
    rows = Dataset.from_dict({"anchor": TEXTS[:16], "positive": TEXTS[1:]})
    loss = MultipleNegativesRankingLoss(model)
    arguments = Arguments(**pieces.settings(folder))
    SentenceTransformerTrainer(model, arguments, train_dataset=rows, loss=loss, callbacks=report.callbacks).train()


@pytest.mark.parametrize("method", [INTERNAL, L2SP(alpha=1000.0)], ids=lambda m: m.name)
def test_a_bi_encoder_has_no_loss_of_its_own_so_a_penalty_raises(bi_encoder, method, tmp_path):
    with pytest.raises(RuntimeError, match="penalty"):
        train_bi_encoder(bi_encoder, method, tmp_path)


@pytest.mark.parametrize("method", [KLNorm(), NormHead("layer")], ids=lambda m: m.name)
def test_a_bi_encoder_has_no_classifier_so_a_layer_before_it_is_refused(bi_encoder, method):
    with pytest.raises(ValueError, match="no linear layer outside"):
        apply(bi_encoder[0].auto_model, method)


@pytest.mark.parametrize("method", [Dropout(p=0.3), Mixout(p=0.3)], ids=lambda m: m.name)
def test_a_bi_encoder_trains_with_noise_and_opens_again(bi_encoder, method, tmp_path):
    train_bi_encoder(bi_encoder, method, tmp_path / "run")
    bi_encoder.save_pretrained(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_array_equal(again.encode(TEXTS), bi_encoder.encode(TEXTS))
    assert again[0].auto_model._klnorm_methods == bi_encoder[0].auto_model._klnorm_methods


@pytest.fixture
def cross_encoder(tmp_path):
    pieces.bert(labels=1).save_pretrained(tmp_path / "base")
    pieces.tokenizer().save_pretrained(tmp_path / "base")
    return CrossEncoder(str(tmp_path / "base"), device="cpu")


def train_cross_encoder(model, method, folder):
    report = apply(model.model, method)
    rows = Dataset.from_dict({"a": TEXTS[:16], "b": TEXTS[1:], "label": [float(i % 2) for i in range(16)]})
    loss, arguments = BinaryCrossEntropyLoss(model), CrossEncoderTrainingArguments(**pieces.settings(folder))
    CrossEncoderTrainer(model, arguments, train_dataset=rows, loss=loss, callbacks=report.callbacks).train()


@pytest.mark.parametrize("method", [KLNorm(form="C"), L2SP(), RDrop()], ids=lambda m: m.name)
def test_a_cross_encoder_computes_its_own_loss_so_a_penalty_raises(cross_encoder, method, tmp_path):
    with pytest.raises(RuntimeError, match="penalty|two passes"):
        train_cross_encoder(cross_encoder, method, tmp_path)


@pytest.mark.parametrize("method", [NormHead("layer"), Dropout(p=0.3), Mixout(p=0.3)], ids=lambda m: m.name)
def test_a_cross_encoder_without_a_penalty_trains_and_opens_again(cross_encoder, method, tmp_path):
    train_cross_encoder(cross_encoder, method, tmp_path / "run")
    cross_encoder.save_pretrained(str(tmp_path / "saved"))
    again = CrossEncoder(str(tmp_path / "saved"), device="cpu")
    pairs = list(zip(TEXTS[:16], TEXTS[1:], strict=True))
    np.testing.assert_array_equal(again.predict(pairs), cross_encoder.predict(pairs))
