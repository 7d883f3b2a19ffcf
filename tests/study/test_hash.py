"""A run's hash: everything that decides the numbers changes it, and packaged records keep theirs."""

import copy
import dataclasses
import hashlib
import json
from contextlib import contextmanager

import pytest
import torch
from typer.testing import CliRunner

from klnorm_lib import KLNorm, cli, methods, studies, study
from klnorm_lib.study import cache, inputs, machine
from klnorm_lib.study.fit_protocol import fit_of, named_fits
from klnorm_lib.study.fits import FineTuning
from klnorm_lib.study.hashing import hash_of, hash_of_record
from klnorm_lib.study.spec import LATER
from tests.study import hearing, small

NOT_IN_THE_HASH = {"source", "encoder_source", "device", "method_args"}
PLAIN_RUN = {
    **{f.name: f.default for f in dataclasses.fields(study.Run)},
    **{"task": "trec", "encoder": "klnorm-tiny", "method": "klnorm", "method_args": {"beta": 0.1}},
}
VALUES = {
    "run": PLAIN_RUN,
    "method": {"name": "klnorm", "version": 1, "fields": {"beta": 0.1, "form": "B"}},
    "checksums": {"train": "a", "validation": "b", "test": "c"},
    "weights": "w",
    "device": "cpu",
    "threads": 1,
}


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def hashed(*path, value="another"):
    """The hash of ``VALUES`` with another value at this path of keys."""
    changed = copy.deepcopy(VALUES)
    *way, last = path
    at = changed
    for key in way:
        at = at[key]
    at[last] = value
    return hash_of(**changed)


def test_the_hash_is_a_checksum_of_sorted_plain_values():
    run = {name: value for name, value in PLAIN_RUN.items() if name not in NOT_IN_THE_HASH}
    values = {**VALUES, "run": run, "data": VALUES["checksums"]}
    del values["checksums"]
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    assert hash_of(**VALUES) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", PLAIN_RUN)
def test_every_key_of_a_run_changes_the_hash_but_where_it_was_found(name):
    assert (hashed("run", name) == hash_of(**VALUES)) == (name in NOT_IN_THE_HASH)


@pytest.mark.parametrize(
    "path",
    [
        *[("method", key) for key in VALUES["method"]],
        *[("method", "fields", key) for key in VALUES["method"]["fields"]],
        *[("checksums", split) for split in VALUES["checksums"]],
        *[(key,) for key in ("weights", "device", "threads")],
        ("run", "a key that comes later"),
        ("method", "fields", "a field that comes later"),
        ("checksums", "ood/more"),
    ],
    ids=".".join,
)
def test_every_other_key_changes_the_hash(path):
    assert hashed(*path) != hash_of(**VALUES)


@pytest.mark.parametrize("key", ["changed", "added_parameters"])
def test_what_a_method_did_is_not_in_the_hash(key):
    assert hashed("method", key) == hash_of(**VALUES)


@pytest.fixture(scope="module")
def others(tmp_path_factory, reviews):
    """For each field of a run another value, with what it needs beside it."""
    folder = tmp_path_factory.mktemp("others")
    (folder / "more.csv").write_text(reviews.read_text() + "the end,no\n")
    _, *lines = (line.split(",") for line in reviews.read_text().splitlines())
    wide = [f"{text},{label},so {text},{'odd' if at % 2 else 'even'}" for at, (text, label) in enumerate(lines)]
    (folder / "wide.csv").write_text("\n".join(["words,verdict,second,other", *wide]))
    columns = {"data": str(folder / "wide.csv")}
    return {
        "task": ("topic_shift", {"data": None, "text": None, "label": None, "size": 40}),
        "encoder": (str(small.encoder(folder / "other")), {}),
        "method": ("klnorm", {}),
        "size": (40, {}),
        "split_seed": (1, {}),
        "seed": (1, {}),
        "steps": (5, {}),
        "batch_size": (4, {}),
        "gradient_accumulation": (2, {}),
        "learning_rate": (1e-4, {}),
        "weight_decay": (0.1, {}),
        "warmup_ratio": (0.1, {}),
        "schedule": ("cosine", {}),
        "max_grad_norm": (2.0, {}),
        "max_length": (64, {}),
        "evaluations": (1, {}),
        "precision": ("bf16", {}),
        "data": (str(folder / "more.csv"), {}),
        "text": ("second", columns),
        "text_pair": ("second", columns),
        "label": ("other", columns),
        "ood": (False, {}),
        "max_seconds": (5.0, {}),
        "test_rows": (5, {}),
        "ood_rows": (5, {}),
    }


def test_every_field_of_a_run_changes_the_hash(encoder, reviews, others):
    """Through the run itself: the data, the weights and the method are looked at."""
    fields = {f.name for f in dataclasses.fields(study.Run)}
    assert {*others, *NOT_IN_THE_HASH, "audio", "quiet", "spec_augment"} == fields  # of recordings: see the next test
    for name, (value, beside) in others.items():
        base = dataclasses.replace(
            small.run(encoder, reviews), **{k: v for k, v in beside.items() if k == "data" and v}
        )
        changed = dataclasses.replace(base, **{**beside, name: value})
        assert study.run_hash(changed) != study.run_hash(base), name


def test_where_things_were_found_does_not_change_the_hash(encoder, reviews):
    base = small.run(encoder, reviews, method="klnorm")
    expected = study.run_hash(base)
    assert study.run_hash(dataclasses.replace(base, method_args={"beta": 1e-3})) == expected  # the default, written out
    assert study.run_hash(dataclasses.replace(base, source="built-in")) == expected
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        assert study.run_hash(dataclasses.replace(base, device="auto")) == expected
    twin = small.encoder(encoder.parent / "elsewhere" / encoder.name)
    assert study.run_hash(dataclasses.replace(base, encoder=str(twin))) == expected


def test_other_weights_rows_device_threads_and_version_change_the_hash(encoder, reviews, tmp_path, monkeypatch):
    base = small.run(encoder, reviews, method="klnorm")
    other = small.encoder(tmp_path / encoder.name) / "model.safetensors"
    content = bytearray(other.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    rows = tmp_path / reviews.name
    rows.write_text(reviews.read_text().replace("great", "grand"))
    hashes = [
        study.run_hash(base),
        study.run_hash(dataclasses.replace(base, encoder=str(other.parent))),
        study.run_hash(dataclasses.replace(base, data=str(rows))),
    ]
    with threads(torch.get_num_threads() + 1):
        hashes.append(study.run_hash(base))
    with monkeypatch.context() as patch:
        patch.setattr(machine, "pick_device", lambda name: "cuda")
        hashes.append(study.run_hash(base))
    with monkeypatch.context() as patch:
        patch.setattr(KLNorm, "version", KLNorm.version + 1)
        hashes.append(study.run_hash(base))
    assert study.run_hash(base) == hashes[0]
    assert len(set(hashes)) == 6


def test_fields_of_recordings_change_the_hash(tmp_path, monkeypatch):
    from klnorm_lib.tasks import audio_cache

    monkeypatch.setenv(audio_cache.VARIABLE, str(tmp_path / "cache"))
    clips = hearing.table(tmp_path / "clips", rows=20)
    table = clips.read_text().splitlines()
    clips.write_text("\n".join([f"{table[0]},again", *(f"{line},{line.split(',')[0]}" for line in table[1:])]))
    runs = [study.Run(None, "log-mel", "frozen", data=str(clips), label="verdict", audio=c) for c in ("path", "again")]
    quiet = dataclasses.replace(runs[0], quiet="low")
    hears = study.Run(None, str(hearing.encoder(tmp_path / "hears")), data=str(clips), label="verdict", audio="path")
    bare = dataclasses.replace(hears, spec_augment=False)
    assert len({study.run_hash(run) for run in (*runs, quiet, hears, bare)}) == 5


@pytest.mark.parametrize("name", methods.names())
def test_every_hyperparameter_of_a_method_is_in_the_hash(name):
    built = inputs.build_fit(study.Run("trec", "klnorm-tiny", name))
    values = built.hyperparameters()
    cls = methods.REGISTRY.get(name)
    fields = set() if cls is None else {f.name for f in dataclasses.fields(cls)}
    assert set(values) == fields - {k for k, v in getattr(cls, "later", {}).items() if getattr(built.method, k) == v}
    for key in values:
        changed = {**VALUES, "method": {"name": name, "version": built.version, "fields": {**values, key: "another"}}}
        same = {**VALUES, "method": {"name": name, "version": built.version, "fields": values}}
        assert hash_of(**changed) != hash_of(**same)


@pytest.mark.parametrize("fit", named_fits(), ids=lambda fit: fit.name)
def test_every_hyperparameter_of_a_way_to_fit_is_in_the_hash(fit):
    run = study.Run("trec", "klnorm-tiny", fit.name)
    values = fit.build(run).hyperparameters()
    assert set(values) == {f.name for f in dataclasses.fields(fit)} - set(fit.later)
    json.dumps(values)


@dataclasses.dataclass(frozen=True)
class Before(methods.Method):
    name = "grown"
    width: int = 3


@dataclasses.dataclass(frozen=True)
class Grown(methods.Method):
    name = "grown"
    later = {"depth": 1}  # noqa: RUF012 - as a method states it
    width: int = 3
    depth: int = 2


def test_a_field_that_came_later_leaves_old_hashes_alone():
    before, as_before, new = (FineTuning(m).hyperparameters() for m in (Before(), Grown(depth=1), Grown()))
    assert before == as_before == {"width": 3}
    assert new == {"width": 3, "depth": 2}


def test_later_fields_of_a_run_are_written_where_they_are_not_the_default():
    base = study.Run("trec", "klnorm-tiny")
    assert not set(LATER) & set(base.to_dict())
    later = {"ood": False, "max_seconds": 5.0, "test_rows": 5, "ood_rows": 5, "spec_augment": False}
    for name, value in later.items():
        assert dataclasses.replace(base, **{name: value}).to_dict()[name] == value


def packaged():
    """Every packaged record, with its file's name and line."""
    for file in studies.record_files():
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            yield f"{file.name}, line {number}", study.Record(**json.loads(line))


@pytest.fixture(scope="module")
def records():
    return dict(packaged())


def test_every_packaged_record_has_the_hash_of_its_contents(records):
    assert len(records) > 3000
    assert [where for where, record in records.items() if hash_of_record(record) != record.hash] == []


def test_an_edited_record_does_not_have_its_hash(records):
    record = next(iter(records.values()))
    for part, key in (("run", "steps"), ("task", "checksums"), ("hardware", "threads"), ("method", "version")):
        edited = dataclasses.replace(record, **{part: {**getattr(record, part), key: {"other": 99}}})
        assert hash_of_record(edited) != record.hash


def test_versions_and_names_of_packaged_records_are_those_of_the_methods(records):
    """A version rises only when a recorded setting's numbers change; then its records are made again."""
    for name, version in {(r.method["name"], r.method["version"]) for r in records.values()}:
        run = study.Run("trec", "klnorm-tiny", name)
        assert version == inputs.build_fit(run).version, name
        assert fit_of(name).name in ("fine-tuning", name)


@pytest.fixture(scope="module")
def built_in(records):
    """Records of the tasks that ship, by run."""
    found = {}
    for where, record in records.items():
        if record.task["source"] == "built-in":
            found.setdefault(study.Run(**record.run), []).append((where, record))
    return found


def rows_of(item):
    run, _ = item
    return run.task, run.size or 0, run.split_seed  # together, so that they are loaded once


def test_packaged_records_of_built_in_tasks_are_found_from_data(built_in):
    """By the run alone: rows, weights and method are loaded. Those of other tasks need the hub or a mirror."""
    missed, earlier = [], 0
    with cache.keeping():
        for run, alike in sorted(built_in.items(), key=rows_of):
            for where, record in alike:
                with threads(record.hardware["threads"]):
                    hashes = study.run_hashes(run)
                missed += [where] if record.hash not in hashes[: 2 if record.encoder["random"] else 1] else []
                earlier += record.hash != hashes[0]
    assert len(built_in) > 300
    assert missed == []
    assert earlier > 0  # those with the stored weights' checksum for randomly initialised ones


def test_the_smoke_study_finds_all_its_packaged_records(tmp_path):
    records = tmp_path / "smoke.jsonl"
    content = studies.path("smoke.jsonl").read_bytes()
    records.write_bytes(content)
    result = CliRunner().invoke(cli.app, ["study", "smoke", "--records", str(records), "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["made"], summary["recorded_before"], summary["failures"]) == (0, summary["runs"], [])
    assert summary["runs"] == len(content.splitlines())
    assert records.read_bytes() == content


def test_a_run_known_by_its_earlier_hash_is_not_done_again(tmp_path, built_in):
    run, [(_, record), *_] = next((r, alike) for r, alike in built_in.items() if r.encoder.endswith(":random"))
    study.append(tmp_path / "r.jsonl", record)
    with threads(record.hardware["threads"]):
        assert study.run(run, tmp_path / "r.jsonl", progress=False).already_done
