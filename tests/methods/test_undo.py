"""What a failed change to a model leaves behind: nothing."""

import pytest
import torch
from torch import nn

from klnorm_lib.methods.contract.undo import Undo, add_module, replace_module, undo_later, undo_on_error


class Failed(Exception):
    pass


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU())


def test_an_error_takes_back_everything_latest_first(model):
    first, order = model[0], []
    with pytest.raises(Failed), undo_on_error(model) as undo:  # noqa: PT012
        undo.remember([model], model.parameters())
        replace_module(model, "0", nn.Identity())
        add_module(model, "more", nn.ReLU())
        undo.set(model, "training", False)
        for name in "ab":
            undo_later(model, lambda name=name: order.append(name))
        model.__class__ = type("Other", (nn.Sequential,), {})
        model.mark = 1
        first.weight.requires_grad_(False)
        raise Failed
    assert order == ["b", "a"]
    assert model[0] is first
    assert type(model) is nn.Sequential
    assert len(model) == 2
    assert model.training
    assert first.weight.requires_grad
    assert not {"mark", "_klnorm_undo"} & set(vars(model))


def test_without_an_error_the_changes_stay(model):
    with undo_on_error(model) as undo:
        replace_module(model, "0", nn.Identity())
        undo.set(model, "training", False)
        assert undo.has_set(model, "training")
        assert not undo.has_set(model[1], "training")
    assert isinstance(model[0], nn.Identity)
    assert not model.training
    assert "_klnorm_undo" not in vars(model)


def test_a_change_inside_another_takes_back_its_own_part_only(model):
    with undo_on_error(model) as outer:
        outer.set(model[1], "inplace", True)
        with pytest.raises(Failed), undo_on_error(model) as inner:  # noqa: PT012
            assert inner is outer
            inner.set(model[0], "in_features", 7)
            raise Failed
        assert model[0].in_features == 2
        assert model[1].inplace
        assert len(outer) == 1
    assert model[1].inplace
    with pytest.raises(ValueError, match="has something called 'training' already"):
        add_module(model, "training", nn.ReLU())


def test_steps_are_taken_once():
    undo, seen = Undo(), []
    undo.later(lambda: seen.append(torch.pi))
    undo.back_to()
    undo.back_to()
    assert seen == [torch.pi]
