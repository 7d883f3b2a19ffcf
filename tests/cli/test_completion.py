"""The shell completes names that exist, and does not wait for torch."""

import json
import os
import subprocess
import sys

import pytest

from klnorm_lib import encoders, tasks
from klnorm_lib.cli import completion
from tests.cli import call

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from klnorm_lib.cli import app; app(prog_name='klnorm')"


def listed(command, *sources):
    rows = json.loads(call(command, "--json").stdout)
    return sorted(row["name"] for row in rows if not sources or row["source"] in sources)


def test_what_is_completed_is_what_is_listed(tmp_path, monkeypatch):
    folder = tmp_path / "models/org--encoder"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.setenv("KLNORM_MIRROR", str(tmp_path))
    assert completion.encoder("org") == ["org/encoder"]
    assert completion.encoder("") == listed("encoders", "built-in", "mirror")
    assert completion.method("") == listed("methods")
    assert completion.task("") == listed("tasks")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("run --task topic_", [name for name in tasks.names() if name.startswith("topic_")]),
        ("run --method guided_d", ["guided_dropout"]),
        ("run --encoder klnorm-", encoders.names()),
        ("fisher --model klnorm-n", ["klnorm-nano"]),
        ("mirror trec mrp", ["mrpc"]),
        ("study smo", ["smoke"]),
    ],
)
def test_the_shell_gets_the_names(words, found):
    line = f"klnorm {words}"
    request = {"_KLNORM_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    command = [sys.executable, "-c", WITHOUT_TORCH]
    answer = subprocess.run(command, env={**os.environ, **request}, capture_output=True, text=True, check=True)
    assert sorted(answer.stdout.split()) == sorted(found)


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["run", "--help"], ["study", "--help"]])
def test_help_does_not_wait_for_torch(words):
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, check=True)
