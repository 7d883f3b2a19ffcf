"""Types of site: which bands of rates overlap, and how much of the variance lies between types."""

import pytest

from klnorm_lib.figures import fisher
from klnorm_lib.pages import site_types

RATES = {"embeddings": 0.0} | {
    f"layer.{i}.{kind}": rate + 0.01 * i
    for i in range(2)
    for kind, rate in (("attention_probs", 0.08), ("attention_output", 0.05), ("ffn_output", 0.055))
}


def test_overlapping_bands_and_the_share_between_types():
    assert site_types.overlaps(RATES) == [("attention_output", "ffn_output")]
    assert fisher.by_kind(RATES)["ffn_output"] == [0.055, 0.065]
    between = site_types.share_between(RATES)
    assert 0.9 < between < 1
    assert site_types.share_between(
        {f"layer.{i}.{k}": r for i in range(3) for k, r in (("a", 0.1), ("b", 0.0))}
    ) == pytest.approx(1)
    same = {f"layer.{i}.{k}": 0.1 * i for i in range(3) for k in ("a", "b")}
    assert site_types.share_between(same) == pytest.approx(0)
