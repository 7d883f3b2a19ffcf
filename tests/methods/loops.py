"""What the tests of methods train with: moved weights, accumulation by hand, the stock Trainer on sixteen rows."""

import copy
import functools

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from tests import zoo

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
STILL = {
    "bert": NO_DROPOUT,
    "wav2vec2": dict.fromkeys(
        ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout"), 0.0
    ),
}


@functools.cache
def _built(name, **config):
    return zoo.build(name, **config)


def small(name, **config):
    """A model of one layer, in evaluation mode; a copy of one that is built once."""
    return copy.deepcopy(_built(name, num_hidden_layers=1, **config))


def moved(model, seed=1, by=0.1):
    """Every parameter off its start, as after some training: where many penalties and gradients are zero."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(by * torch.randn(p.shape, generator=g))
    return model


def stir(model, seed=1):
    """As :func:`moved`, for the parameters of the layers that methods added."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if type(module).__module__.startswith("klnorm_lib"):
                for p in module.parameters(recurse=False):
                    p.add_(0.1 * torch.randn(p.shape, generator=g))
    return model


def seeded(model, inputs, seed=5):
    """The model's outputs with the draws of ``seed``."""
    torch.manual_seed(seed)
    return model(**inputs)


def gradient(model):
    """The gradients of all parameters that have one, as one vector."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def accumulated(model, inputs, parts):
    """Gradient of the mean loss over ``parts`` equal slices of the batch of eight."""
    model.zero_grad()
    for i in range(parts):
        rows = slice(i * 8 // parts, (i + 1) * 8 // parts)
        (model(**{k: v[rows] for k, v in inputs.items()}).loss / parts).backward()
    return gradient(model)


def weights(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


class Rows(torch.utils.data.Dataset):
    def __init__(self, model, rows=16):
        self.data = zoo.batch(model, rows=rows)

    def __len__(self):
        return len(self.data["labels"])

    def __getitem__(self, i):
        return {k: v[i] for k, v in self.data.items()}


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_training_stop = True


def trainer_for(model, report, folder, callbacks=(), **arguments):
    arguments = {
        "per_device_train_batch_size": 4, "max_steps": 6, "learning_rate": 1e-2, "save_strategy": "no",
        "report_to": [], "disable_tqdm": True, "use_cpu": True, "seed": 3, "logging_strategy": "no",
    } | arguments  # fmt: skip
    return Trainer(
        model=model,
        args=TrainingArguments(str(folder), **arguments),
        train_dataset=Rows(model),
        callbacks=[*report.callbacks, *callbacks],
    )
