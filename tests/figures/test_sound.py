"""Audio players: the page holds the samples as they were, with a name for those who do not see the page."""

import base64
import html.parser
import io

import numpy as np
import pytest
import soundfile

from klnorm_lib.figures import players


class Tags(html.parser.HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.audio = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "audio":
            self.audio.append(dict(attributes))

    def handle_data(self, data):
        self.text += data


def test_samples_are_played_as_they_are():
    rng = np.random.default_rng(0)
    sounds = {"quiet": 0.01 * rng.uniform(-1, 1, 800), "<loud> & 'near'": 0.9 * rng.uniform(-1, 1, 400)}
    page = Tags(players(sounds, rate=8000)._repr_html_())
    assert [a["aria-label"] for a in page.audio] == list(sounds)
    assert page.text == "".join(sounds)
    for tag, wave in zip(page.audio, sounds.values(), strict=True):
        kind, _, content = tag["src"].partition(",")
        assert kind == "data:audio/wav;base64"
        heard, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
        assert rate == 8000
        np.testing.assert_allclose(heard, wave, atol=2 / 32768)


def test_text_form_tells_durations():
    assert repr(players({"a": np.zeros(8000), "b": [0.5] * 4000})) == "a: 0.50 s\nb: 0.25 s"


@pytest.mark.parametrize(
    "samples", [[], [[0.1, 0.2]], [0.1, float("nan")], [0.5, -1.5], 0.1], ids=["none", "two rows", "nan", "over", "one"]
)
def test_what_cannot_be_played_is_refused(samples):
    with pytest.raises(ValueError, match="'bad' is not a sound"):
        players({"good": [0.0, 0.1], "bad": samples})
