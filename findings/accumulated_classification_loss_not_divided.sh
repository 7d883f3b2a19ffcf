#!/usr/bin/env bash
# Gradient accumulation multiplies the step of a sequence classifier in the stock Trainer.
#
# Version: transformers 5.23.0, accelerate 1.15.0, torch 2.13.0 (CPU build), Python 3.11.
# Behaviour: the Trainer divides the loss by the number of accumulated parts, unless the model's forward takes **kwargs: then it
#   hands over num_items_in_batch and trusts the model to divide by it. BertForSequenceClassification.forward takes **kwargs and
#   its loss is the mean over the part all the same. The same 16 rows in 2, 4, 8 parts make a gradient 2, 4, 8 times as long.
#   With Adam the length cancels in each step, but clipping at max_grad_norm, weight decay against the gradient and SGD see it.
# A good guess says: per_device_train_batch_size times gradient_accumulation_steps fixes the step, however it is split.
# Way out: model.accepts_loss_kwargs = False.
# Output seen (length of one SGD step relative to one undivided batch):
#   as it is: 1.00, 2.00, 4.00, 8.00
#   accepts_loss_kwargs = False: 1.00, 1.00, 1.00, 1.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy transformers==5.23.0 accelerate==1.15.0
cat > "$folder/try.py" <<'PY'
import sys

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

ROWS, PARTS = 16, (1, 2, 4, 8)
torch.manual_seed(0)
ids = torch.randint(5, 100, (ROWS, 8))
rows = [{"input_ids": ids[row], "labels": row % 2} for row in range(ROWS)]

def length(parts, trust_the_model):
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    ))
    if not trust_the_model:
        model.accepts_loss_kwargs = False
    before = [value.detach().clone() for value in model.parameters()]
    arguments = TrainingArguments(
        sys.argv[1], use_cpu=True, max_steps=1, per_device_train_batch_size=ROWS // parts, gradient_accumulation_steps=parts,
        optim="sgd", learning_rate=0.01, lr_scheduler_type="constant", max_grad_norm=0.0, save_strategy="no",
        report_to="none", disable_tqdm=True,
    )
    Trainer(model, arguments, train_dataset=rows).train()
    return torch.sqrt(sum((new - old).square().sum() for new, old in zip(model.parameters(), before))).item()

seen = []
for name, trust in (("as it is", True), ("accepts_loss_kwargs = False", False)):
    whole = length(1, trust)
    seen.append(f"{name}: " + ", ".join(f"{length(parts, trust) / whole:.2f}" for parts in PARTS))
print("\n".join(seen))
assert seen == [
    "as it is: 1.00, 2.00, 4.00, 8.00",
    "accepts_loss_kwargs = False: 1.00, 1.00, 1.00, 1.00",
], "the behaviour has changed"
PY
"$folder/env/bin/python" "$folder/try.py" "$folder/out"
