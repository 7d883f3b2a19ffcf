"""A wrong argument is refused before anything slow is imported, whatever the command."""

import json
import os
import resource
import subprocess
import sys

import pytest

SLOW = ("torch", "transformers", "datasets", "pandas", "scipy", "sklearn", "evaluate")
OWN = "run --data own.csv --label verdict"
CASES = {
    "run --nope": "No such option",
    "run": "klnorm tasks",
    "run --task mrcp": "did you mean 'mrpc'",
    "run --task mrpc --method klnrom": "did you mean 'klnorm'",
    "run --task mrpc --method klnorm+klnrom": "unknown method 'klnrom'",
    "run --task mrpc --method klnorm+frozen": "'frozen' is a way to fit",
    "run --task mrpc --method klnorm --method-arg beta": "NAME=VALUE",
    "run --task mrpc --method klnorm --method-arg betta=1": "no hyperparameter betta",
    "run --task mrpc --method klnorm --method-arg beta=-1": "beta must be a finite number at least 0, got -1",
    "run --task mrpc --method klnorm --method-arg form=Z": "form must be one of A, B, C, got 'Z'",
    "run --task mrpc --method klnorm+mixout --method-arg mixout.p=1": "finite number at least 0 and below 1",
    "run --task mrpc --method klnorm+mixout --method-arg p=1": "write METHOD.FIELD",
    "run --task mrpc --method frozen --method-arg grid=-1": "different positive values of C",
    "run --task mrpc --method frozen --steps 5": "steps would have no effect",
    "run --task mrpc --method setfit --batch-size 3": "even number",
    "run --task mrpc --encoder tf-idf": "no weights to fine-tune",
    "run --task mrpc --steps 0": "steps must be a whole number of at least 1",
    "run --task mrpc --steps x": "valid integer",
    "run --task mrpc --learning-rate nan": "learning_rate must be a finite positive number",
    "run --task mrpc --gradient-accumulation 3": "does not divide batch_size",
    "run --task mrpc --device tpu": "choose auto, cpu, cuda or mps",
    "run --task mrpc --precision fp8": "choose one of fp32, bf16, fp16",
    "run --task mrpc --source cloud": "choose one of auto, hub, mirror, built-in",
    "run --task topic_shift --source hub": "ships with the library",
    "run --task mrpc --source built-in": "is real data",
    "run --task mrpc --encoder ./nope": "check the path",
    "run --task mrpc --encoder klnorm-tinny": "did you mean 'klnorm-tiny'",
    "run --task mrpc --encoder empty": "holds no encoder",
    "run --task mrpc --text words": "set data=FILE as well",
    "study smoek": "no study 'smoek'",
    "study smoke --engine slurm": "local, dask, ray",
    "study smoke --part nope": "has no part nope",
    "study nope.yaml": "no study file",
    "fisher --model klnorm-tinny --text empty --out new": "did you mean 'klnorm-tiny'",
    "fisher --model klnorm-tiny --text nope --out new": "no corpus 'nope'",
    "mlm-head --model klnorm-tinny --text empty --out new": "did you mean 'klnorm-tiny'",
    "pretrain --corpora empty --out new": "no .txt",
    "pretrain-speech --corpora empty --out new": "no .txt",
    "methods klnrom": "did you mean klnorm",
    f"run --task mrpc {OWN[4:]} --text words": "not both",
    OWN: "set text",
    f"{OWN} --text words --audio words": "not both",
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Command -> exit code, what was printed, and which of ``SLOW`` had been imported by then; all in one process."""
    folder = tmp_path_factory.mktemp("refused")
    (folder / "own.csv").write_text("words,verdict\n" + "".join(f"text {i},{i % 2}\n" for i in range(20)))
    (folder / "empty").mkdir()
    program = f"""
import json, sys
from typer.testing import CliRunner
from klnorm_lib.cli import app
answers = {{}}
for command in json.load(sys.stdin):
    result = CliRunner().invoke(app, command.split())
    answers[command] = [result.exit_code, result.output, sorted(set({SLOW!r}) & set(sys.modules))]
print(json.dumps(answers))
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    environment.pop("KLNORM_MIRROR", None)
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(list(CASES)),
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", CASES)
def test_it_is_refused_and_nothing_slow_is_imported(command, answers):
    code, output, imported = answers[command]
    assert code == 2
    assert CASES[command] in " ".join(output.split())
    assert imported == []


def test_it_takes_less_than_a_second_of_processor_time():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "klnorm_lib", "run", "--task", "mrpc", "--method", "klnrom"]
    done = subprocess.run(command, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, "did you mean 'klnorm'" in done.stderr) == (2, True)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
