"""From records to tables, numbers in prose and the versions that made them."""

from klnorm_lib.report.numbers import number, quote, say
from klnorm_lib.report.sound import players
from klnorm_lib.report.stamp import versions
from klnorm_lib.report.tables import frame, results_page, summary, to_html, to_markdown

__all__ = [
    "frame",
    "number",
    "players",
    "quote",
    "results_page",
    "say",
    "summary",
    "to_html",
    "to_markdown",
    "versions",
]
