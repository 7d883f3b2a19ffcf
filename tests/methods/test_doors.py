"""Hugging Face's own ways to open a saved folder: the same logits with klnorm_lib imported, an error without it."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
import transformers as T
from tokenizers import Tokenizer, models, pre_tokenizers

from klnorm_lib import L2SP, VIB, Dropout, KLNorm, Mixout, apply, effective_rates, load

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
IMAGE = SIZE | {"image_size": 32, "patch_size": 8}
IDS = torch.arange(5, 69).reshape(4, 16)


def word(i):
    return chr(97 + i // 26) + chr(97 + i % 26)


def bert(*methods):
    torch.manual_seed(0)
    model = T.BertForSequenceClassification(T.BertConfig(vocab_size=120, max_position_embeddings=64, **SIZE))
    apply(model, *methods)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture
def folder(tmp_path):
    model = bert(KLNorm(placement="internal"), VIB(), Dropout(p=0.3))
    model.save_pretrained(tmp_path)
    assert model.config.model_type == "bert"
    assert type(model.config) is T.BertConfig
    words = Tokenizer(models.WordLevel({word(i): i for i in range(120)}, unk_token=word(1)))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    T.PreTrainedTokenizerFast(tokenizer_object=words, pad_token=word(0), unk_token=word(1)).save_pretrained(tmp_path)
    return tmp_path, model(IDS).logits


@pytest.mark.parametrize("door", [T.AutoModelForSequenceClassification, T.BertForSequenceClassification])
def test_with_the_library_it_is_the_same_model(folder, door):
    path, expected = folder
    model = door.from_pretrained(path)
    assert torch.equal(model(IDS).logits, expected)
    assert set(effective_rates(model).values()) == {0.3}
    assert model.config.model_type == "bert"
    assert T.AutoConfig.from_pretrained(path).model_type == "bert"
    model, info = door.from_pretrained(path, dtype="auto", output_loading_info=True, id2label={0: "no", 1: "yes"})
    assert not any(info.values())
    assert model.config.id2label == {0: "no", 1: "yes"}
    model.save_pretrained(path / "again")
    assert torch.equal(door.from_pretrained(path / "again")(IDS).logits, expected)


def test_a_repository_of_the_hub_is_the_same_model(folder, tmp_path_factory):
    path, expected = folder
    cache = tmp_path_factory.mktemp("cache")
    snapshot = cache / "models--me--mine/snapshots" / ("0" * 40)
    shutil.copytree(path, snapshot)
    (cache / "models--me--mine/refs").mkdir()
    (cache / "models--me--mine/refs/main").write_text("0" * 40)
    for door in (T.AutoModelForSequenceClassification, T.BertForSequenceClassification):
        assert torch.equal(door.from_pretrained("me/mine", cache_dir=cache)(IDS).logits, expected)
    assert T.AutoConfig.from_pretrained("me/mine", cache_dir=cache).model_type == "bert"
    for nothing in ("me/other", str(tmp_path_factory.mktemp("x") / "gone")):
        with pytest.raises(OSError):  # noqa: PT011 - the words are those of transformers
            T.BertForSequenceClassification.from_pretrained(nothing, cache_dir=cache)


def test_pipeline_and_tokenizer(folder):
    path, _ = folder
    text = " ".join(map(word, IDS[0].tolist()))
    assert T.AutoTokenizer.from_pretrained(path)(text)["input_ids"] == IDS[0].tolist()
    (found,) = T.pipeline("text-classification", model=str(path), device="cpu")(text)
    assert found["score"] == pytest.approx(load(path)(IDS[:1]).logits.softmax(-1).max().item(), abs=1e-6)


@pytest.mark.parametrize(
    ("door", "options", "message"),
    [
        (T.AutoModelForSequenceClassification, {"num_labels": 3, "ignore_mismatched_sizes": True}, "2 labels, not 3"),
        (T.BertForSequenceClassification, {"num_labels": 3}, "2 labels, not 3"),
        (T.AutoModel, {}, "not with BertModel"),
        (T.BertForTokenClassification, {}, "not with BertForTokenClassification"),
        (T.BertForSequenceClassification, {"state_dict": {}}, "cannot be opened with state_dict"),
    ],
)
def test_what_would_not_be_the_saved_model_is_refused(folder, door, options, message):
    with pytest.raises(ValueError, match=message):
        door.from_pretrained(folder[0], **options)


def test_a_truncated_file_is_refused(folder):
    file = folder[0] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="corrupt or truncated"):
        T.AutoModelForSequenceClassification.from_pretrained(folder[0])


WITHOUT = """
import sys, transformers
folder = sys.argv[1]
for name in ("AutoModelForSequenceClassification", "BertForSequenceClassification", "AutoConfig"):
    try:
        getattr(transformers, name).from_pretrained(folder)
    except (ValueError, OSError) as error:
        print(name, error)
assert "klnorm_lib" not in sys.modules
"""


@pytest.mark.parametrize("methods", [[KLNorm()], [Dropout(p=0.3)]], ids=["klnorm", "dropout"])
def test_without_the_library_it_is_refused(tmp_path, methods):
    bert(*methods).save_pretrained(tmp_path)
    done = subprocess.run([sys.executable, "-c", WITHOUT, tmp_path], capture_output=True, text=True, check=True)
    assert (
        "AutoModelForSequenceClassification The checkpoint you are trying to load has model type `klnorm`"
        in done.stdout
    )
    assert "BertForSequenceClassification " in done.stdout
    assert "import-klnorm_lib-before" in done.stdout
    assert "AutoConfig " in done.stdout


def test_importing_the_library_imports_neither_transformers_nor_torch():
    code = "import sys, klnorm_lib; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


RENAMED = {  # transformers saves their keys under older names
    "vit": lambda: (T.ViTForImageClassification(T.ViTConfig(**IMAGE)), torch.randn(2, 3, 32, 32)),
    "beit": lambda: (T.BeitForImageClassification(T.BeitConfig(**IMAGE)), torch.randn(2, 3, 32, 32)),
    "ast": lambda: (
        T.ASTForAudioClassification(T.ASTConfig(max_length=64, num_mel_bins=32, **SIZE)),
        torch.randn(2, 64, 32),
    ),
}


@pytest.mark.parametrize("method", [KLNorm(placement="internal"), Mixout(), L2SP(alpha=0.1)], ids=lambda m: m.name)
@pytest.mark.parametrize("family", RENAMED)
def test_models_whose_keys_are_renamed(tmp_path, family, method):
    model, inputs = RENAMED[family]()
    apply(model, method)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.eval().save_pretrained(tmp_path)
    assert torch.equal(load(tmp_path)(inputs).logits, model(inputs).logits)


@pytest.mark.parametrize("method", [KLNorm(), VIB(bottleneck=8), Dropout(p=0.3)], ids=lambda m: m.name)
def test_a_folder_of_sound_opens_with_its_feature_extractor(tmp_path, method):
    model, inputs = RENAMED["ast"]()
    apply(model, method)
    model.eval().save_pretrained(tmp_path)
    T.ASTFeatureExtractor(num_mel_bins=32, max_length=64).save_pretrained(tmp_path)
    for auto in (T.AutoFeatureExtractor, T.AutoProcessor):
        assert type(auto.from_pretrained(tmp_path)) is T.ASTFeatureExtractor
    opened = T.pipeline("audio-classification", model=str(tmp_path), device="cpu")
    assert torch.equal(opened.model(inputs).logits, model(inputs).logits)


@pytest.mark.parametrize("family", ["bert", "ast"])
def test_trainer_resumes_and_loads_the_best(tmp_path, family):
    model, inputs = (bert(), IDS[:2]) if family == "bert" else RENAMED["ast"]()
    name = "input_ids" if family == "bert" else "input_values"
    rows = [{name: inputs[i % 2], "labels": i % 2} for i in range(8)]
    model = type(model)(model.config)
    apply(model, KLNorm(placement="internal"))
    arguments = T.TrainingArguments(
        str(tmp_path), use_cpu=True, num_train_epochs=2, per_device_train_batch_size=4, eval_strategy="epoch",
        save_strategy="epoch", load_best_model_at_end=True, report_to="none", learning_rate=0.01, disable_tqdm=True,
    )  # fmt: skip
    trainer = T.Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    best = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())["best_model_checkpoint"]
    with torch.no_grad():
        expected = load(best)(inputs).logits
        assert torch.equal(model.eval()(inputs).logits, expected)
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
        assert torch.equal(model.eval()(inputs).logits, expected)


@pytest.mark.parametrize("model", ["bert", "gpt2"])
def test_a_layer_before_a_tied_decoder_is_refused(model):
    sizes = {"vocab_size": 120, "bos_token_id": 1, "eos_token_id": 2}
    if model == "bert":
        model = T.BertForMaskedLM(T.BertConfig(**sizes, **SIZE))
    else:
        model = T.GPT2LMHeadModel(T.GPT2Config(n_embd=32, n_layer=2, n_head=4, **sizes))
    with pytest.raises(ValueError, match="tied to"):
        apply(model, KLNorm())
