"""Tests of the command line; ``call`` runs a command in this process."""

from typer.testing import CliRunner

from klnorm_lib import cli

runner = CliRunner()


def call(*arguments, code=0):
    result = runner.invoke(cli.app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result
