"""From records to tables, numbers in prose and the versions that made them."""

from klnorm_lib.pages.numbers import number, quote, say
from klnorm_lib.pages.stamp import versions
from klnorm_lib.pages.tables import frame, summary, to_markdown

__all__ = [
    "frame",
    "number",
    "quote",
    "say",
    "summary",
    "to_markdown",
    "versions",
]
