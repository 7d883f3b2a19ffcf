"""A Sphinx extension: ``{record}`` before words in backticks puts a result from the records into a sentence.

The words say which, "text: klnorm_b minus plain on trec at 200", as in ``klnorm_lib.pages.quote``; the page then reads
"+1.2 percentage points [...], cannot tell, 10 replicates". A result that the records do not hold stops the build.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

from klnorm_lib import pages


class RecordRole(SphinxRole):
    """The role; see the module."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        try:
            return [nodes.inline(self.rawtext, pages.quote(self.text), classes=["record"])], []
        except (ValueError, LookupError) as error:
            message = self.inliner.reporter.error(str(error), line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_role("record", RecordRole())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
