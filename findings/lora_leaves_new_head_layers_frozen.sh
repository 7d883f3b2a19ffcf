#!/usr/bin/env bash
# LoRA for sequence classification leaves new layers of the head random, frozen and unsaved.
#
# Version: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU build), Python 3.11.
# Behaviour: with task_type="SEQ_CLS" peft trains and saves modules whose name ends in "classifier" or "score". Where the head
#   has further new layers (DeBERTa-v2: pooler.dense; ModernBERT: head.dense and head.norm; wav2vec 2.0: projector), or where
#   none has such a name (BART: classification_head.dense and .out_proj), these are drawn at random when the task model is
#   made from a pretrained encoder, stay frozen, and are not in the adapter's file. Whoever loads the adapter draws them anew.
#   No warning is given by get_peft_model or save_pretrained.
# A good guess says: the adapter of a classification task holds all that the pretrained encoder does not.
# Output seen (new parameters that are frozen and not saved; largest change of a logit after loading the adapter again):
#   BERT: 0 of 2; logits change: False
#   DeBERTa-v2: 2 of 4; logits change: True
#   ModernBERT: 2 of 4; logits change: True
#   BART: 4 of 4; logits change: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy transformers==5.23.0 accelerate==1.15.0 peft==0.21.2
cat > "$folder/try.py" <<'PY'
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModel, AutoModelForSequenceClassification, BartConfig, BertConfig, DebertaV2Config, ModernBertConfig, logging,
)

logging.set_verbosity_error()
SIZE = dict(vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
CONFIGS = {
    "BERT": (BertConfig(**SIZE), ["query", "value"]),
    "DeBERTa-v2": (DebertaV2Config(**SIZE), ["query_proj", "value_proj"]),
    "ModernBERT": (ModernBertConfig(**SIZE), ["Wqkv"]),
    "BART": (BartConfig(vocab_size=100, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
                        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64), ["q_proj", "v_proj"]),
}
ids = torch.tensor([[1, 7, 8, 9, 2]])
seen = []
for name, (config, targets) in CONFIGS.items():
    folder = Path(sys.argv[1], name)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder / "encoder")

    def task_model(seed):
        torch.manual_seed(seed)
        return AutoModelForSequenceClassification.from_pretrained(folder / "encoder", output_loading_info=True)

    model, loading = task_model(1)
    new = sorted(loading["missing_keys"])
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", target_modules=targets))
    trained = {
        key.removeprefix("base_model.model.").replace("modules_to_save.default.", "")
        for key, value in adapted.named_parameters() if value.requires_grad
    }
    frozen = [key for key in new if key not in trained]
    adapted.save_pretrained(folder / "adapter")
    again = PeftModel.from_pretrained(task_model(2)[0], folder / "adapter")
    with torch.no_grad():
        change = (adapted.eval()(ids).logits - again.eval()(ids).logits).abs().max().item()
    seen.append(f"{name}: {len(frozen)} of {len(new)}; logits change: {change > 1e-6}")
    print(seen[-1], frozen)
assert seen == [
    "BERT: 0 of 2; logits change: False",
    "DeBERTa-v2: 2 of 4; logits change: True",
    "ModernBERT: 2 of 4; logits change: True",
    "BART: 4 of 4; logits change: True",
], "the behaviour has changed"
PY
"$folder/env/bin/python" "$folder/try.py" "$folder/out"
