"""A number in a sentence comes from the records, or the sentence is refused."""

import pytest

from klnorm_lib import pages
from tests.pages import made

STUDIES = {"text": made.study()}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("text: klnorm_b minus plain on trec", "+4.0 percentage points [+1.5, +6.5], better, 3 replicates"),
        (
            "text: klnorm_b minus layernorm on sst2 at 200 with e",
            "+4.0 percentage points [-0.3, +8.3], cannot tell, 3 replicates",
        ),
        ("text: plain on trec at 200", "0.520 (3 replicates)"),
        ("text: plain on trec tested on far", "0.320 (3 replicates)"),
        ("text: runs", "27"),
        ("all: failed runs", "1"),
    ],
)
def test_quote_reads_the_records(words, text):
    assert pages.quote(words, STUDIES) == text


@pytest.mark.parametrize(
    ("words", "error", "why"),
    [
        ("klnorm_b better than plain", ValueError, "the form is STUDY: ARM"),
        ("speech: plain on trec", LookupError, "there are text"),
        ("text: klnorm_b minus plain", LookupError, "fits 2: on trec at 200 with e; on sst2"),
        ("text: klnorm_b on mrpc", LookupError, "fits 0: none. Arms: plain, layernorm"),
        ("text: dropout minus plain on trec", LookupError, "fits 0"),
    ],
)
def test_quote_refuses_what_no_record_says(words, error, why):
    with pytest.raises(error, match=why):
        pages.quote(words, STUDIES)


def test_a_run_that_two_studies_share_counts_once_in_a_sentence():
    assert pages.quote("all: runs", {"text": made.study(), "again": made.study()[:6]}) == "27"


def test_said_is_prose_in_a_notebook():
    said = pages.say("It gains **4** points.")
    assert said._repr_markdown_() == "It gains **4** points."
    assert repr(said) == "It gains **4** points."
