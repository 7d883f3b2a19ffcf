#!/usr/bin/env bash
# A folder stored in float16 trains to not-a-number or not, by the implementation of AdamW.
#
# Version: transformers 5.23.0, accelerate 1.15.0, torch 2.13.0 (CPU build), Python 3.11.
# Behaviour: from_pretrained without a dtype takes the one of the folder, and the Trainer trains float16 weights as they are,
#   without a float32 copy and without loss scaling. With optim="adamw_torch" all weights that meet a gradient of 0 are
#   not-a-number after the first step (epsilon 1e-8 is 0 in float16, and 0 is divided by 0); the log then shows a loss of 0.0.
#   With "adamw_torch_fused", the default, which computes in float32 inside, they stay finite.
# A good guess says: weights are loaded in float32 unless asked otherwise, and the implementations differ in speed only.
# Way out: from_pretrained(folder, dtype=torch.float32), or "dtype": "float32" in config.json beside the float16 weights.
# Output seen:
#   dtype of the loaded weights: torch.float16
#   adamw_torch_fused: finite True
#   adamw_torch: finite False, last logged loss 0.0
#   adamw_torch, config.json says float32: finite True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy transformers==5.23.0 accelerate==1.15.0
cat > "$folder/try.py" <<'PY'
import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel, Trainer, TrainingArguments

folder = Path(sys.argv[1])
torch.manual_seed(0)
BertModel(BertConfig(
    vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
)).half().save_pretrained(folder / "encoder")
rows = [{"input_ids": torch.randint(5, 100, (8,)), "labels": row % 2} for row in range(8)]

def train(optim):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(folder / "encoder")
    dtype = model.dtype
    trainer = Trainer(model, TrainingArguments(
        folder / "out", use_cpu=True, max_steps=3, per_device_train_batch_size=8, learning_rate=1e-4, optim=optim,
        logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
    ), train_dataset=rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return dtype, all(torch.isfinite(value).all().item() for value in model.parameters()), losses[-1]

dtype, fused, _ = train("adamw_torch_fused")
_, single, loss = train("adamw_torch")
config = folder / "encoder" / "config.json"
config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}))
seen = [
    f"dtype of the loaded weights: {dtype}",
    f"adamw_torch_fused: finite {fused}",
    f"adamw_torch: finite {single}, last logged loss {loss}",
    f"adamw_torch, config.json says float32: finite {train('adamw_torch')[1]}",
]
print("\n".join(seen))
assert seen == [
    "dtype of the loaded weights: torch.float16",
    "adamw_torch_fused: finite True",
    "adamw_torch: finite False, last logged loss 0.0",
    "adamw_torch, config.json says float32: finite True",
], "the behaviour has changed"
PY
"$folder/env/bin/python" "$folder/try.py" "$folder/out"
