"""`klnorm study`: a grid that goes on where it was interrupted, its list, and committed runs done again."""

import json

import pytest

from tests.cli import call

SMALL_STUDY = """
common: {steps: 2, batch_size: 8, evaluations: 1, max_length: 16, test_rows: 20, ood: false, device: cpu}
tuning: {draws: [100]}
arms:
  plain: {tune: {learning_rate: [1e-4, 1e-3]}}
  frozen: {method: frozen, encoder: tf-idf}
parts:
  one: {tasks: {topic_shift: [40]}, encoders: [klnorm-nano], arms: [frozen], draws: 2}
  two: {tasks: {topic_shift: [40]}, encoders: [klnorm-nano], arms: [plain], draws: 1, default: false}
  bad: {tasks: {topic_shift: [999999]}, encoders: [klnorm-nano], arms: [frozen], draws: 1, default: false}
"""


@pytest.fixture
def small_study(tmp_path):
    path = tmp_path / "few.yaml"
    path.write_text(SMALL_STUDY)
    return path


def test_study_then_done_already(small_study, tmp_path):
    records = tmp_path / "r.jsonl"
    assert "2 made" in call("study", small_study, "--records", records).stderr
    again = json.loads(call("study", small_study, "--records", records, "--json").stdout)
    assert (again["runs"], again["made"], again["recorded_before"], again["failures"]) == (2, 0, 2, [])
    assert len(records.read_text().splitlines()) == 2


def test_study_tells_failures_and_exits_with_one(small_study, tmp_path):
    options = ("study", small_study, "--records", tmp_path / "r.jsonl", "--part", "bad", "--part", "one")
    answer = call(*options, code=1).stderr
    assert "2 made" in answer
    assert "1 failed" in answer
    assert "klnorm run --task topic_shift" in answer
    assert "size 999999 is larger than the data" in answer


def test_study_lists_its_runs(small_study, tmp_path):
    records = tmp_path / "r.jsonl"
    lines = call("study", small_study, "--records", records, "--dry").stdout.splitlines()
    assert [line.split()[:4] for line in lines] == [["klnorm", "run", "--task", "topic_shift"]] * 2
    tuned = call("study", small_study, "--records", records, "--part", "two", "--dry", "--json")
    assert [row["stage"] for row in json.loads(tuned.stdout)] == ["tuning", "tuning"]  # the final run waits for them
    call("study", small_study, "--records", records)
    lines = call("study", small_study, "--records", records, "--dry").stdout.splitlines()
    assert all(line.startswith("# recorded: klnorm run") for line in lines)


def test_study_remakes_an_arm_in_a_setting():
    command = ("study", "smoke", "--remake", "topic_shift/40/klnorm-nano/frozen", "--replicates", 1)
    answer = json.loads(call(*command, "--json").stdout)
    assert answer["holds"]
    assert answer["difference"] <= answer["tolerance"]
    shown = call(*command)
    assert f"{answer['remade'][0]:.4f}" in shown.stdout
    assert "topic_shift/40/klnorm-nano/frozen: " in shown.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("none",), "no study 'none'"),
        (("smoke", "--engine", "slurm"), "local, dask, ray"),
        (("smoke", "--part", "none"), "has no part none"),
        (("smoke", "--remake", "trec"), "TASK/SIZE/ENCODER/ARM"),
        (("smoke", "--scheduler", "tcp://127.0.0.1:1"), "--engine dask"),
    ],
)
def test_study_errors_say_what_to_do(options, message, tmp_path):
    result = call("study", *options, "--records", tmp_path / "r.jsonl", code=2)
    assert message in result.stderr.replace("\n", " ")
