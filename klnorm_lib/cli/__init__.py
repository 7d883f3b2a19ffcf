"""The command line: ``klnorm run``, ``klnorm study``, and what lists, fetches, pretrains and reports.

A command is a file that adds itself to ``app``; one import here makes it known, in the order of ``klnorm --help``.
"""

# ruff: noqa: F401, I001
from klnorm_lib.cli.application import app
from klnorm_lib.cli import lists
from klnorm_lib.cli import mirror
from klnorm_lib.cli import run
from klnorm_lib.cli import study
from klnorm_lib.cli import pretrain
from klnorm_lib.cli import fisher
from klnorm_lib.cli import report
from klnorm_lib.cli import new_method

__all__ = ["app"]
