"""Two arms from records: the right replicates, the right direction, and a word for whatever is missing."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from klnorm_lib.study import StudyError, rows, stats
from tests.study.simulated import holm_by_hand, interval_by_hand, record, records_of_rows

ARMS = ("new", "plain")


def arms(new, plain, **fields):
    return [record("new", d, s, **fields) for d, s in enumerate(new)] + [
        record("plain", d, s, **fields) for d, s in enumerate(plain)
    ]


def test_a_setting_by_hand():
    (found,) = stats.compare(arms([0.8, 0.7, 0.9], [0.6, 0.6, 0.65]), "new", "plain")
    change = np.array([0.2, 0.1, 0.25])
    np.testing.assert_allclose(found.differences, change)
    assert (found.task, found.size, found.encoder, found.metric, found.k) == ("t", 200, "e", "accuracy", 3)
    assert found.replicates == ((0, 0), (1, 1), (2, 2))
    student = scipy_stats.ttest_1samp(change, 0)
    assert (found.low, found.high) == pytest.approx(tuple(student.confidence_interval()))
    assert found.mean == pytest.approx(change.mean())
    assert found.seed_se == pytest.approx(change.std(ddof=1) / math.sqrt(3))
    assert (found.row_se, found.rows) == (0.0, None)
    assert "error of the test rows is not included" in found.note
    assert (found.verdict, found.p_improvement, found.missing) == ("cannot tell", 1.0, 0)
    assert found.p_value == found.p_holm == pytest.approx(student.pvalue)
    resampled = change[np.random.default_rng(0).integers(3, size=(9_999, 3))].mean(axis=1)
    assert found.bootstrap == pytest.approx(tuple(np.quantile(resampled, [0.025, 0.975])))
    assert found.bca[1] < found.bootstrap[1]  # it leans to the side of the longer tail
    assert str(found).startswith("+0.183 [")
    np.testing.assert_array_equal(found.scores_arm - found.scores_baseline, found.differences)


def test_row_scores_widen_the_interval():
    made = records_of_rows(np.random.default_rng(0), k=6, n=100, lift=0.5)
    (found,) = stats.compare(made, "new", "plain")
    right = {arm: [rows.decode(r.row_scores["test"]) for r in made if r.study["arm"] == arm] for arm in ARMS}
    table = np.array(right["new"]) - np.array(right["plain"])
    assert (found.low, found.high) == pytest.approx(interval_by_hand(table))
    assert (found.rows, found.note) == (100, "")
    assert found.row_se > 0
    seed_only = scipy_stats.ttest_1samp(found.differences, 0).confidence_interval()
    assert found.high - found.low > seed_only[1] - seed_only[0]


def test_row_error_by_hand():
    table = np.array([[1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])
    # by row 1, -.5, .5: variance 7/12, times k = 7/6; residuals are +-[1/6, -1/3, 1/6], so 1/3 over 2; 7/6 - 1/6 = 1
    mean = stats.mean_of_rows(table.mean(axis=1), table)
    assert mean.row_se == pytest.approx(math.sqrt(1 / 6))
    assert mean.seed_se == pytest.approx(abs(2 / 3 - 0) / 2)
    assert (mean.seed_df, mean.row_df) == (1, 2)
    quantiles = 12.706204736, 4.302652730
    assert mean.half_width() == pytest.approx(math.hypot(quantiles[0] / 3, quantiles[1] / math.sqrt(6)))
    alike = stats.mean_of_rows([0.0, 0.0], [[1.0, -1.0], [-1.0, 1.0]])
    assert alike.row_se == 0, "rows differ less than the residual says: no error of their own"
    for wrong in (table[:1], table[:, :1], table[0]):
        with pytest.raises(ValueError, match="shape"):
            stats.mean_of_rows([0.1, 0.2], wrong)
    with pytest.raises(ValueError, match="finite"):
        stats.mean_of_rows([0.1, 0.2], table * math.nan)


def test_only_common_replicates_are_paired():
    made = [
        r for r in arms([0.8, 0.7, 0.9, 0.6], [0.6, 0.6, 0.5, 0.6]) if (r.study["arm"], r.run["seed"]) != ("plain", 1)
    ]
    made[0].status = "failed"
    (found,) = stats.compare(made[::-1], "new", "plain")
    assert found.replicates == ((2, 2), (3, 3))
    np.testing.assert_allclose(found.differences, [0.4, 0.0])
    assert found.missing == 2
    assert "2 of 4 replicates left out" in found.note


def test_tuning_runs_and_other_arms_play_no_part():
    made = arms([0.8, 0.7, 0.9], [0.6, 0.6, 0.65])
    (alone,) = stats.compare(made, "new", "plain")
    others = arms([0.1, 0.2, 0.3], [0.9, 0.8, 0.7])
    for other in others:
        other.study = {**other.study, "stage": "tuning"}
    stranger = record("third", 0, 0.3)
    old = record("new", 0, 0.2)
    old.study = None
    (found,) = stats.compare([*others, stranger, old, *made], "new", "plain")
    np.testing.assert_array_equal(found.differences, alone.differences)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_common_replicates(count):
    made = [record("new", d, 0.8) for d in range(count)] + [record("new", 7, 0.8)]
    made += [record("plain", d, 0.7) for d in range(count)] + [record("plain", 8, 0.7)]
    (found,) = stats.compare(made, "new", "plain")
    assert (found.k, found.missing, found.verdict) == (count, 2, "cannot tell")
    assert "fewer than two replicates" in found.note
    assert all(map(math.isnan, (found.low, found.high, found.p_value, found.p_holm, *found.bca, *found.bootstrap)))
    assert math.isnan(found.mean) == (count == 0)


def test_one_replicate_with_row_scores_is_still_one():
    rng = np.random.default_rng(0)
    (found,) = stats.compare(records_of_rows(rng, k=1, n=50), "new", "plain")
    assert (found.k, found.verdict) == (1, "cannot tell")
    assert math.isnan(found.low)


def test_no_spread_allows_no_verdict():
    for new, plain in (([0.75] * 4, [0.5] * 4), ([0.8, 0.7, 0.9], [0.6, 0.5, 0.7])):  # the second but for rounding
        (found,) = stats.compare(arms(new, plain), "new", "plain")
        assert (found.verdict, found.p_improvement) == ("cannot tell", 1.0)
        assert math.isnan(found.low)
        assert "same in every replicate" in found.note


def test_equal_predictions_are_equivalent():
    right = np.arange(50) % 3 > 0
    made = [record(arm, d, right.mean(), row_scores=right) for arm in ("new", "plain") for d in range(3)]
    (found,) = stats.compare(made, "new", "plain")
    assert (found.low, found.high, found.verdict, found.p_improvement) == (0.0, 0.0, "equivalent", 0.5)
    assert found.within_margin
    assert "every test row the same score" in found.note


def test_the_same_difference_in_every_replicate_leaves_the_error_of_rows():
    left, right = np.zeros(40), np.r_[np.ones(10), np.zeros(30)]
    made = [record("new", d, 0.25, row_scores=right) for d in range(3)]
    made += [record("plain", d, 0.0, row_scores=left) for d in range(3)]
    (found,) = stats.compare(made, "new", "plain")
    assert found.seed_se == 0
    assert found.row_se == pytest.approx(right.std(ddof=1) / math.sqrt(40))
    assert found.low < 0.25 < found.high


def test_rows_that_differ_from_run_to_run_give_no_row_error():
    made = [record("new", d, 0.5 + d / 100, row_scores=np.arange(20 + d) % 2) for d in range(3)]
    made += [record("plain", d, 0.4, row_scores=np.arange(20) % 2) for d in range(3)]
    (found,) = stats.compare(made, "new", "plain")
    assert found.rows is None
    assert "test rows differ" in found.note


def test_metrics_and_their_directions():
    made = arms([0.8, 0.7, 0.9], [0.6, 0.6, 0.6])
    for i, r in enumerate(made):
        bad = 0.1 if r.study["arm"] == "new" else 0.3
        r.test["macro_f1"] = r.test["accuracy"] / 2
        r.calibration = {"test": {"ece": bad + i * i / 1000, "nll": 1.0}, "ood": {"far": {"ece": bad}}}
        r.gap = {"accuracy": 0.2, "macro_f1": bad}
        r.ood = {"far": {"accuracy": 1 - bad - i * i / 1000, "macro_f1": None}}

    def compared(metric):
        return stats.compare(made, "new", "plain", metric)[0]

    ece = compared("ece")
    assert (ece.verdict, ece.larger_is_better, ece.p_improvement, ece.metric) == ("better", False, 1.0, "ece")
    assert ece.high < 0
    assert compared("macro_f1").mean == pytest.approx(0.1)
    assert compared("gap").metric == "gap/accuracy"
    assert compared("gap/macro_f1").p_improvement == 1.0
    assert (compared("ood/far").verdict, compared("ood/far").metric) == ("better", "ood/far/accuracy")
    np.testing.assert_array_equal(compared("ood/far/accuracy").differences, compared("ood/far").differences)
    assert compared("ood/far/ece").mean == pytest.approx(-0.2)
    assert not compared("ood/far/ece").larger_is_better
    for missing in ("ood/far/macro_f1", "ood/near", "pearson"):
        assert (compared(missing).k, compared(missing).missing) == (0, 3)
    assert compared("nll").p_improvement == 0.5
    for unknown in ("ood", "gap/a/b", "train/accuracy"):
        with pytest.raises(ValueError, match="unknown metric"):
            compared(unknown)


def test_every_task_has_its_own_metric_and_holm_counts_them_all():
    rng = np.random.default_rng(0)
    made = []
    for task, metric in (("a", "accuracy"), ("b", "pearson"), ("c", "matthews")):
        made += arms(0.8 + 0.01 * rng.random(5), 0.7 + 0.01 * rng.random(5), task=task, metric=metric)
    found = stats.compare(made, "new", "plain")
    assert [(c.task, c.metric) for c in found] == [("a", "accuracy"), ("b", "pearson"), ("c", "matthews")]
    np.testing.assert_allclose([c.p_holm for c in found], holm_by_hand([c.p_value for c in found]))
    alone = stats.with_holm(found[:1])[0]
    assert alone.p_holm == found[0].p_value < found[0].p_holm


def test_settings_are_what_by_names():
    made = [r for size in (50, 200) for r in arms([0.8, 0.7], [0.6, 0.6], size=size)]
    assert [c.size for c in stats.compare(made, "new", "plain")] == [50, 200]
    with pytest.raises(StudyError, match="two different runs"):
        stats.compare(made, "new", "plain", by=("task", "encoder"))
    part = stats.compare(made, "new", "plain", by=("part", "size"))[0]
    assert dict(part.setting) == {"part": "headline", "size": 50}
    assert (part.task, part.encoder) == (None, None)
    whole = stats.compare(arms([0.8, 0.7], [0.6, 0.6], size=None), "new", "plain")
    assert whole[0].size == 100


def test_a_run_that_stands_in_two_files_counts_once():
    made = arms([0.8, 0.7, 0.9], [0.6, 0.6, 0.65])
    elsewhere = arms([0.81, 0.7, 0.9], [0.6, 0.6, 0.65])
    for r in elsewhere:
        r.run["device"] = "cuda"
    (found,) = stats.compare(made + elsewhere, "new", "plain")
    assert found.mean == pytest.approx(np.mean([0.2, 0.1, 0.25]))
    elsewhere[0].run["steps"] = 9
    with pytest.raises(StudyError, match="two different runs for replicate"):
        stats.compare(made + elsewhere, "new", "plain")


def test_an_arm_with_its_own_encoder_stands_beside_every_other():
    made = [record("plain", d, 0.6, encoder=e) for e in ("small", "large") for d in range(3)]
    made += [record("words", d, 0.7 + d / 100, encoder="word counts") for d in range(3)]
    found = stats.compare(made, "words", "plain")
    assert sorted(c.encoder for c in found) == ["large", "small"]
    assert {c.k for c in found} == {3}
    turned = stats.compare(made, "plain", "words")
    assert {c.encoder: -c.mean for c in turned} == pytest.approx({c.encoder: c.mean for c in found})


def test_nothing_to_compare():
    for made in ([], arms([0.5, 0.6], []), [record("new", 0, 0.5, task="a"), record("plain", 0, 0.5, task="b")]):
        with pytest.raises(LookupError, match="no setting has finished runs of both 'new' and 'plain'"):
            stats.compare(made, "new", "plain")


def test_scores_by_setting_and_replicate():
    made = arms([0.8, 0.7], [0.6, 0.6])
    assert stats.scores(made, "new") == {("t", 200, "e"): {(0, 0): 0.8, (1, 1): 0.7}}
    assert stats.scores(made, "none") == {}


def test_the_same_records_give_the_same_numbers():
    made = records_of_rows(np.random.default_rng(0), k=9, n=97)
    one, two = (stats.compare(order, "new", "plain")[0] for order in (made, made[::-1]))
    for name in ("low", "high", "bca", "bootstrap", "p_value", "p_improvement_interval", "row_se"):
        assert getattr(one, name) == getattr(two, name)
    other = stats.compare(made, "new", "plain", seed=1)[0]
    assert other.bootstrap != one.bootstrap
    assert (other.low, other.high) == (one.low, one.high)
