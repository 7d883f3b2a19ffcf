"""Small generated sounds, and an audio set of them in the layout of a mirror."""

import hashlib
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile


def tone(index, rate=8000, seconds=0.1):
    """A tone of its own for every index, as samples in [-1, 1]."""
    time = np.arange(round(rate * seconds)) / rate
    return 0.4 * np.sin(2 * np.pi * (200 + 7 * index) * time)


def encoded(samples, rate=8000, form="FLAC", subtype=None):
    """Samples (n,) or (n, channels) as the bytes of a sound file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def write_set(folder, rows, label_names, revision=None, table="parquet", **changes):
    """An audio set; ``rows`` are dicts with label, split, further columns, and ``content`` or a tone of their own."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    written = []
    for index, row in enumerate(rows):
        row = dict(row)
        content = row.pop("content", None) or encoded(tone(index))
        name = f"audio/{index:04d}.flac"
        (folder / name).write_bytes(content)
        facts = {"file_name": name, "sample_rate": 8000, "n_samples": 800, "sha256": sha256(content)}
        written.append({**facts, **row})
    path = folder / f"metadata.{table}"
    if table == "parquet":
        pq.write_table(pa.Table.from_pylist(written), path)
    else:
        lines = [",".join(written[0]), *(",".join(map(str, row.values())) for row in written)]
        path.write_text("\n".join(lines) + "\n")
    splits = {}
    for split in dict.fromkeys(row["split"] for row in written):
        lines = [f"{row['sha256']}  {row['file_name']}\n" for row in written if row["split"] == split]
        splits[split] = {"rows": len(lines), "sha256": sha256("".join(lines).encode())}
    info = {
        "label_column": "label",
        "label_names": list(label_names),
        "columns": list(written[0]),
        "metadata": {"file": path.name, "rows": len(written), "sha256": sha256(path.read_bytes())},
        "splits": splits,
        "hub": {"revision": revision},
        "licence": "none",
    }
    (folder / "info.json").write_text(json.dumps({**info, **changes}))
    return folder


def digits(root, **changes):
    """A tiny ``fsdd``: six speakers say ten digits once a split; splits and columns as in the real one."""
    rows = [
        {"label": digit, "split": split, "speaker": speaker, "index": index}
        for speaker in ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
        for digit in range(10)
        for index, split in enumerate(("train", "test", "validation"))
    ]
    return write_set(root / "datasets" / "fsdd", rows, [str(d) for d in range(10)], **changes)
