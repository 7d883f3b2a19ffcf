"""What computing the Fisher information asks of a model and of its loss, and how it leaves the model."""

import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from klnorm_lib import L2SP, VIB, KLNorm, RDrop, apply
from klnorm_lib.probes import diagonal_fisher
from klnorm_lib.probes.fisher import FisherSum
from klnorm_lib.probes.fisher.table import FisherTable
from tests.matrix import architectures
from tests.probes import language

METHODS = ("hooks", "func", "loop")


def state_of(model):
    """All that a probe could leave behind, other than weights."""
    return {
        "training": [m.training for m in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()],
        "wanted": [p.requires_grad for p in model.parameters()],
        "attention": model.config._attn_implementation,
    }


def half_trained(name="bert"):
    """A model with modules in either mode, a frozen layer and gradients of its own."""
    model = language.build(name)
    model(**language.batch("masked", 3, 8)).loss.backward()
    model.bert.encoder.layer[0].eval()
    model.bert.encoder.layer[1].attention.self.query.requires_grad_(False)
    return model


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_was(method):
    model = half_trained()
    before, weights = state_of(model), {n: p.clone() for n, p in model.named_parameters()}
    slopes = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    diagonal_fisher(model, language.batches("bert"), method=method, progress=False)
    assert state_of(model) == before
    assert all(torch.equal(p, weights[n]) for n, p in model.named_parameters())
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(slopes)
    assert all(torch.equal(model.get_parameter(n).grad, slope) for n, slope in slopes.items())


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_was_after_an_error(method):
    model, batches = half_trained(), language.batches("bert")
    before = state_of(model)

    def loss(model, batch):
        if batch["input_ids"].shape[1] == 8:  # the second batch
            raise KeyError("a mistake of the caller's")
        return model(batch["input_ids"]).logits.logsumexp((1, 2))

    with pytest.raises(KeyError, match="mistake"):
        diagonal_fisher(model, batches, loss=loss, method=method, progress=False)
    assert state_of(model) == before


@pytest.mark.parametrize("method", METHODS)
def test_frozen_parameters_are_left_out(method):
    model, batch = language.build("bert"), language.batch("masked", 3, 8)
    whole = diagonal_fisher(model, [batch], method=method, progress=False)
    model.bert.embeddings.requires_grad_(False)
    model.bert.encoder.layer[0].output.dense.weight.requires_grad_(False)
    found = diagonal_fisher(model, [batch], method=method, progress=False)
    assert set(whole) - set(found) == {n for n, p in model.named_parameters() if not p.requires_grad}
    assert max(language.apart(found, {n: whole[n] for n in found}).values()) < 1e-5
    with pytest.raises(ValueError, match="requires a gradient"):
        diagonal_fisher(model.requires_grad_(False), [batch], method=method, progress=False)


@pytest.mark.parametrize("method", METHODS)
def test_sequences_without_a_label_are_not_counted(method):
    model, batch = language.build("bert"), language.batch("masked", 4, 8)
    true = diagonal_fisher(model, [{k: v[[0, 2]] for k, v in batch.items()}], method=method, progress=False)
    batch["labels"][[1, 3]] = -100
    with pytest.warns(UserWarning, match="2 sequences have no labelled token"):
        found = diagonal_fisher(model, [batch], method=method, progress=False)
    assert max(language.apart(found, true).values()) < 1e-5
    batch["labels"][:] = -100
    with pytest.raises(ValueError, match="no sequence with a label"):
        diagonal_fisher(model, [batch], method=method, progress=False)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [1, 6])
def test_a_loss_that_is_not_finite_says_whose_it_is(method, bad):
    model, batches = language.build("bert"), language.batches("bert")  # of five and of three sequences
    ids = torch.cat([b["input_ids"][:, 0] for b in batches])
    ids[:] = 5
    ids[bad] = 6
    for batch, first in zip(batches, ids.split([5, 3]), strict=True):
        batch["first"] = first

    def loss(model, batch):
        logits = model(batch["input_ids"]).logits
        return logits.mean((1, 2)) + torch.where(batch["first"] == 6, float("nan"), 0.0)

    with pytest.raises(ValueError, match=f"not finite for sequence {bad} "):
        diagonal_fisher(model, batches, loss=loss, method=method, progress=False)


def test_what_is_not_one_loss_a_sequence_is_refused():
    model, batch = language.build("bert"), language.batch("masked", 3, 8)
    for method in METHODS:
        with pytest.raises((ValueError, RuntimeError), match="shape|dimension"):
            diagonal_fisher(model, [batch], lambda m, b: m(b["input_ids"]).logits, method=method, progress=False)

    def contrastive(model, batch):
        pooled = model(batch["input_ids"]).logits.mean(1)
        return (pooled @ pooled.T).logsumexp(1)

    with pytest.raises(ValueError, match="must not depend on the others"):
        diagonal_fisher(model, [batch], contrastive, progress=False)


def test_wrong_arguments_are_refused():
    model, batch = language.build("bert"), language.batch("masked", 3, 8)
    with pytest.raises(ValueError, match="hooks, func, loop"):
        diagonal_fisher(model, [batch], method="backpack")
    with pytest.raises(ValueError, match="no loss is defined for BertModel"):
        diagonal_fisher(model.bert, [batch])
    with pytest.raises(ValueError, match="no labels"):
        diagonal_fisher(model, [{"input_ids": batch["input_ids"]}], progress=False)
    with pytest.raises(ValueError, match="one row a sequence"):
        diagonal_fisher(model, [batch | {"labels": batch["labels"][:2]}], progress=False)
    with pytest.raises(ValueError, match="dict of tensors"):
        diagonal_fisher(model, [batch["input_ids"]], progress=False)
    with pytest.raises(ValueError, match="no sequence"):
        diagonal_fisher(model, [], progress=False)


class Scaled(nn.Module):
    """Something that no rule is known for."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.scale = inner, nn.Parameter(torch.rand(language.WIDTH) + 0.5)

    def forward(self, x):
        return self.inner(x) * self.scale


def test_an_unknown_module_is_computed_by_func_and_named():
    model, batches = language.build("bert"), language.batches("bert")
    model.bert.encoder.layer[1].output.dense = Scaled(model.bert.encoder.layer[1].output.dense)
    with pytest.warns(UserWarning, match=r"1 of 43 .*torch.func.*layer.1.output.dense \(Scaled\)"):
        found = diagonal_fisher(model, batches, progress=False)
    true = diagonal_fisher(model, batches, method="loop", progress=False)
    assert max(language.apart(found, true).values()) < 1e-5


def test_a_weight_used_outside_of_its_module_is_noticed():
    model, batches = language.build("bert"), language.batches("bert")
    layer = model.bert.encoder.layer[0].output
    layer.register_forward_hook(lambda m, _, out: out + m.dense.weight.sum(1))
    with pytest.warns(UserWarning, match=r"1 of 42 .*layer.0.output.dense \(Linear\) does not explain"):
        found = diagonal_fisher(model, batches, progress=False)
    true = diagonal_fisher(model, batches, method="loop", progress=False)
    assert max(language.apart(found, true).values()) < 1e-5


def test_what_func_cannot_follow_is_looped_over():
    class Branching(Scaled):
        def forward(self, x):
            return super().forward(x) if x.sum() > 1e9 else self.inner(x) * self.scale.sin()

    model, batches = language.build("bert"), language.batches("bert")
    model.bert.encoder.layer[1].output.dense = Branching(model.bert.encoder.layer[1].output.dense)
    with pytest.warns(UserWarning, match="a loop over the sequences computes"):
        found = diagonal_fisher(model, batches, progress=False)
    true = diagonal_fisher(model, batches, method="loop", progress=False)
    assert max(language.apart(found, true).values()) < 1e-5


def test_a_parameter_that_comes_into_play_late_is_counted():
    class Late(Scaled):
        def forward(self, x):
            return self.inner(x) * self.scale if x.shape[1] == 8 else self.inner(x)

    model, batches = language.build("bert"), language.batches("bert")  # of ten and of eight tokens
    model.bert.encoder.layer[1].output.dense = Late(model.bert.encoder.layer[1].output.dense)
    with pytest.warns(UserWarning, match="came into play later"):
        found = diagonal_fisher(model, batches, progress=False)
    true = diagonal_fisher(model, batches, method="loop", progress=False)
    assert true["bert.encoder.layer.1.output.dense.scale"].norm() > 0
    assert max(language.apart(found, true).values()) < 1e-5


def test_parts_of_a_model_that_the_loss_does_not_see_are_zero():
    model, batch = language.build("bert-classifier"), language.batch("classification", 3, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = diagonal_fisher(
            model, [batch], lambda m, b: m.bert(b["input_ids"]).last_hidden_state.sin().sum((1, 2)), progress=False
        )
    unseen = {n for n, v in found.items() if not v.any()}
    assert unseen == {n for n in found if n.startswith(("classifier", "bert.pooler"))}


def test_only_an_adapter_is_trained():
    model = get_peft_model(language.build("bert"), LoraConfig(r=2, target_modules=["query", "value"]))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(p)
    batches = language.batches("bert")
    found, true = (diagonal_fisher(model, batches, method=m, progress=False) for m in ("hooks", "loop"))
    assert {n.split(".")[-3] for n in found} == {"lora_A", "lora_B"}
    assert max(language.apart(found, true).values()) < 1e-5


def test_what_is_wrapped_around_a_model_is_looked_into():
    """DataParallel, torch.compile, distributed training and adapters, with the names of the model inside."""
    model, batches = language.build("bert"), language.batches("bert")
    true = diagonal_fisher(model, batches, method="loop", progress=False)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = {
            "parallel": nn.DataParallel(model),
            "distributed": nn.parallel.DistributedDataParallel(model),
            "compiled": torch.compile(model),
            "both": nn.DataParallel(torch.compile(model)),
        }
        for outer in wrapped.values():
            before = [m.training for m in outer.modules()]
            for method in METHODS:
                found = diagonal_fisher(outer, batches, method=method, progress=False)
                assert list(found) == list(true)
                assert max(language.apart(found, true).values()) < 1e-5
            assert [m.training for m in outer.modules()] == before
    finally:
        torch.distributed.destroy_process_group()
    model.bert.encoder.layer[0].compile()
    model.bert.encoder.layer[1] = torch.compile(model.bert.encoder.layer[1])
    found = diagonal_fisher(model, batches, progress=False)
    assert list(found) == list(true)
    assert max(language.apart(found, true).values()) < 1e-5


@pytest.mark.parametrize("wrap", [lambda m: m, nn.DataParallel, torch.compile])
def test_an_adapters_parameters_have_the_names_of_the_model_inside(wrap):
    model = wrap(get_peft_model(language.build("bert"), LoraConfig(r=2, target_modules=["query"])))
    found, true = (diagonal_fisher(model, language.batches("bert"), method=m, progress=False) for m in METHODS[::2])
    assert all(name.startswith("bert.encoder.layer.") for name in found)
    assert {name.rsplit(".query.")[1] for name in found} == {"lora_A.default.weight", "lora_B.default.weight"}
    assert max(language.apart(found, true).values()) < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_modes_that_record_no_gradients_do_not_matter(method):
    model, batches = language.build("bert"), language.batches("bert")
    true = diagonal_fisher(model, batches, method="loop", progress=False)
    model.config.return_dict = False
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            made = [{k: v.clone() for k, v in batch.items()} for batch in batches]
            found = diagonal_fisher(model, made, method=method, progress=False)
        assert max(language.apart(found, true).values()) < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_what_a_model_keeps_in_evaluation_is_not_used(method):
    """LeViT computes its attention biases once: without a gradient, if that is how it was called first."""
    model = architectures.build("image/levit").eval()
    batch = architectures.batch("image/levit", model, rows=3)
    with torch.no_grad():
        model(pixel_values=batch["pixel_values"])
    found = diagonal_fisher(model, [batch], method=method, progress=False)
    model.zero_grad()
    expected = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for row in range(3):
        for module in model.modules():
            module.__dict__.get("attention_bias_cache", {}).clear()
        loss = model(**{k: v[row : row + 1] for k, v in batch.items()}).loss
        slopes = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        for total, slope in zip(expected.values(), slopes, strict=True):
            total.add_(0 if slope is None else slope.square() / 3)
    biases = [n for n in found if n.endswith("attention_biases")]
    assert biases
    assert any(expected[n].any() for n in biases)
    assert max(language.apart({n: found[n] for n in biases}, {n: expected[n] for n in biases}).values()) < 1e-3


class Beside(nn.Module):
    """A layer, and parameters without elements beside it: some that are used, one that is not."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.none = inner, nn.Linear(0, language.WIDTH, bias=False)
        self.unused, self.table = nn.Parameter(torch.empty(0)), nn.Embedding(4, 0)

    def forward(self, x):
        nothing = torch.cat([x[..., :0], self.table(torch.zeros(x.shape[:-1], dtype=torch.long))], -1)
        return self.inner(x) + self.none(nothing)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("method", METHODS)
def test_parameters_without_elements_are_there_without_any(method):
    model, batches = language.build("bert"), language.batches("bert")
    true = diagonal_fisher(model, batches, method="loop", progress=False)
    model.bert.encoder.layer[0].output.dense = Beside(model.bert.encoder.layer[0].output.dense)
    found = diagonal_fisher(model, batches, method=method, progress=False)
    assert list(found) == [n for n, _ in model.named_parameters()]
    empty = {n for n, v in found.items() if not v.numel()}
    assert {n.split("dense.")[1] for n in empty} == {"none.weight", "unused", "table.weight"}
    full = {n.replace("dense.inner", "dense"): v for n, v in found.items() if v.numel()}
    assert max(language.apart({n: full[n] for n in true}, true).values()) < 1e-5
    table = FisherTable.of(found)
    assert all((table[n].sum, table[n].numel, table[n].mean) == (0.0, 0, 0.0) for n in empty)
    model.requires_grad_(False)
    model.bert.encoder.layer[0].output.dense.unused.requires_grad_(True)
    with pytest.raises(ValueError, match="requires a gradient"):
        diagonal_fisher(model, batches, method=method, progress=False)


@pytest.mark.parametrize("method", METHODS)
def test_ways_of_training_do_not_matter(method):
    """Gradient checkpointing, inputs that ask for gradients, and sparse gradients."""
    model, batches = language.build("bert"), language.batches("bert")
    true = diagonal_fisher(model, batches, method="loop", progress=False)
    model.gradient_checkpointing_enable()
    model.bert.embeddings.token_type_embeddings.sparse = True
    found = diagonal_fisher(model, batches, method=method, progress=False)
    assert max(language.apart(found, true).values()) < 1e-5
    assert model.is_gradient_checkpointing
    model.enable_input_require_grads()
    found = diagonal_fisher(model, batches, method=method, progress=False)
    assert max(language.apart(found, true).values()) < 1e-5


PENALTIES = {
    "pooled": (KLNorm(beta=1.0, form="C"),),
    "internal": (KLNorm(beta=1.0, placement="internal"),),
    "vib": (VIB(beta=1.0),),
    "both": (L2SP(0.1), RDrop(1.0)),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_a_penalty_is_not_part_of_the_loss(name):
    model, batch = language.build("bert-classifier"), language.batch("classification", 4, 8)
    apply(model, *PENALTIES[name])
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    modes = [m.training for m in model.modules()]

    def loss(model, batch):
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return nn.functional.cross_entropy(logits, batch["labels"], reduction="none")

    true = diagonal_fisher(model, [batch], loss, "loop", progress=False)
    for method in METHODS:
        found = diagonal_fisher(model, [batch], method=method, progress=False)
        assert max(language.apart(found, true).values()) < 1e-5
    assert [m.training for m in model.modules()] == modes


def test_a_fisher_sum_outside_of_its_context_is_refused():
    with pytest.raises(RuntimeError, match="with"):
        FisherSum(language.build("bert")).add(language.batch("masked", 2, 8))
