"""When a ranking stands still: rank correlations against scipy, disjoint samples, and the record that ships."""

import json
import shutil

import numpy as np
import pytest
from scipy import stats

from klnorm_lib.probes.fisher import convergence, package
from klnorm_lib.probes.fisher.convergence import Blocks, agreement, kendall, packaged, rate_shift, spearman
from klnorm_lib.probes.fisher.estimate import FisherConfig, estimate
from klnorm_lib.probes.fisher.table import FisherTable, load_fisher
from klnorm_lib.sites.scores import site_scores
from tests import language, zoo

MODEL = zoo.build("bert", kind="encoder")
NAMES = [name for name, _ in MODEL.named_parameters() if not name.startswith("pooler")]
NUMEL = [p.numel() for name, p in MODEL.named_parameters() if name in NAMES]


def blocks(noise, count=40, size=5, seed=0):
    """Blocks of a model whose tensors differ by powers of ten, with noise in the exponent of every block."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(-6, 0, len(NAMES))
    sums = size * np.array(NUMEL) * 10 ** (level + noise * rng.normal(size=(count, len(NAMES))))
    return Blocks(tuple(NAMES), tuple(NUMEL), np.full(count, size), sums, {"model": "made"})


def test_rank_correlations_are_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 30, 9))
    b += a
    expected = np.array([[stats.spearmanr(x, y)[0], stats.kendalltau(x, y)[0]] for x, y in zip(a, b, strict=True)])
    np.testing.assert_allclose(spearman(a, b), expected[:, 0], atol=1e-12)
    np.testing.assert_allclose(kendall(a, b), expected[:, 1], atol=1e-12)


def test_pairs_of_one_kind_only():
    a, b = np.array([[1.0, 2.0, 30.0, 40.0]]), np.array([[2.0, 1.0, 30.0, 40.0]])
    assert kendall(a, b)[0] == pytest.approx(4 / 6)
    assert kendall(a, b, ["x", "x", "y", "y"])[0] == 0
    assert kendall(a, b, ["x", "y", "x", "y"])[0] == 1


def test_rates_move_by_ranks():
    a, b = np.array([[1.0, 2.0, 3.0]]), np.array([[3.0, 2.0, 1.0]])
    assert rate_shift(a, b)[0] == pytest.approx((0.1 + 0 + 0.1) / 3)
    assert rate_shift(a, a)[0] == 0


@pytest.mark.parametrize("aggregation", ["tensor_mean", "mass", "sum"])
def test_the_mean_of_blocks_has_the_mean_of_their_scores(aggregation):
    made = blocks(0.3)
    names, scores = made.scores(aggregation)
    whole = site_scores(made.table(), aggregation)
    assert names == list(whole)
    np.testing.assert_allclose(scores.mean(0), list(whole.values()))


def test_agreement_grows_with_n_and_is_perfect_without_noise():
    noisy, still = blocks(1.0), blocks(0.0)
    found = agreement(noisy, [5, 20, 100], draws=200)
    for name in ("spearman", "kendall", "kendall_within"):
        means = [mean for mean, _, _ in found[name]]
        assert means == sorted(means)
        assert means[0] < 0.97
        assert all(low <= mean <= high for mean, low, high in found[name])
        assert agreement(still, [5, 100], draws=20)[name] == [[1, 1, 1]] * 2
    assert found["rate_shift"][0][0] > found["rate_shift"][-1][0]


def test_sample_and_reference_share_nothing(monkeypatch):
    made = blocks(0.2, count=8)
    names, _ = made.scores()
    marked = np.zeros((8, len(names)))
    marked[np.arange(8), np.arange(8) % len(names)] = 2.0 ** np.arange(8)
    monkeypatch.setattr(Blocks, "scores", lambda self, way: (names, marked))
    seen = []
    monkeypatch.setattr(convergence, "spearman", lambda a, b: seen.append((a, b)) or np.ones(len(a)))
    agreement(made, [20], draws=30)
    (sample, reference), sums = seen[0], marked.sum(1)
    for part, other in zip(4 * sample.sum(1), 4 * reference.sum(1), strict=True):
        assert part + other == sums.sum(), "together all eight blocks, each once"


@pytest.mark.parametrize("n", [0, 7, 105])
def test_sizes_that_cannot_be(n):
    with pytest.raises(ValueError, match=f"n={n} must be a multiple of 5 and at most 100"):
        agreement(blocks(0.1), [n])


def test_blocks_of_unequal_size_are_refused():
    made = blocks(0.1)
    made.sequences[-1] = 3
    with pytest.raises(ValueError, match="unequal size"):
        agreement(made, [5])


def test_folders_become_what_ships(tmp_path, monkeypatch):
    text = language.corpus(tmp_path / "wiki", 30)
    shutil.copytree(language.model(tmp_path / "model"), tmp_path / "small")
    monkeypatch.setattr(package, "names", lambda: ["small"])
    monkeypatch.chdir(tmp_path)
    for labels in ("true", "model"):
        asked = FisherConfig("small", (str(text),), labels, 20, 16, method="loop", block=2, batch_size=2, labels=labels)
        estimate(asked, progress=False)
    package.package(["true", "model"], tmp_path / "tables", tmp_path / "record.json")
    table = FisherTable.load(tmp_path / "tables/small.json")
    assert table.provenance["labels"] == "true"
    fisher, _ = load_fisher(tmp_path / "tables/small.safetensors")
    assert fisher.keys() < table.keys()
    assert not [name for name in fisher if name.startswith("cls.")]
    runs = json.loads((tmp_path / "record.json").read_text())["runs"]
    assert [run["provenance"]["labels"] for run in runs] == ["true", "model"]
    assert runs[0]["sizes"] == [2, 4, 10]
    held = Blocks.of(runs[0]).table()
    for name in table:
        assert held[name].sum == pytest.approx(table[name].sum, rel=1e-4)


@pytest.mark.parametrize(
    "run", packaged(), ids=lambda run: f"{run['provenance']['model']}-{run['provenance']['labels']}"
)
def test_the_record_is_remade_from_its_own_sums(run):
    held = Blocks.of(run)
    assert held.sequences.sum() == run["provenance"]["sequences"]
    assert agreement(held, run["sizes"], "mass") == run["agreement"]["mass"]
    if run["provenance"]["labels"] == "true":
        table = FisherTable.load(run["provenance"]["model"])
        assert table.provenance == run["provenance"], "table and record are of one run"
        for name in table:
            assert held.table()[name].sum == pytest.approx(table[name].sum, rel=1e-4)
