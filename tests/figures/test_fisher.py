"""Figures of the Fisher information: the map holds every tensor of a layer, and every site is drawn."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection

from klnorm_lib.figures import fisher
from klnorm_lib.probes.fisher.table import FisherTable, shipped
from tests import zoo

mpl.use("agg")
RATES = {"embeddings": 0.0} | {
    f"layer.{i}.{kind}": rate + 0.01 * i
    for i in range(2)
    for kind, rate in (("attention_probs", 0.08), ("attention_output", 0.05), ("ffn_output", 0.055))
}


def table(name="bert"):
    model = zoo.build(name, kind="encoder")
    values = {n: torch.full(p.shape, float(i + 1)) for i, (n, p) in enumerate(model.named_parameters())}
    return FisherTable.of(values), values


def test_the_map_has_the_mean_of_every_tensor_in_its_place():
    made, values = table()
    found = fisher.layer_map(made)
    assert found.shape == (zoo.LAYERS, len(fisher.COLUMNS))
    for i, row in enumerate(found):
        for end, value in zip(fisher.COLUMNS.values(), row, strict=True):
            assert value == values[f"encoder.layer.{i}.{end}"].mean()
    in_layers = [n for n in made if n.startswith("encoder.layer.")]
    assert len(in_layers) == found.size, "every tensor of the layers stands in the map"


@pytest.mark.parametrize("name", shipped())
def test_what_ships_can_be_drawn_and_key_biases_are_nothing(name):
    fig, ax = plt.subplots()
    image = fisher.draw_map(ax, FisherTable.load(name))
    empty = np.isnan(np.ma.filled(image.get_array().astype(float), np.nan)).all(0)
    assert [c for c, e in zip(fisher.COLUMNS, empty, strict=True) if e] == ["key bias"]
    plt.close(fig)


def test_other_architectures_are_refused_by_name():
    made, _ = table("distilbert")
    with pytest.raises(ValueError, match=r"encoder\.layer\.0 is missing"):
        fisher.layer_map(made)


def test_every_site_is_a_point_and_every_published_mean_a_line():
    fig, ax = plt.subplots()
    fisher.draw_kinds(ax, RATES, {"embeddings": 0.0, "attention_probs": 0.084})
    drawn = [float(y) for c in ax.collections for _, y in c.get_offsets() if isinstance(c, PathCollection)]
    assert sorted(drawn) == pytest.approx(sorted(RATES.values()))
    lines = [float(line[0, 1]) for c in ax.collections if isinstance(c, LineCollection) for line in c.get_segments()]
    assert lines == [0.0, 0.084]
    assert [t.get_text() for t in ax.get_xticklabels()][1:3] == ["attention\nprobs", "attention\noutput"]
    plt.close(fig)
