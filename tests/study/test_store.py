"""Records files: every line checked, nothing glued, nothing lost."""

import json
import multiprocessing

import pytest
from jsonschema import Draft202012Validator

from klnorm_lib import study
from klnorm_lib.study import record as records_module
from tests.study import small


@pytest.fixture(scope="module")
def record(encoder, reviews):
    return study.run(small.run(encoder, reviews, steps=1, evaluations=1), progress=False)


def test_schema_is_a_schema():
    Draft202012Validator.check_schema(study.schema())


def test_round_trip(record, tmp_path):
    path = tmp_path / "new" / "r.jsonl"
    study.append(path, record)
    study.append(path, record)
    assert [r.to_dict() for r in study.read_records(path)] == [record.to_dict()] * 2
    assert path.read_bytes().endswith(b"}\n")


def test_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="klnorm run"):
        study.read_records(tmp_path / "none.jsonl")


def test_truncated_tail_is_named_and_repaired(record, tmp_path):
    path = tmp_path / "r.jsonl"
    study.append(path, record)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:100])
    with pytest.raises(study.RecordError, match=r"r\.jsonl, line 2: .*--repair"):
        study.read_records(path)
    assert study.repair(path) == 1
    assert path.read_bytes() == whole
    assert (tmp_path / "r.jsonl.broken").read_bytes() == whole[:100] + b"\n"
    assert study.repair(path) == 0


def test_append_never_glues_onto_a_truncated_tail(record, tmp_path):
    path = tmp_path / "r.jsonl"
    study.append(path, record)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:100])
    with pytest.warns(UserWarning, match="broken"):
        study.append(path, record)
    assert len(study.read_records(path)) == 2
    assert (tmp_path / "r.jsonl.broken").read_bytes() == whole[:100] + b"\n"


def test_missing_last_newline_is_no_damage(record, tmp_path):
    path = tmp_path / "r.jsonl"
    study.append(path, record)
    path.write_bytes(path.read_bytes()[:-1])
    assert len(study.read_records(path)) == 1
    study.append(path, record)
    assert len(study.read_records(path)) == 2


def test_corrupt_line_in_the_middle_is_named_and_repaired(record, tmp_path):
    path = tmp_path / "r.jsonl"
    for _ in range(3):
        study.append(path, record)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\x00\xff garbage\n" + lines[2])
    with pytest.raises(study.RecordError, match="line 2: not JSON"):
        study.read_records(path)
    assert study.repair(path) == 1
    assert len(study.read_records(path)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(status="maybe"), "status"),
        (lambda d: d.pop("hash"), "hash"),
        (lambda d: d.update(hash="abc"), "hash"),
        (lambda d: d.update(surprise=1), "surprise"),
        (lambda d: d["test"].update(accuracy="high"), "test.accuracy"),
        (lambda d: d.update(test={}), "test"),
        (lambda d: d["run"].update(steps=0), "run.steps"),
        (lambda d: d.update(status="failed"), "error"),
        (lambda d: d.update(schema_version=2), "schema_version"),
        (lambda d: d.update(created="yesterday"), "created"),
    ],
)
def test_schema_violations_are_named_on_read_and_write(record, tmp_path, change, message):
    values = json.loads(record.to_line())
    change(values)
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(values) + "\n")
    for _ in range(2):  # a line is checked once if it is sound, and refused each time if it is not
        with pytest.raises(study.RecordError, match=message):
            study.read_records(path)
    with pytest.raises(study.RecordError, match=message):
        records_module.check(values)


def test_bad_record_is_not_written(record, tmp_path):
    bad = study.Record.from_dict(json.loads(record.to_line()))
    bad.test = {"accuracy": float("nan")}
    path = tmp_path / "r.jsonl"
    with pytest.raises(ValueError, match="not JSON compliant"):
        study.append(path, bad)
    assert not path.exists()


def _write(path, line, times):
    record = study.Record.from_dict(json.loads(line))
    for _ in range(times):
        study.append(path, record)


def test_two_writers_do_not_mix_lines(record, tmp_path):
    path = tmp_path / "r.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(path, record.to_line(), 10)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(study.read_records(path)) == 20
