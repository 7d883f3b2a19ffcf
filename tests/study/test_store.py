"""Records files: every line checked, nothing glued, nothing lost."""

import errno
import json
import multiprocessing
import os
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from klnorm_lib import study
from klnorm_lib.study import record as records_module
from klnorm_lib.study import store
from tests.study import small


@pytest.fixture(scope="module")
def record(encoder, reviews):
    return study.run(small.run(encoder, reviews, steps=1, evaluations=1), progress=False)


def test_schema_is_a_schema():
    Draft202012Validator.check_schema(study.schema())


def other(record, number, **changes):
    """The record as that of another run."""
    return study.Record.from_dict({**record.to_dict(), "hash": f"{number:064x}", **changes})


def test_round_trip(record, tmp_path):
    path = tmp_path / "new" / "r.jsonl"
    assert study.append(path, record) is record
    study.append(path, other(record, 1))
    assert [r.to_dict() for r in study.read_records(path)] == [record.to_dict(), other(record, 1).to_dict()]
    assert path.read_bytes().endswith(b"}\n")


def test_a_run_is_kept_once(record, tmp_path):
    path, link = tmp_path / "r.jsonl", tmp_path / "link.jsonl"
    study.append(path, record)
    link.symlink_to(path)
    content = path.read_bytes()
    again = study.append(link, other(record, int(record.hash, 16), created="2030-01-01T00:00:00+00:00"))
    assert (again.already_done, again.created) == (True, record.created)
    assert path.read_bytes() == content
    assert link.is_symlink()


def test_a_failure_is_followed_by_the_run_done_again_and_by_nothing_else(record, tmp_path):
    path = tmp_path / "r.jsonl"
    error = {"type": "MemoryError", "message": "no memory", "step": None}
    failed = other(record, int(record.hash, 16), status="failed", error=error)
    for each in (failed, record, failed, record):
        study.append(path, each)
    assert [r.status for r in study.read_records(path)] == ["failed", "finished"]


def test_a_run_under_another_name_of_a_study_is_kept(record, tmp_path):
    named = [{"name": "s", "part": "p", "arm": arm, "stage": "final"} for arm in ("one", "two")]
    for name in (*named, *named):
        study.append(tmp_path / "r.jsonl", other(record, 1, study=name))
    assert [r.study["arm"] for r in study.read_records(tmp_path / "r.jsonl")] == ["one", "two"]


def test_readers_drop_what_earlier_versions_wrote_twice(record, tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(record.to_line() * 2 + other(record, 1).to_line())
    assert [r.hash for r in study.read_records(path)] == [record.hash, f"{1:064x}"]


def test_a_run_that_another_process_finished_first_is_done_already(encoder, reviews, tmp_path, monkeypatch, capsys):
    path, run = tmp_path / "r.jsonl", small.run(encoder, reviews, steps=1, evaluations=1)
    first = study.run(run, path, progress=False)
    monkeypatch.setattr(store, "finished", lambda path, hash: None)  # what it sees that begins at the same time
    second = study.run(run, path)
    assert second.already_done
    assert (second.created, len(study.read_records(path))) == (first.created, 1)
    assert "another process recorded it" in capsys.readouterr().err


def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_loses_nothing(record, tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    study.append(path, other(record, 1))
    monkeypatch.chdir(tmp_path)  # where it is kept if the folder for temporary files cannot take it
    before, write = path.read_bytes(), os.write
    monkeypatch.setattr(store.os, "fsync", full)
    monkeypatch.setattr(store.tempfile, "gettempdir", lambda: str(tmp_path / "away"))
    with pytest.raises(study.NotWrittenError, match="nowhere else; keep this line") as error:
        study.append(path, record)
    assert record.to_line() in str(error.value)
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.rglob("*.jsonl")) == ["r.jsonl"]

    monkeypatch.undo()
    limits = iter([100])  # the first write is cut short, and the next one finds room
    monkeypatch.setattr(store.os, "write", lambda f, line: write(f, line[: next(limits, len(line))]))
    with pytest.raises(study.NotWrittenError, match=r"only 100 of .* bytes fitted.*cat .* >> ") as error:
        study.append(path, record)
    assert path.read_bytes() == before
    assert error.value.kept.read_text() == record.to_line()
    assert error.value.record is record


def test_a_file_without_a_lock_loses_nothing(record, tmp_path):
    path = tmp_path / "r.jsonl"
    (tmp_path / "r.jsonl.lock").mkdir()
    with pytest.raises(OSError, match=r"cannot be locked.*--records"):
        store.check_path(path)
    with pytest.raises(study.NotWrittenError, match="cannot be locked") as error:
        study.append(path, record)
    assert study.read_records(error.value.kept)[0].hash == record.hash


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "is a folder; name a file in it"),
        (lambda path: path.write_text("words,verdict\n"), "is no records file"),
        (lambda path: path.parent.rmdir() or path.parent.write_text(""), "cannot be made"),
        (lambda path: Path(f"{path}.lock").mkdir(), "cannot be locked"),
    ],
)
def test_a_file_that_cannot_take_a_record_is_refused_before_the_run(encoder, reviews, tmp_path, make, message):
    path = tmp_path / "new" / "r.jsonl"
    path.parent.mkdir()
    make(path)
    with pytest.raises((OSError, study.RecordError), match=message):
        study.run(small.run("no such encoder", reviews), path)


def test_no_room_and_no_permission_are_told_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(store.os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="is not writable"):
        store.check_path(tmp_path / "r.jsonl")
    monkeypatch.undo()
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(OSError, match="10 bytes are free"):
        store.check_path(tmp_path / "r.jsonl")


def test_a_line_on_its_way_is_waited_for(record, tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    study.append(path, other(record, 1))
    whole = path.read_bytes() + record.to_line().encode()
    path.write_bytes(whole[:-50])
    lock = store._locked

    def locked(path):
        path.write_bytes(whole)  # its writer is ready, and lets go of the lock
        return lock(path)

    monkeypatch.setattr(store, "_locked", locked)
    assert len(study.read_records(path)) == 2


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
        study.append(path, other(record, 1))
    assert len(study.read_records(path)) == 2
    assert (tmp_path / "r.jsonl.broken").read_bytes() == whole[:100] + b"\n"


def test_missing_last_newline_is_no_damage(record, tmp_path):
    path = tmp_path / "r.jsonl"
    study.append(path, record)
    path.write_bytes(path.read_bytes()[:-1])
    assert len(study.read_records(path)) == 1
    study.append(path, other(record, 1))
    assert len(study.read_records(path)) == 2


def test_corrupt_line_in_the_middle_is_named_and_repaired(record, tmp_path):
    path = tmp_path / "r.jsonl"
    for number in range(3):
        study.append(path, other(record, number))
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


def _write(path, line, numbers):
    record = study.Record.from_dict(json.loads(line))
    for number in numbers:
        study.append(path, other(record, number))


def test_two_writers_do_not_mix_lines_nor_write_one_run_twice(record, tmp_path):
    path = tmp_path / "r.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(path, record.to_line(), range(n, n + 10))) for n in (0, 5)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    hashes = [json.loads(line)["hash"] for line in path.read_text().splitlines()]
    assert sorted(hashes) == [f"{number:064x}" for number in range(15)]


def test_what_is_no_file_keeps_no_records():
    with pytest.raises(OSError, match=r"no ordinary file.*--records"):
        store.check_path(Path(os.devnull))
