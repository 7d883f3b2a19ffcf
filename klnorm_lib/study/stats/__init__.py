"""What may be concluded from paired runs: intervals, verdicts, aggregates over tasks, and the power of k draws."""

from klnorm_lib.study.stats.aggregate import (
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    probability_of_improvement_unpaired,
)
from klnorm_lib.study.stats.arms import compare, interaction, scores
from klnorm_lib.study.stats.comparison import Comparison, with_holm
from klnorm_lib.study.stats.components import variance_components
from klnorm_lib.study.stats.mean import Mean, mean_of_draws, mean_of_rows
from klnorm_lib.study.stats.metric import larger_is_better, value
from klnorm_lib.study.stats.multiple import holm
from klnorm_lib.study.stats.paired import Scores, differences, t_interval, verdict
from klnorm_lib.study.stats.places import over_places
from klnorm_lib.study.stats.planning import draws_needed, minimal_difference, power, sd_interval, spread_known_to
from klnorm_lib.study.stats.resample import bca, percentile, stratified

__all__ = [
    "Comparison",
    "Mean",
    "Scores",
    "bca",
    "compare",
    "differences",
    "draws_needed",
    "holm",
    "interaction",
    "interquartile_mean",
    "larger_is_better",
    "mean_of_draws",
    "mean_of_rows",
    "minimal_difference",
    "over_places",
    "percentile",
    "performance_profile",
    "power",
    "probability_of_improvement",
    "probability_of_improvement_unpaired",
    "scores",
    "sd_interval",
    "spread_known_to",
    "stratified",
    "t_interval",
    "value",
    "variance_components",
    "verdict",
    "with_holm",
]
