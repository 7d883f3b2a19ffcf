"""The page on the encoders: gaps and neighbours come from the weights, figures from records, and no mark is left."""

import base64
import re

import pytest
import torch

from klnorm_lib import encoders
from klnorm_lib.figures import embed
from klnorm_lib.figures import encoders as figures
from klnorm_lib.pages import card_claims, card_table, encoder_page, masked_words
from tests.pages.test_card import fake
from tests.pages.test_card_claims import GRID, LADDER, scores


def test_gap_is_filled_with_the_likeliest_pieces():
    found = masked_words.fill("klnorm-nano", "the king and the ___ of france.", top=8192)
    chances = [chance for _, chance in found]
    assert sum(chances) == pytest.approx(1.0, abs=1e-4)
    assert chances == sorted(chances, reverse=True)
    assert masked_words.fill("klnorm-nano", "the king and the ___ of france.", top=3) == found[:3]
    with pytest.raises(ValueError, match="one gap"):
        masked_words.fill("klnorm-nano", "no gap here")


def test_neighbours_are_those_of_the_largest_cosine():
    found = dict(masked_words.neighbours("klnorm-nano", "monday", top=3))
    model, tokenizer = encoders.load("klnorm-nano", 2)
    vectors = model.get_input_embeddings().weight.detach()
    for word, value in found.items():
        pair = vectors[[tokenizer.vocab["monday"], tokenizer.vocab[word]]]
        assert float(torch.cosine_similarity(pair[0], pair[1], dim=0)) == pytest.approx(value, abs=1e-4)
    assert "tuesday" in found
    with pytest.raises(ValueError, match="not a word of the vocabulary"):
        masked_words.neighbours("klnorm-nano", "Monday")


def test_page_has_every_encoder_and_no_mark_left():
    page = encoder_page.page()
    assert page.startswith("# The encoders we ship\n")
    assert page.count("\n# ") == 0
    assert "<!--" not in page
    for name in encoders.names():
        assert f"\n### {name}\n" in page
        assert f"| `{name}` |" in page
    assert len(re.findall(r"\[ \]", page)) == len(encoder_page.SENTENCES)


def test_parameters_are_those_of_the_file():
    model, _ = encoders.load("klnorm-nano", 2)
    counted = sum(p.numel() for p in model.base_model.encoder.parameters())
    assert counted < encoder_page._parameters("klnorm-nano") < 2_000_000


def test_forest_shows_every_seed_and_every_arm():
    records = [*scores("a", 0.8, 0.5, 0.6), *scores("b", 0.7, 0.6, 0.75), *scores("c", 0.9, 0.1, 0.1)]
    figure = figures.forest({"e": encoder_page.rows(card_claims.claims(GRID, records))})
    (ax,) = figure.axes
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(dots) == 6
    assert list(dots[0].get_xdata()) == pytest.approx([0.3, 0.301, 0.302])
    assert [t.get_text() for t in ax.get_yticklabels()][:2] == ["a: random", "a: tf-idf"]
    marks = [line.get_marker() for line in ax.lines if line.get_marker() in "^vD" and len(line.get_xdata()) == 1]
    assert marks == ["^", "^", "^", "v", "^", "^"]
    text = embed.as_html(figure, 'a "plot" of dots', "caption")
    assert 'alt="a &quot;plot&quot; of dots"' in text
    assert base64.b64decode(re.search(r"base64,([^\"]+)", text)[1]).startswith(b"\x89PNG")


def test_ladder_has_a_line_for_each_arm():
    records = [fake(name, s, 0.5, "a", arm="frozen") for name in ("tf-idf", "e", "org/big") for s in range(3)]
    (ax,) = figures.ladder(card_table.mean_of_tasks(card_table.scores_by_encoder(LADDER, records)), 1).axes
    assert [line.get_label() for line in ax.lines] == ["tf-idf", "e", "big"]
    assert all(list(line.get_ydata()) == [0.5] for line in ax.lines)
