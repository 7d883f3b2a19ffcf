"""What may be concluded from paired runs: intervals, verdicts, aggregates over tasks, and the power of k replicates."""

from klnorm_lib.study.stats.aggregate import (
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    probability_of_improvement_unpaired,
)
from klnorm_lib.study.stats.arms import compare, interaction, scores
from klnorm_lib.study.stats.comparison import Comparison, with_holm
from klnorm_lib.study.stats.components import variance_components
from klnorm_lib.study.stats.mean import Mean, mean_of_replicates, mean_of_rows
from klnorm_lib.study.stats.metric import larger_is_better, value
from klnorm_lib.study.stats.multiple import holm
from klnorm_lib.study.stats.paired import Scores, differences, t_interval, verdict
from klnorm_lib.study.stats.planning import minimal_difference, power, replicates_needed, sd_interval, spread_factors
from klnorm_lib.study.stats.resample import bca, percentile, stratified
from klnorm_lib.study.stats.settings import over_settings

__all__ = [
    "Comparison",
    "Mean",
    "Scores",
    "bca",
    "compare",
    "differences",
    "replicates_needed",
    "holm",
    "interaction",
    "interquartile_mean",
    "larger_is_better",
    "mean_of_replicates",
    "mean_of_rows",
    "minimal_difference",
    "over_settings",
    "percentile",
    "performance_profile",
    "power",
    "probability_of_improvement",
    "probability_of_improvement_unpaired",
    "scores",
    "sd_interval",
    "spread_factors",
    "stratified",
    "t_interval",
    "value",
    "variance_components",
    "verdict",
    "with_holm",
]
