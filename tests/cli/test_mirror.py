"""`klnorm mirror` refuses what the hub does not have."""

from tests.cli import call


def test_mirror_refuses_built_in_and_unknown_tasks(tmp_path):
    assert "mrpc" in call("mirror", "mrcp", "--to", tmp_path, code=2).stderr
