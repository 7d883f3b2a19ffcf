r"""Word vectors from co-occurrence counts, from which the pretraining of a small encoder starts.

Levy and Goldberg 2014: word vectors from a truncated singular value decomposition of the positive pointwise mutual
information, :math:`\max(0, \ln p(w, c) - \ln p(w) - \ln p(c))`.
"""

from __future__ import annotations

import numpy as np


def ppmi_vectors(
    sequences: np.ndarray, vocab_size: int, dimensions: int, window: int = 4, smoothing: float = 0.75, seed: int = 0
) -> np.ndarray:
    """One vector a token from its neighbours within ``window`` positions, float32, overall standard deviation 1.

    ``sequences``: token ids (rows, length). Counts are weighted by 1/distance, both sides alike; the context
    distribution is raised to ``smoothing`` (Levy et al. 2015). Shape of the result (vocab_size, dimensions).
    Raises ``ValueError`` for fewer tokens in the vocabulary than dimensions.
    """
    from sklearn.utils.extmath import randomized_svd

    if dimensions >= vocab_size:
        raise ValueError(f"{dimensions} dimensions need a larger vocabulary than {vocab_size} tokens")
    counts = np.zeros(vocab_size * vocab_size, np.float32)
    for start in range(0, len(sequences), 65_536):
        rows = np.asarray(sequences[start : start + 65_536], np.int64)
        for distance in range(1, window + 1):
            pairs = (rows[:, :-distance] * vocab_size + rows[:, distance:]).ravel()
            counts += np.bincount(pairs, minlength=counts.size).astype(np.float32) / distance
    counts = counts.reshape(vocab_size, vocab_size)
    counts = counts + counts.T
    total = counts.sum()
    word = np.maximum(counts.sum(1), 1e-9) / total
    context = word**smoothing / (word**smoothing).sum()
    with np.errstate(divide="ignore"):
        information = np.log(counts / total) - np.log(word)[:, None] - np.log(context)[None, :]
    left, values, _ = randomized_svd(
        np.maximum(information, 0.0).astype(np.float32), dimensions, n_iter=4, random_state=seed
    )
    vectors = left * np.sqrt(values)
    return (vectors / vectors.std()).astype(np.float32)


def principal(vectors: np.ndarray, dimensions: int) -> np.ndarray:
    """The first ``dimensions`` principal components of ``vectors`` (n, width), float32, overall deviation 1."""
    from sklearn.decomposition import PCA

    parts = PCA(dimensions, svd_solver="full").fit_transform(vectors)
    return (parts / parts.std()).astype(np.float32)
