"""What may be concluded from paired runs: intervals, verdicts, aggregates over tasks, and the power of k replicates."""

from klnorm_lib.lazily import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "Comparison": "comparison",
        "Mean": "mean",
        "Scores": "paired",
        "bca": "resample",
        "compare": "arms",
        "differences": "paired",
        "holm": "multiple",
        "interaction": "arms",
        "interquartile_mean": "aggregate",
        "larger_is_better": "metric",
        "mean_of_replicates": "mean",
        "mean_of_rows": "mean",
        "minimal_difference": "planning",
        "over_settings": "settings",
        "percentile": "resample",
        "performance_profile": "aggregate",
        "power": "planning",
        "probability_of_improvement": "aggregate",
        "probability_of_improvement_unpaired": "aggregate",
        "replicates_needed": "planning",
        "scores": "arms",
        "sd_interval": "planning",
        "spread_factors": "planning",
        "stratified": "resample",
        "t_interval": "paired",
        "value": "metric",
        "variance_components": "components",
        "verdict": "paired",
        "with_holm": "comparison",
    },
)
