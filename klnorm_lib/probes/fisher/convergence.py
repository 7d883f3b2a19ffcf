"""How many sequences until the ranking of dropout sites no longer changes: rank correlations between disjoint samples.

The record that ships, ``klnorm_lib/studies/fisher_convergence.json``, has the sums of every block of sequences; it is
written by ``python -m klnorm_lib.probes.fisher.package``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from klnorm_lib import studies
from klnorm_lib.probes.fisher.table import FisherTable, TensorSum

RECORD = studies.path("fisher_convergence.json")
LEVEL = 0.95
DIGITS = 5  # of a sum in the record


@dataclass(frozen=True)
class Blocks:
    """Sums of the Fisher information over blocks of sequences: ``sums`` (blocks, tensors), ``sequences`` of each block.

    ``tensors``, ``numel``: name of each tensor and how many elements it has.
    """

    tensors: tuple[str, ...]
    numel: tuple[int, ...]
    sequences: np.ndarray
    sums: np.ndarray
    provenance: dict[str, Any]

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Blocks:
        """From ``blocks.json`` of ``klnorm fisher``, or from its part of the record."""
        arrays = np.array(saved["sequences"]), np.array(saved["sums"], dtype=np.float64)
        return cls(tuple(saved["tensors"]), tuple(saved["numel"]), *arrays, dict(saved["provenance"]))

    def table(self, chosen: Sequence[int] | slice = slice(None)) -> FisherTable:
        """The Fisher information of some blocks together; of all by default."""
        mean = self.sums[chosen].sum(0) / self.sequences[chosen].sum()
        named = zip(self.tensors, mean, self.numel, strict=True)
        return FisherTable({name: TensorSum(float(s), n) for name, s, n in named}, self.provenance)

    def scores(self, aggregation: str = "tensor_mean") -> tuple[list[str], np.ndarray]:
        """Names of the dropout sites, and the score of each in every block: (blocks, sites)."""
        from klnorm_lib.sites.scores import site_scores

        each = [site_scores(self.table([i]), aggregation) for i in range(len(self.sums))]
        return list(each[0]), np.array([list(scores.values()) for scores in each])


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    r"""Spearman's :math:`\rho`, the correlation of ranks, row by row: two of (draws, sites) -> (draws,)."""
    a, b = (r - r.mean(-1, keepdims=True) for r in (rankdata(a, axis=-1), rankdata(b, axis=-1)))
    return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))


def kendall(a: np.ndarray, b: np.ndarray, kinds: Sequence[str] | None = None) -> np.ndarray:
    r"""Kendall's :math:`\tau`: share of pairs of sites in the same order minus that in the other, row by row.

    Two of (draws, sites) -> (draws,). ``kinds``: only pairs of sites of the same kind count.
    """
    first, second = np.triu_indices(a.shape[-1], 1)
    if kinds is not None:
        same = np.array([kinds[i] == kinds[j] for i, j in zip(first, second, strict=True)])
        first, second = first[same], second[same]
    return np.mean(np.sign(a[..., first] - a[..., second]) * np.sign(b[..., first] - b[..., second]), -1)


def rate_shift(a: np.ndarray, b: np.ndarray, p_upper: float = 0.1, p_lower: float = 0.0) -> np.ndarray:
    """Mean change of a site's rate under the rank rule, row by row: two of (draws, sites) -> (draws,)."""
    moved = np.abs(rankdata(a, axis=-1) - rankdata(b, axis=-1)).mean(-1)
    return moved * (p_upper - p_lower) / (a.shape[-1] - 1)


def agreement(
    blocks: Blocks, sizes: Sequence[int], aggregation: str = "tensor_mean", draws: int = 1000, seed: int = 0
) -> dict[str, list[list[float]]]:
    """How well the ranking from n sequences agrees with that from half of all, which shares none with them.

    Every draw splits the blocks at random: one half is the reference, of the other the first that hold n sequences are
    the sample. For each n of ``sizes``: the mean of the draws and the bounds between which 95 % of them lie, as
    ``[mean, low, high]``; all draws are of the same sequences, so the bounds tell how one sample of n varies and do not
    shrink with ``draws``. Returned are ``spearman``, ``kendall``, ``kendall_within`` (pairs of the same kind of site
    only) and ``rate_shift``.

    Raises ``ValueError`` for blocks of unequal size, or an n that is no multiple of theirs or more than half of all.
    """
    size, half = int(blocks.sequences[0]), len(blocks.sums) // 2
    if (blocks.sequences != size).any():
        raise ValueError("the blocks are of unequal size; compute n sequences, n a multiple of the block's size")
    for n in sizes:
        if n % size or not 0 < n <= half * size:
            raise ValueError(f"n={n} must be a multiple of {size} and at most {half * size}, half of what there is")
    sites, scores = blocks.scores(aggregation)
    kinds = [site.rpartition(".")[2] for site in sites]
    rng = np.random.default_rng(seed)
    orders = np.array([rng.permutation(len(scores)) for _ in range(draws)])
    reference = scores[orders[:, half : 2 * half]].mean(1)
    found: dict[str, list[list[float]]] = {"spearman": [], "kendall": [], "kendall_within": [], "rate_shift": []}
    for n in sizes:
        sample = scores[orders[:, : n // size]].mean(1)
        for name, values in {
            "spearman": spearman(sample, reference),
            "kendall": kendall(sample, reference),
            "kendall_within": kendall(sample, reference, kinds),
            "rate_shift": rate_shift(sample, reference),
        }.items():
            low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            found[name].append([round(float(v), 5) for v in (values.mean(), low, high)])
    return found


def record(folders: Sequence[str | Path]) -> dict[str, Any]:
    """What ``klnorm fisher`` left in each folder, with the agreement at growing n, as the record keeps it."""
    runs = []
    for folder in folders:
        saved = json.loads((Path(folder) / "blocks.json").read_text("utf-8"))
        saved["sums"] = [[float(f"{value:.{DIGITS}g}") for value in row] for row in saved["sums"]]
        blocks = Blocks.of(saved)
        size = int(blocks.sequences[0])
        steps = sorted({size * m * 10**k for k in range(4) for m in (1, 2, 5)} | {size * (len(blocks.sums) // 2)})
        sizes = [n for n in steps if n <= size * (len(blocks.sums) // 2)]
        ways = ("tensor_mean", "mass", "sum")
        runs.append({**saved, "sizes": sizes, "agreement": {way: agreement(blocks, sizes, way) for way in ways}})
    return {"format": 1, "runs": runs}


def packaged(model: str | None = None, labels: str = "true") -> list[dict[str, Any]]:
    """The runs of the record that ships; of one model (and kind of labels) if it is named."""
    runs = json.loads(RECORD.read_text("utf-8"))["runs"]
    wanted = [r for r in runs if (r["provenance"]["model"], r["provenance"]["labels"]) == (model, labels)]
    return runs if model is None else wanted
