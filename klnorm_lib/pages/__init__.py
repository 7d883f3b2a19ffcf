"""From records to tables, numbers in prose and the versions that made them."""

from klnorm_lib.pages.numbers import number, quote, say
from klnorm_lib.pages.stamp import versions
from klnorm_lib.pages.tables import frame, results_page, summary, to_html, to_markdown

__all__ = [
    "frame",
    "number",
    "quote",
    "results_page",
    "say",
    "summary",
    "to_html",
    "to_markdown",
    "versions",
]
