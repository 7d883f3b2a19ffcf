#!/usr/bin/env bash
# A fused optimiser hides its in-place updates from autograd.
#
# Version: torch 2.13.0, CPU build, Python 3.11.
# Behaviour: optimiser.step() changes weights in place. Autograd notices such a change by a version number on the tensor and
#   refuses to run a backward pass through a graph that was built before it. AdamW with fused=True does not raise the number:
#   the backward pass runs and uses the new weights for the old activations.
# A good guess says: all implementations of one optimiser differ in speed only, so this is an error for each of them.
# Why it matters: the transformers Trainer takes the fused implementation where there is one. Code that finds out from
#   `Parameter._version` whether a step was made sees none.
# Output seen:
#   single: RuntimeError
#   foreach: RuntimeError
#   fused: gradient 0.495 (the weight was 1 in the forward pass), version 0 -> 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
cat > "$folder/try.py" <<'PY'
import torch

def outcome(**implementation):
    weight = torch.nn.Parameter(torch.ones(3))
    scale = torch.nn.Parameter(torch.full((3,), 2.0))
    optimiser = torch.optim.AdamW([weight], lr=0.5, **implementation)
    product = (weight * scale).sum()
    before = weight._version
    weight.grad = torch.ones(3)
    optimiser.step()
    try:
        product.backward()
    except RuntimeError:
        return "RuntimeError"
    return f"gradient {scale.grad[0].item():.3f} (the weight was 1 in the forward pass), version {before} -> {weight._version}"

seen = [
    f"single: {outcome(foreach=False)}",
    f"foreach: {outcome(foreach=True)}",
    f"fused: {outcome(fused=True)}",
]
print("\n".join(seen))
assert seen == [
    "single: RuntimeError",
    "foreach: RuntimeError",
    "fused: gradient 0.495 (the weight was 1 in the forward pass), version 0 -> 0",
], "the behaviour has changed"
PY
"$folder/env/bin/python" "$folder/try.py"
