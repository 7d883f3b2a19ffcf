"""A run is named from Python as it is on the command line."""

import pytest

from klnorm_lib.study import Run

OWN = {"data": "own.csv", "label": "verdict"}


@pytest.mark.parametrize("column", ["text", "audio"])
def test_a_file_of_ones_own_needs_no_task(column):
    run = Run(**OWN, **{column: "words"}, encoder="klnorm-nano")
    assert run == Run(None, "klnorm-nano", **OWN, **{column: "words"})
    assert run.task is None
    assert run.to_dict() == Run(None, "klnorm-nano", **OWN, **{column: "words"}).to_dict()
    assert f"--data own.csv --{column} words --label verdict".split() in [sorted_pairs(run.command().split(), column)]
    assert "--task" not in run.command()


def sorted_pairs(words, column):
    """The options of one's own file in a command, in the order data, column, label."""
    options = dict(zip(words[2::2], words[3::2], strict=True))
    return [part for name in ("--data", f"--{column}", "--label") for part in (name, options[name])]


def test_the_encoder_is_that_of_the_command_line():
    assert Run("mrpc").encoder == Run(**OWN, text="words").encoder == "klnorm-tiny"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "needs a task"),
        ({"encoder": "klnorm-tiny"}, "needs a task"),
        ({"task": "mrpc", **OWN, "text": "words"}, "not both"),
        ({**OWN}, "set text"),
        ({"data": "own.csv", "audio": "path"}, "set label"),
        ({**OWN, "text": "words", "audio": "path"}, "not both"),
        ({"task": "mrpc", "text": "words"}, "set data=FILE"),
    ],
)
def test_what_does_not_go_together_is_told(fields, message):
    with pytest.raises(ValueError, match=message):
        Run(**fields)
