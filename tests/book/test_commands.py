"""What the front pages tell a reader to type is there, and does what they say."""

import re
import shlex
import subprocess

import pytest
import transformers
from typer.main import get_command

from klnorm_lib import cli
from tests import zoo
from tests.book import ROOT

FRONT = ("README.md", "book/index.md", "book/how_to_read.md", "book/reproducibility.md", "book/methods/index.md")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(language):
    for name in FRONT:
        text = (ROOT / name).read_text(encoding="utf-8")
        for number, (kind, body) in enumerate(FENCE.findall(text)):
            if kind == language:
                yield pytest.param(body, id=f"{name}-{number}")


@pytest.mark.parametrize("code", list(blocks("python")))
def test_python_runs(code, tmp_path):
    model = zoo.build("bert")
    args = transformers.TrainingArguments(output_dir=str(tmp_path), report_to=[])
    names = {"model": model, "args": args, "data": [zoo.batch(model)], "Trainer": transformers.Trainer}
    exec(code, names)
    assert names["report"].changed


def command_lines():
    for name in (*FRONT, "Makefile"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for line in re.findall(r"(?:^|`)(klnorm [a-z][^`\n#]*)", text, re.MULTILINE):
            yield pytest.param(line.split(), id=f"{name}: {line.strip()[:40]}")


@pytest.mark.parametrize("words", list(command_lines()))
def test_the_command_line_knows_it(words):
    command = get_command(cli.app)
    assert words[1] in command.commands
    options = {option for parameter in command.commands[words[1]].params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} - {"--help"} <= options


def test_make_passes_options_that_the_command_knows():
    given = ["NAME=smoke", "PART=all", "RECORDS=r.jsonl", "RESULT=trec/200/klnorm-tiny/vib", "REPLICATES=3"]
    make = ["make", "--dry-run", "--assume-old=.venv/.installed", "study", *given]
    printed = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    words = shlex.split(printed[printed.index("klnorm study") :].replace("\\\n", " "))
    assert {"--part", "--records", "--remake", "--replicates"} <= set(words)
    test_the_command_line_knows_it(words)


def targets_named():
    for name in FRONT:
        text = (ROOT / name).read_text(encoding="utf-8")
        yield from ((name, target) for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))


@pytest.mark.parametrize(("name", "target"), sorted(set(targets_named())))
def test_make_knows_it(name, target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_help_lists_every_target():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    assert {t for t in phony if f"make {t} " in listed} == set(phony) - {"FORCE"}
