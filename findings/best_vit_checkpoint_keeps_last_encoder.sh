#!/usr/bin/env bash
# load_best_model_at_end does not restore the encoder of a ViT.
#
# Version: transformers 5.23.0, accelerate 1.15.0, torch 2.13.0 (CPU build), Python 3.11.
# Behaviour: save_pretrained writes the encoder of ViT under other parameter names than the module has; from_pretrained
#   translates them back, the Trainer's loading of the best checkpoint does not. It takes the names that match, which are
#   those of the embeddings, the last norm and the classifier: the classifier of the best epoch then sits on the layers of
#   the last epoch. Two log lines name missing and unexpected keys; the training ends without an error.
# A good guess says: after training with load_best_model_at_end=True, evaluate() returns the best evaluation loss.
# Output seen:
#   layers equal those of the last epoch: True
#   classifier equals that of the best epoch: True
#   evaluate() returns the best loss: False
#   from_pretrained on the best checkpoint returns it: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy transformers==5.23.0 accelerate==1.15.0
cat > "$folder/try.py" <<'PY'
import math
import sys

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments, ViTConfig, ViTForImageClassification

torch.manual_seed(0)
model = ViTForImageClassification(ViTConfig(
    hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8,
    num_labels=2,
))
rows = [{"pixel_values": torch.randn(3, 32, 32), "labels": row % 2} for row in range(16)]

class Keep(TrainerCallback):
    def on_epoch_end(self, args, state, control, model, **kwargs):
        self.last = {name: value.clone() for name, value in model.state_dict().items()}

keep = Keep()
# The rate rises to 0.5 in the last epoch: the best epoch is an earlier one.
arguments = TrainingArguments(
    sys.argv[1], use_cpu=True, num_train_epochs=4, per_device_train_batch_size=8, learning_rate=0.5, warmup_steps=8,
    eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True, metric_for_best_model="eval_loss",
    report_to="none", disable_tqdm=True,
)
trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, callbacks=[keep])
trainer.train()
best = ViTForImageClassification.from_pretrained(trainer.state.best_model_checkpoint)
assert trainer.state.best_global_step < trainer.state.global_step, "the last epoch is the best here; the trial says nothing"
now, saved = model.state_dict(), best.state_dict()
layer = "vit.layers.0.mlp.fc1.weight"
assert not torch.equal(keep.last[layer], saved[layer])
target = trainer.state.best_metric
seen = [
    f"layers equal those of the last epoch: {torch.equal(now[layer], keep.last[layer])}",
    f"classifier equals that of the best epoch: {torch.equal(now['classifier.weight'], saved['classifier.weight'])}",
    f"evaluate() returns the best loss: {math.isclose(trainer.evaluate()['eval_loss'], target, rel_tol=1e-4)}",
]
again = Trainer(best, arguments, eval_dataset=rows).evaluate()["eval_loss"]
seen.append(f"from_pretrained on the best checkpoint returns it: {math.isclose(again, target, rel_tol=1e-4)}")
print("\n".join(seen))
assert [line.rsplit(" ", 1)[1] for line in seen] == ["True", "True", "False", "True"], "the behaviour has changed"
PY
"$folder/env/bin/python" "$folder/try.py" "$folder/out"
