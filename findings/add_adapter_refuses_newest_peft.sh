#!/usr/bin/env bash
# A model's own add_adapter refuses a peft that get_peft_model works with.
#
# Version: transformers 5.24.0, peft 0.21.2, torch 2.13.0 (CPU build), Python 3.11. On 2026-12-01 no newer peft was released.
# Behaviour: pip installs both without a conflict. get_peft_model(model, LoraConfig(...)) works; model.add_adapter with the same
#   configuration raises ValueError and asks for peft 0.22.0 or newer. With transformers 5.23.0, which asks for 0.20.0, it works.
# A good guess says: two newest releases that pip resolves together work together, by either way of adding an adapter.
# Output seen:
#   get_peft_model: adapter added
#   add_adapter: ValueError, asks for 0.22.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy transformers==5.24.0 peft==0.21.2
cat > "$folder/try.py" <<'PY'
import re

from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertModel

def model():
    return BertModel(BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
    ))

def settings():
    return LoraConfig(r=2, target_modules=["query"])

adapted = get_peft_model(model(), settings())
seen = [f"get_peft_model: {'adapter added' if any('lora' in name for name, _ in adapted.named_parameters()) else 'none'}"]
try:
    model().add_adapter(settings())
    seen.append("add_adapter: adapter added")
except ValueError as error:
    seen.append(f"add_adapter: ValueError, asks for {re.search(r'[0-9]+[.][0-9]+[.][0-9]+', str(error))[0]}")
print("\n".join(seen))
assert seen == ["get_peft_model: adapter added", "add_adapter: ValueError, asks for 0.22.0"], "the behaviour has changed"
PY
"$folder/env/bin/python" "$folder/try.py"
