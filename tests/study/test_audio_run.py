"""Runs on recordings: the same numbers twice, padding without effect, and errors before anything is trained."""

import dataclasses
import json
import shlex

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoFeatureExtractor, DataCollatorWithPadding, Trainer, TrainingArguments
from typer.testing import CliRunner

from klnorm_lib import KLNorm, apply, cli, encoders, study, tasks
from klnorm_lib.study import evaluation, training
from klnorm_lib.tasks import audio_cache
from tests.study import hearing, small
from tests.tasks import sounds

WIDTH = {"hidden_size": 32, "num_attention_heads": 4}
NUMBERS = ("evaluations", "selected", "train", "validation", "test", "gap", "calibration", "hash", "task")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv(audio_cache.VARIABLE, str(tmp_path_factory.getbasetemp() / "audio-cache"))


@pytest.fixture(scope="session")
def hears(tmp_path_factory):
    return hearing.encoder(tmp_path_factory.mktemp("hears") / "small-speech")


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    return hearing.table(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def rows(hears, clips):
    return study.prepare_audio(
        tasks.from_file(clips, audio="path", label="verdict")[0]["train"], AutoFeatureExtractor.from_pretrained(hears)
    )


@pytest.mark.parametrize("method", ["plain", "klnorm"])
def test_same_run_gives_the_same_numbers(hears, clips, method):
    run = hearing.run(hears, clips, method=method)
    first = study.run(run, progress=False)
    torch.manual_seed(123)
    second = study.run(run, progress=False)
    for name in NUMBERS:
        assert getattr(first, name) == getattr(second, name)
    assert first.task["kind"] == "audio"
    assert first.task["cut"] == {}
    assert first.evaluations[-1]["train_loss"] != first.evaluations[0]["train_loss"]
    assert (first.parameters["added"] > 0) == (method == "klnorm")
    assert "--audio path --label verdict" in first.command or "--label verdict --audio path" in first.command


def test_a_finished_run_is_not_done_again(hears, clips, tmp_path, monkeypatch):
    records = tmp_path / "records.jsonl"
    first = study.run(hearing.run(hears, clips), records, progress=False)
    monkeypatch.setattr(training, "train", lambda *a, **k: pytest.fail("trained again"))
    second = study.run(hearing.run(hears, clips), records, progress=False)
    assert second.already_done
    assert second.to_dict() == first.to_dict()


def test_long_clips_keep_their_beginning_and_it_is_said(hears, clips, capsys):
    record = study.run(hearing.run(hears, clips, max_seconds=0.15))
    longer = {
        name: sum(len(clip) > 2400 for clip in split["audio"])
        for name, split in tasks.from_file(clips, audio="path", label="verdict")[0].items()
    }
    assert record.task["cut"] == longer
    assert "clips over 0.15 s, of which only the beginning is used" in capsys.readouterr().err
    assert record.run["max_seconds"] == 0.15
    assert record.hash != study.run_hash(hearing.run(hears, clips))


def test_records_made_before_there_was_sound_keep_their_hash(encoder, reviews):
    assert not {"max_seconds", "audio"} & set(small.run(encoder, reviews).to_dict())


def test_text_and_sound_are_not_mixed(encoder, hears, reviews, clips, tmp_path):
    records = tmp_path / "r.jsonl"
    with pytest.raises(ValueError, match="'clips' is an audio task and .*small' is an encoder of text; choose an enc"):
        study.run(hearing.run(encoder, clips), records, progress=False)
    with pytest.raises(ValueError, match="'reviews' is a text task and .*small-speech' is an encoder of sound"):
        study.run(small.run(hears, reviews), records, progress=False)
    assert not records.exists()


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_padding_and_company_in_a_batch_do_not_matter(tmp_path, rows, monkeypatch, norm):
    torch.manual_seed(0)
    model, processor = encoders.load(str(hearing.encoder(tmp_path, norm)), 2, label_names=["high", "low"])
    collator = DataCollatorWithPadding(processor)
    together = evaluation.predict(model, rows, collator)
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 1)
    np.testing.assert_allclose(evaluation.predict(model, rows, collator), together, atol=1e-5)
    assert np.abs(together - together.mean(0)).max() > 1e-4  # rows do differ


def test_batches_hold_neighbours_within_the_budget():
    lengths = np.arange(1, 201)
    for budget in (None, 1000):
        slices = list(evaluation.batches(lengths, budget))
        assert np.concatenate([lengths[s] for s in slices]).tolist() == lengths.tolist()
        assert all(len(lengths[s]) <= evaluation.EVALUATION_BATCH for s in slices)
    assert max(len(lengths[s]) * lengths[s][-1] for s in slices) <= 1000
    assert [s.stop - s.start for s in evaluation.batches(np.array([5, 5000, 6000]), 1000)] == [1, 1, 1]
    assert [s.stop - s.start for s in evaluation.batches(np.array([5, 5, 6, 7, 7, 7]), equal=True)] == [2, 1, 3]


def test_rows_are_cut_first_and_then_normalised(hears, clips):
    split = tasks.from_file(clips, audio="path", label="verdict")[0]["train"]
    cut = study.prepare_audio(split, AutoFeatureExtractor.from_pretrained(hears), max_seconds=0.1)
    assert cut.column_names == ["input_values", "label"]
    assert {len(row["input_values"]) for row in cut} == {1600}
    for row in cut:
        assert abs(row["input_values"].mean()) < 1e-5
        np.testing.assert_allclose(row["input_values"].std(), 1, atol=1e-3)


def test_a_stock_trainer_takes_them(hears, rows, tmp_path):
    model, processor = encoders.load(str(hears), 2, label_names=["high", "low"])
    report = apply(model, KLNorm())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    options = {"max_steps": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "use_cpu": True}
    quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True}
    trainer = Trainer(
        model,
        TrainingArguments(str(tmp_path), **options, **quiet),
        train_dataset=rows,
        data_collator=DataCollatorWithPadding(processor),
        callbacks=report.callbacks,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["attention_mask"].shape == batch["input_values"].shape
    assert batch["attention_mask"].sum(1).min() < batch["attention_mask"].shape[1]
    assert set(batch["labels"].tolist()) <= {0, 1}
    trainer.train()
    assert any(not torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_what_cannot_be_prepared_is_said(encoder, clips, tmp_path):
    split = tasks.from_file(clips, audio="path", label="verdict")[0]["train"]
    words = encoders.load(str(encoder), 2)[1]
    with pytest.raises(
        ValueError, match="takes 'input_ids', not raw samples; use an encoder of the wav2vec 2.0 family"
    ):
        study.prepare_audio(split, words)
    narrow = AutoFeatureExtractor.from_pretrained(hearing.encoder(tmp_path / "narrow", sampling_rate=8000))
    with pytest.raises(ValueError, match="the encoder expects 8,000 Hz, tasks have 16,000 Hz"):
        study.prepare_audio(split, narrow)
    with pytest.raises(ValueError, match="max_seconds must be positive"):
        study.prepare_audio(split, AutoFeatureExtractor.from_pretrained(hearing.encoder(tmp_path / "wide")), 0)


FILTER_BANKS = {
    "ast": (
        lambda: transformers.ASTModel(
            transformers.ASTConfig(**WIDTH, num_hidden_layers=2, intermediate_size=64, max_length=64, num_mel_bins=32)
        ),
        lambda: transformers.ASTFeatureExtractor(max_length=64, num_mel_bins=32),
        r"ASTFeatureExtractor takes filter banks of shape \(64, 32\) as 'input_values', not raw samples",
    ),
    "whisper": (
        lambda: transformers.WhisperModel(
            transformers.WhisperConfig(
                vocab_size=90, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, pad_token_id=0, bos_token_id=1,
                eos_token_id=2, decoder_start_token_id=3, max_source_positions=50,
            )
        ),
        lambda: transformers.WhisperFeatureExtractor(chunk_length=1),
        "WhisperFeatureExtractor takes 'input_features', not raw samples",
    ),
    "wav2vec2-bert": (
        lambda: transformers.Wav2Vec2BertModel(
            transformers.Wav2Vec2BertConfig(
                **WIDTH, num_hidden_layers=1, intermediate_size=32, feature_projection_input_dim=160
            )
        ),
        lambda: transformers.SeamlessM4TFeatureExtractor(),
        "SeamlessM4TFeatureExtractor takes 'input_features', not raw samples",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILTER_BANKS)
@pytest.mark.parametrize("method", ["plain", "frozen", "setfit"])
def test_encoders_of_filter_banks_are_refused_before_anything_is_trained(clips, tmp_path, name, method):
    model, extractor, message = FILTER_BANKS[name]
    model().save_pretrained(tmp_path / name)
    extractor().save_pretrained(tmp_path / name)
    records = tmp_path / "r.jsonl"
    fields = {"method": method, "encoder": str(tmp_path / name), "data": str(clips), "audio": "path"}
    with pytest.raises(ValueError, match=message):
        study.run(study.Run(None, label="verdict", device="cpu", **fields), records, progress=False)
    assert not records.exists()


def test_quiet_classes_of_a_run(hears, tmp_path, capsys):
    data = hearing.table(tmp_path, rows=24)
    for i in range(10):
        hiss = np.random.default_rng(i).uniform(-4e-4, 4e-4, 2000)
        (tmp_path / f"q{i}.wav").write_bytes(sounds.encoded(hiss, form="WAV"))
    data.write_text(data.read_text() + "".join(f"q{i}.wav,silence\n" for i in range(10)))
    with pytest.raises(ValueError, match=r"is silent: .* \(--quiet silence on the command line\)"):
        study.run(hearing.run(hears, data), progress=False)
    record = study.run(hearing.run(hears, data, quiet=["silence"]), progress=False)
    assert record.run["quiet"] == ["silence"]
    assert "--quiet silence" in record.command
    words = shlex.split(record.command)[1:] + ["--data", str(data), "--encoder", str(hears), "--device", "cpu"]
    result = CliRunner().invoke(cli.app, [*words, "--records", str(tmp_path / "r.jsonl"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["hash"] == record.hash


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"audio": None, "text": "path", "quiet": "low"}, "quiet names labels of recordings of your own"),
        ({"text": "words"}, "either a text or a recording"),
        ({"text_pair": "words"}, "either a text or a recording"),
        ({"label": None}, "label"),
        ({"max_seconds": 0}, "max_seconds"),
        ({"max_seconds": float("inf")}, "max_seconds"),
        ({"data": None, "task": "fsdd"}, "audio, label name columns of a file of your own"),
    ],
)
def test_bad_fields_are_named(hears, clips, fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(hearing.run(hears, clips), **fields)


def test_built_in_speech_from_the_command_line(hears, tmp_path):
    records = str(tmp_path / "r.jsonl")
    options = ["--task", "spoken_words", "--size", "50", "--method", "klnorm", "--encoder", str(hears), "--json"]
    options += ["--steps", "2", "--evaluations", "1", "--device", "cpu", "--records", records]
    result = CliRunner().invoke(cli.app, ["run", *options])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["task"]["source"] == "built-in"
    assert set(record["ood"]) == {"accent", "noise"}
    assert record["rows"] == {
        name: record["rows"][name] for name in ("train", "validation", "test", "ood/accent", "ood/noise")
    }
    assert record["rows"]["train"] + record["rows"]["validation"] == 50
