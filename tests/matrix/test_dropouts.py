"""Guided dropout on a fixed sample of architectures, measured where torch draws its masks."""

import pytest
from torch.nn import functional as F

from tests.matrix import architectures, dropouts

SAMPLE = (
    "text/albert", "text/deberta-v2", "text/distilbert", "text/gpt2", "text/llama", "text/modernbert", "text/opt",
    "text/xlm", "audio/wav2vec2", "audio/wav2vec2-conformer", "audio/whisper", "image/beit", "image/dinov2",
)  # fmt: skip


@pytest.mark.parametrize("name", SAMPLE)
def test_every_mask_has_the_rate_of_its_site(name):
    assert dropouts.guided(name) >= 2


def test_a_draw_that_is_no_sites_and_a_site_that_does_not_run_are_findings():
    model = architectures.build("text/bert")
    wanted = dropouts.ask(model)
    model.bert.encoder.layer[0].intermediate.register_forward_hook(lambda m, args, out: F.dropout(out, 0.7))
    model.bert.encoder.layer[1].output.dropout.forward = lambda x: x
    seen = dropouts.measured_rates(model, architectures.batch("text/bert", model, rows=dropouts.ROWS))
    extra = {f"{dropouts.OUTSIDE}encoder.layer.0.intermediate": 0.7}
    assert seen == {k: p for k, p in wanted.items() if k != "layer.1.ffn_output"} | extra


def test_a_second_rate_at_one_site_is_a_finding():
    model = architectures.build("text/bert")
    wanted = dropouts.ask(model)
    model.bert.encoder.layer[0].output.dropout.register_forward_hook(lambda m, args, out: F.dropout(out, 0.7))
    seen = dropouts.measured_rates(model, architectures.batch("text/bert", model, rows=dropouts.ROWS))
    assert seen == wanted | {"layer.0.ffn_output again at 0.7": 0.7}
