"""Tables and tensors of Fisher information: they come back as saved, with their origin, or say what is wrong."""

import json

import pytest
import torch
from safetensors.torch import save_file

from klnorm_lib import encoders
from klnorm_lib.probes.fisher.table import (
    TABLES,
    FisherTable,
    TensorSum,
    encoder_only,
    find,
    load_fisher,
    save_fisher,
    shipped,
    without_prefix,
)
from tests import zoo

ORIGIN = {"model": "small", "sequences": 3, "corpora": {"wiki": "ab"}, "sha256": None}


@pytest.fixture
def fisher():
    generator = torch.Generator().manual_seed(0)
    shapes = {"bert.embeddings.weight": (7, 4), "bert.layer.bias": (4,), "cls.bias": (7,)}
    return {name: 10 ** -(20 * torch.rand(shape, generator=generator)) for name, shape in shapes.items()}


def test_sums_and_counts_are_those_of_the_tensors(fisher):
    table = FisherTable.of(fisher, base="bert", **ORIGIN)
    assert list(table) == ["embeddings.weight", "layer.bias", "cls.bias"]
    for name, tensor in zip(table, fisher.values(), strict=True):
        assert table[name].numel == tensor.numel()
        assert table[name].mean == pytest.approx(tensor.double().mean().item(), rel=1e-12)
    assert table.provenance == ORIGIN


def test_a_table_comes_back_from_json(fisher, tmp_path):
    table = FisherTable.of(fisher, **ORIGIN)
    assert FisherTable.load(table.save(tmp_path / "deep" / "t.json")) == table


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_come_back_from_safetensors(fisher, tmp_path, dtype):
    found, origin = load_fisher(save_fisher(tmp_path / "f.safetensors", fisher, ORIGIN, dtype))
    assert origin == ORIGIN
    for name, tensor in fisher.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], tensor, rtol=0 if dtype == torch.float32 else 2**-8, atol=0)
    table = FisherTable.load(tmp_path / "f.safetensors")
    assert table.provenance == ORIGIN
    assert table["cls.bias"].sum == pytest.approx(found["cls.bias"].double().sum().item())


def test_half_precision_would_lose_small_values(fisher, tmp_path):
    assert (fisher["bert.embeddings.weight"].half() == 0).any()
    with pytest.raises(ValueError, match="float16"):
        save_fisher(tmp_path / "f.safetensors", fisher, ORIGIN, torch.float16)


BROKEN = {
    "no json": ("{", "no Fisher table"),
    "a list": ("[]", "no Fisher table"),
    "other format": ('{"format": 9, "provenance": {}, "tensors": {}}', "format 9"),
    "no tensors": ('{"format": 1, "provenance": {}}', "'tensors' is missing"),
    "no count": ('{"format": 1, "provenance": {}, "tensors": {"w": {"sum": 1}}}', "'numel' is missing"),
    "empty": ('{"format": 1, "provenance": {}, "tensors": {}}', "has no tensor"),
    "negative": ('{"format": 1, "provenance": {}, "tensors": {"w": {"sum": -1, "numel": 2}}}', "w sums to -1"),
    "not a number": ('{"format": 1, "provenance": {}, "tensors": {"w": {"sum": NaN, "numel": 2}}}', "w sums to nan"),
    "no elements": (
        '{"format": 1, "provenance": {}, "tensors": {"w": {"sum": 1, "numel": 0}}}',
        "w is said to have 0 elements, and a sum of 1",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_table_says_what_is_wrong(fault, tmp_path):
    text, what = BROKEN[fault]
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(ValueError, match=what) as told:
        FisherTable.load(tmp_path / "t.json")
    assert "t.json" in str(told.value)


def test_broken_tensors_say_what_is_wrong(fisher, tmp_path):
    path = save_fisher(tmp_path / "f.safetensors", fisher, ORIGIN)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="corrupt or truncated"):
        load_fisher(path)
    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="nothing of its origin"):
        load_fisher(tmp_path / "w.safetensors")
    for value in (-1.0, float("inf")):
        with pytest.raises(ValueError, match=r"cls\.bias in the tensors given"):
            save_fisher(path, {**fisher, "cls.bias": torch.tensor([1.0, value])}, ORIGIN)
    save_file({"w": torch.tensor([-1.0])}, path, metadata={"klnorm_fisher": json.dumps(ORIGIN)})
    with pytest.raises(ValueError, match="w in .*squares"):
        load_fisher(path)


def test_prefixes_are_taken_off_where_they_stand():
    model = zoo.build("bert", kind="masked-lm")
    fisher = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    own = dict(model.base_model.named_parameters())
    stripped = without_prefix(fisher, model.base_model_prefix)
    assert set(own) < set(stripped)
    assert all(name.startswith("cls.") for name in set(stripped) - set(own))
    assert encoder_only(model, fisher).keys() == own.keys()
    assert without_prefix(fisher, "") == fisher
    with pytest.raises(ValueError, match="same name"):
        without_prefix({"bert.w": torch.ones(1), "w": torch.ones(1)}, "bert")


def test_what_is_not_there_says_what_is_and_how_to_make_it():
    for load in (FisherTable.load, load_fisher):
        with pytest.raises(FileNotFoundError, match="klnorm-tiny.*klnorm fisher --model no/such"):
            load("no/such")
    with pytest.raises(FileNotFoundError, match="klnorm-tiny:random"):
        find("klnorm-tiny:random")


@pytest.mark.parametrize("name", shipped())
def test_what_ships_tells_where_it_is_from(name):
    table = FisherTable.load(name)
    origin = table.provenance
    assert origin["model"] == name
    assert {"sha256", "corpora", "sequences", "tokens", "seed", "mask_probability", "versions"} <= set(origin)
    if name in encoders.names():
        assert origin["sha256"] == encoders.resolve(name).sha256, "made from other weights; make it again"
    assert (TABLES / f"{name.replace('/', '--')}.json").stat().st_size < 100_000


def test_the_full_fisher_of_klnorm_tiny_fits_its_encoder_and_its_table():
    fisher, origin = load_fisher("klnorm-tiny")
    model, _ = encoders.load("klnorm-tiny", 2)
    shapes = {name: p.shape for name, p in model.base_model.named_parameters() if not name.startswith("pooler")}
    assert {name: tensor.shape for name, tensor in fisher.items()} == shapes
    table = FisherTable.load("klnorm-tiny")
    assert origin == table.provenance
    for name, tensor in fisher.items():  # bfloat16 keeps three digits, and sums more
        assert table[name] == TensorSum(pytest.approx(tensor.double().sum().item(), rel=2e-3), tensor.numel())
    assert find("klnorm-tiny", ".safetensors").stat().st_size < 16_000_000
