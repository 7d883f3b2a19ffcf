"""The README.md beside a saved model: what it says, that its own lines open the model, and what of others it keeps."""

import json
import re
import shutil

import pytest
import torch
import transformers.modeling_utils
import transformers.trainer
import transformers.utils.hub
from huggingface_hub.errors import EntryNotFoundError
from transformers import Trainer, TrainingArguments

import klnorm_lib
from klnorm_lib import Dropout, KLNorm, NormHead, apply, load
from tests import zoo


def changed(*methods, base="google-bert/bert-base-uncased"):
    torch.manual_seed(0)
    model = zoo.build("bert")
    model.config._name_or_path = base
    apply(model, *methods)
    return model.eval()


def card(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def blocks(text, kind):
    return re.findall(rf"(?m)^```{kind}\n(.*?)^```", text, re.DOTALL)


def test_it_says_what_the_model_is_and_its_lines_open_it(tmp_path):
    model = changed(KLNorm(beta=0.02), Dropout(p=0.3))
    model.save_pretrained(tmp_path)
    text = card(tmp_path)
    assert "base_model: google-bert/bert-base-uncased\n" in text
    assert f"`klnorm`, `dropout`, by klnorm-lib {klnorm_lib.__version__}" in text
    (settings,) = blocks(text, "json")
    assert json.loads(settings) == [m.to_dict() for m in model._klnorm_methods]
    (opening,) = blocks(text, "python")
    assert "import AutoModelForSequenceClassification" in opening
    names = {}
    exec(opening.replace("this folder or repository", str(tmp_path)), names)
    inputs = zoo.batch(model)
    assert torch.equal(names["model"](**inputs).logits, model(**inputs).logits)


def test_saved_again_it_names_the_same_base(tmp_path):
    changed(KLNorm()).save_pretrained(tmp_path / "a")
    load(tmp_path / "a").save_pretrained(tmp_path / "b")
    assert card(tmp_path / "a") == card(tmp_path / "b")


def test_of_a_local_base_only_the_name_is_written(tmp_path):
    (tmp_path / "my-encoder").mkdir()
    changed(KLNorm(), base=str(tmp_path / "my-encoder")).save_pretrained(tmp_path / "saved")
    assert "from `my-encoder` with" in card(tmp_path / "saved")
    for file in ("README.md", "config.json"):
        assert str(tmp_path) not in (tmp_path / "saved" / file).read_text()


def test_a_card_that_is_there_is_kept_and_our_section_renewed(tmp_path):
    mine = "---\nlicense: mit\n---\n\n# Mine\n\nWords of my own.\n"
    (tmp_path / "README.md").write_text(mine)
    changed(KLNorm(beta=0.02)).save_pretrained(tmp_path)
    first = card(tmp_path)
    assert first.startswith(mine)
    changed(NormHead("layer")).save_pretrained(tmp_path)
    assert card(tmp_path).startswith(mine)
    assert card(tmp_path).count("## Methods of klnorm-lib") == 1
    assert "`norm_head`" in card(tmp_path)
    assert "`klnorm`" not in card(tmp_path)


def test_the_card_that_a_trainer_writes_says_it_too(tmp_path):
    model = changed(KLNorm())
    rows = [{k: v[i % len(v)] for k, v in zoo.batch(model).items()} for i in range(4)]
    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, max_steps=1, save_strategy="no")
    trainer = Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    trainer.save_model()
    trainer.create_model_card(tasks="text-classification", finetuned_from="google-bert/bert-base-uncased")
    assert "generated_from_trainer" in card(tmp_path)
    assert card(tmp_path).count("## Methods of klnorm-lib") == 1
    (opening,) = blocks(card(tmp_path), "python")
    assert "import klnorm_lib" in opening


class Hub:
    """A hub that is a folder."""

    def __init__(self, folder):
        self.folder = folder

    def create_repo(self, repo_id, **_):
        return type("Repository", (), {"repo_id": repo_id})

    def create_commit(self, repo_id, operations, **_):
        for operation in operations:
            target = self.folder / repo_id / operation.path_in_repo
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(operation.path_or_fileobj, target)

    def create_branch(self, **_):
        pass

    def upload_folder(self, repo_id, folder_path, **_):
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub(tmp_path / "hub")
    for module in (transformers.utils.hub, transformers.modeling_utils, transformers.trainer):
        monkeypatch.setattr(module, "hf_api", lambda *a, **k: hub)
    local = transformers.utils.hub.ModelCard.load

    def of_a_file(name, **options):
        if name == "me/mine":
            raise EntryNotFoundError("no card")
        return local(name, **options)

    monkeypatch.setattr(transformers.utils.hub.ModelCard, "load", of_a_file)
    return hub


@pytest.mark.parametrize("way", ["model", "saving", "trainer"])
def test_what_is_pushed_to_the_hub_opens(tmp_path, hub, way):
    model = changed(KLNorm(beta=0.02))
    if way == "model":
        model.push_to_hub("me/mine")
    elif way == "saving":
        model.save_pretrained(tmp_path / "mine", push_to_hub=True, repo_id="me/mine")
    else:
        (tmp_path / "out").mkdir()
        arguments = TrainingArguments(str(tmp_path / "out"), report_to="none", use_cpu=True, hub_model_id="me/mine")
        Trainer(model, arguments).push_to_hub()
    pushed = hub.folder / "me/mine"
    inputs = zoo.batch(model)
    assert torch.equal(load(pushed)(**inputs).logits, model.to("cpu").eval()(**inputs).logits)
    text = card(pushed)
    assert text.count("## Methods of klnorm-lib") == 1
    assert '"beta": 0.02' in text
    assert "import AutoModelForSequenceClassification" in text
