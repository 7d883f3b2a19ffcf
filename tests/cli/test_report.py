"""`klnorm report`: what it says of broken and of missing records."""

from tests.cli import call


def test_broken_records_are_named_and_repaired(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"hash": ')
    result = call("report", "--records", path, code=2)
    assert "line 1" in result.stderr
    assert "--repair" in result.stderr
    call("report", "--records", path, "--repair")
    assert (tmp_path / "r.jsonl.broken").exists()


def test_report_without_records(tmp_path):
    assert "klnorm run" in call("report", "--records", tmp_path / "none.jsonl", code=2).stderr
