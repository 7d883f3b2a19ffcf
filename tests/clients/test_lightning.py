"""Lightning trains a model in the mode it was handed in: in evaluation mode a penalty raises, else it counts once."""

import contextlib
import warnings

import lightning
import pytest
import torch

from klnorm_lib import L2SP, Dropout, KLNorm, RDrop, apply, auxiliary_loss, load
from tests.clients import pieces

IDS = torch.randint(5, 100, (8, 12), generator=torch.Generator().manual_seed(0))
ROWS = [{"input_ids": ids, "labels": ids[0] % 2} for ids in IDS]
METHODS = [KLNorm(form="C", beta=0.01), L2SP(), RDrop(), Dropout(p=0.3)]


class Module(lightning.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model, self.shares = model, []

    def training_step(self, batch, _):
        outputs = self.model(**batch)
        task = torch.nn.functional.cross_entropy(outputs.logits, batch["labels"])
        self.shares.append((outputs.loss.item(), task.item(), float(auxiliary_loss(self.model).detach())))
        return outputs.loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)


def fit(model, folder):
    module = Module(model)
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(ROWS, 4))
    return module, trainer


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_in_evaluation_mode_it_warns_and_a_penalty_raises_at_the_step(method, tmp_path):
    model = pieces.bert().eval()
    apply(model, method)
    lost = contextlib.nullcontext() if method.name == "dropout" else pytest.raises(RuntimeError, match="optimiser step")
    with pytest.warns(UserWarning, match=r"model\.train\(\)"), lost:
        fit(model, tmp_path)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_in_training_mode_the_penalty_is_in_the_loss_once(method, tmp_path):
    model = pieces.bert().train()
    apply(model, method)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*evaluation mode")
        module, _ = fit(model, tmp_path)
    assert len(module.shares) == 4
    if method.name != "r_drop":  # whose task loss is the mean of two passes
        for loss, task, penalty in module.shares:
            assert loss == pytest.approx(task + penalty, rel=1e-5)
    if method.name != "dropout":
        assert module.shares[-1][2] > 0


def test_its_checkpoint_and_the_saved_folder_are_the_same_model(tmp_path):
    model = pieces.bert().train()
    apply(model, KLNorm(form="C", beta=0.01))
    module, trainer = fit(model, tmp_path)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    model.eval().save_pretrained(tmp_path / "saved")
    again = pieces.bert()
    apply(again, KLNorm(form="C", beta=0.01))
    state = torch.load(tmp_path / "last.ckpt", weights_only=False)["state_dict"]
    again.load_state_dict({key.removeprefix("model."): value for key, value in state.items()})
    expected = model(IDS).logits
    assert torch.equal(again.eval()(IDS).logits, expected)
    assert torch.equal(load(tmp_path / "saved")(IDS).logits, expected)
