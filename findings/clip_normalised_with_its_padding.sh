#!/usr/bin/env bash
# The wav2vec 2.0 feature extractor scales a clip by the length of its neighbour in the batch.
#
# Version: transformers 5.23.0, Python 3.11.
# Behaviour: Wav2Vec2FeatureExtractor with do_normalize=True brings a clip to mean 0 and variance 1. Unless it returns an
#   attention mask, which is not its default, it does so after padding and over the padding: a clip beside one that is 16 times
#   as long comes out 4 times as loud as alone. Checkpoints with a group norm are published with return_attention_mask=False.
# A good guess says: normalisation is a property of the clip, and padding is added behind it.
# Output seen:
#   alone: standard deviation 1.00
#   beside a clip 16 times as long: 4.00
#   the same, return_attention_mask=True: 1.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.0 transformers==5.23.0
cat > "$folder/try.py" <<'PY'
import numpy as np
from transformers import Wav2Vec2FeatureExtractor

noise = np.random.default_rng(0).standard_normal(17_000).astype(np.float32) / 10
short, long = noise[:1_000], noise[1_000:]

def deviation(clips, mask=False):
    extract = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=mask)
    values = extract(clips, sampling_rate=16_000, padding=True, return_tensors="np").input_values
    return f"{values[0][:len(short)].std():.2f}"

seen = [
    f"alone: standard deviation {deviation([short])}",
    f"beside a clip 16 times as long: {deviation([short, long])}",
    f"the same, return_attention_mask=True: {deviation([short, long], mask=True)}",
]
print("\n".join(seen))
assert [line.rsplit(" ", 1)[1] for line in seen] == ["1.00", "4.00", "1.00"], "the behaviour has changed"
PY
"$folder/env/bin/python" "$folder/try.py"
