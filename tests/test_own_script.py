"""A stranger's own script: chapter 26's as it stands, one that is killed and resumed, and what README and cards say."""

import dataclasses
import re
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
import torch
from transformers import Trainer, TrainingArguments, set_seed
from typer.testing import CliRunner

import klnorm_lib
from klnorm_lib import KLNorm, MLPHead, NormHead, apply, cli, encoders, methods, study, tasks
from klnorm_lib.studies import record_files
from tests import zoo
from tests.book import ROOT
from tests.methods.cases import ready

CARDS = tuple(methods.REGISTRY.own)
RESUMING = """\
import os, torch
from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint
from klnorm_lib import KLNorm, apply

class PowerCut(TrainerCallback):
    def __init__(self, at):
        self.at = at

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.at:
            os._exit(9)

def train(out, dies_at):
    ids = torch.randint(5, 120, (24, 12), generator=torch.Generator().manual_seed(0))
    data = [{"input_ids": row, "labels": row[0] % 3} for row in ids]
    set_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained("base", num_labels=3)
    report = apply(model, KLNorm(form="C", beta=0.01, schedule="linear", warmup_steps=6))
    args = TrainingArguments(out, max_steps=8, save_steps=3, per_device_train_batch_size=4, learning_rate=1e-2,
                             gradient_accumulation_steps=2, report_to="none", use_cpu=True)
    trainer = Trainer(model, args, train_dataset=data, callbacks=[*report.callbacks, PowerCut(dies_at)])
    trainer.train(resume_from_checkpoint=get_last_checkpoint(out) if os.path.isdir(out) else None)
    model.save_pretrained(out + "/final")

# Each in a process of its own, forked before anything was computed: to import all this takes longer than to train.
for out, dies_at, code in (("whole", 0, 0), ("cut", 5, 9), ("cut", 0, 0)):
    child = os.fork()
    if child == 0:
        train(out, dies_at)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code, out
    assert os.path.isdir(out + "/final") == (code == 0)
"""


def call(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def chapter():
    return nbformat.read(ROOT / "notebooks/26_in_your_own_script.ipynb", as_version=4)


def test_the_script_of_the_chapter_runs_alone_and_what_it_saves_loads(chapter, tmp_path):
    (script,) = [cell.source for cell in chapter.cells if "script" in cell.metadata.get("tags", [])]
    assert len([line for line in script.splitlines() if line.strip()]) <= 15
    (tmp_path / "mine.py").write_text(script)
    printed = call([sys.executable, "mine.py"], tmp_path)
    assert "klnorm: form B layer before classifier" in printed
    loss = float(re.search(r"validation loss ([\d.]+)", printed)[1])
    data = tasks.load("topic_shift", size=200)["validation"]
    model = klnorm_lib.load(tmp_path / "run/final")
    _, tokenizer = encoders.load("klnorm-nano", num_labels=5)
    batch = tokenizer(list(data["text"]), truncation=True, max_length=64, padding=True, return_tensors="pt")
    with torch.no_grad():
        again = model(**batch, labels=torch.tensor(data["label"])).loss.item()
    assert again == pytest.approx(loss, abs=6e-4)
    assert loss < 1.2, "below the loss of guessing among five topics, log(5) = 1.61"


def test_a_killed_script_resumes_to_the_same_weights_bit_for_bit(tmp_path):
    zoo.build("bert").save_pretrained(tmp_path / "base")
    (tmp_path / "mine.py").write_text(RESUMING)
    call([sys.executable, "mine.py"], tmp_path)
    whole, cut = (klnorm_lib.load(tmp_path / name / "final").state_dict() for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(value, cut[key]) for key, value in whole.items())
    assert int(cut["classifier.layer.step"]) == 8


def python_blocks(path):
    return re.findall(r"(?m)^```python\n(.*?)^```", (ROOT / path).read_text(encoding="utf-8"), re.DOTALL)


def test_the_block_of_the_readme_trains_a_built_in_encoder(tmp_path):
    (block,) = python_blocks("README.md")
    set_seed(0)
    model, tokenizer = encoders.load("klnorm-nano", num_labels=2)
    data = tasks.load("biased_sentiment", size=40)["train"]
    data = data.map(lambda rows: tokenizer(rows["text"], truncation=True, padding=True), batched=True)
    settings = {"max_steps": 2, "per_device_train_batch_size": 8, "report_to": "none", "save_strategy": "no"}
    args = TrainingArguments(str(tmp_path), use_cpu=True, **settings)
    names = {"model": model, "args": args, "data": data, "Trainer": Trainer}
    exec(block, names)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    names["trainer"].train()
    moved = [name for name, p in model.named_parameters() if not torch.equal(before[name], p)]
    assert any(name.startswith("classifier.layer.") for name in moved)


def test_the_command_of_the_chapter_runs_on_a_readers_file(chapter, tmp_path, monkeypatch):
    text = "\n".join(cell.source for cell in chapter.cells if cell.cell_type == "markdown")
    commands = re.findall(r"(?m)^klnorm (run --data .*)$", text)
    assert len(commands) == 2
    rows = tasks.load("topic_shift", size=60)["train"].to_pandas()
    rows["label"] = [f"class {i}" for i in rows["label"]]
    pd.DataFrame(rows).to_csv(tmp_path / "my.csv", index=False)
    more = ["--steps", "2", "--evaluations", "1", "--records", "records.jsonl"]
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, [*commands[0].split(), *more])
    assert done.exit_code == 0, done.output
    (record,) = study.read_records(tmp_path / "records.jsonl")
    assert (record.status, record.method["name"]) == ("finished", "klnorm")


def card(name):
    return (ROOT / f"book/methods/{name}.md").read_text(encoding="utf-8")


def table(text, heading):
    """The rows of the table below a heading, without its head, as lists of cells."""
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return rows[2:]


@pytest.mark.parametrize("name", CARDS)
def test_card_lists_the_defaults_of_the_dataclass(name):
    written = {field.strip("`"): default.strip("`") for field, default, _ in table(card(name), "Defaults")}
    real = {field.name: repr(field.default) for field in dataclasses.fields(methods.REGISTRY[name])}
    assert written == real


@pytest.mark.parametrize("name", CARDS)
def test_card_counts_parameters_right(name):
    rows = table(card(name), "Cost")
    assert rows
    for expression, _, count in rows:
        method = eval(expression.strip("`"), {c.__name__: c for c in methods.REGISTRY.values()})
        assert method.name == name
        model = zoo.build("bert", hidden_size=384, num_labels=2)
        assert apply(model, ready(method, model)).added_parameters == int(count.replace(",", "")), expression


@pytest.mark.parametrize("name", CARDS)
def test_one_line_use_runs(name):
    block, *_ = python_blocks(f"book/methods/{name}.md")
    model, _ = encoders.load("klnorm-tiny", num_labels=2)  # its Fisher information ships
    names = {"model": model, "batches": [zoo.batch(model)]}
    exec(block, names)
    assert names["report"].changed[0].startswith(f"{name}: ")


@pytest.fixture(scope="module")
def recorded():
    """Names of the methods that packaged records tell of."""
    return {record.method["name"] for path in record_files() for record in study.read_records(path)}


@pytest.mark.parametrize("name", CARDS)
def test_card_says_whether_there_is_evidence(name, recorded):
    assert ("No comparison has been recorded yet" in card(name)) != (name in recorded)


def test_controls_have_the_size_their_cards_claim():
    sizes = [apply(zoo.build("bert"), method).added_parameters for method in (KLNorm(), MLPHead(), NormHead())]
    assert sizes[0] == sizes[1] > sizes[2]


def test_first_kl_of_form_c_is_what_the_card_says():
    assert r"$\sigma = 0.1$" in card("klnorm")
    assert r"(\sigma^2/2 - \ln \sigma) \approx 2.31\,d" in card("klnorm")
    model = zoo.build("bert", hidden_size=384)
    apply(model, KLNorm(form="C", beta=1.0))
    model(**zoo.batch(model))
    expected = 384 * (0.1**2 / 2 - torch.tensor(0.1).log().item())
    assert expected == pytest.approx(886, abs=0.5)
    assert klnorm_lib.auxiliary_loss(model).item() == pytest.approx(expected, rel=1e-3)
