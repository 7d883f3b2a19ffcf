import pytest

from klnorm_lib import methods
from klnorm_lib.methods import counting


def test_name_fields_and_way_back():
    both = methods.build("dropout+klnorm", **{"dropout.p": 0.05, "klnorm.beta": 0.5})
    assert [method.name for method in both.methods] == ["dropout", "klnorm"]
    assert both.methods[0].p == 0.05
    assert both.methods[1].beta == 0.5
    saved = methods.to_dict(both)
    assert saved["name"] == "dropout+klnorm"
    assert saved["klnorm.beta"] == 0.5
    assert methods.from_dict(saved) == both
    assert both.version == sum(method.version for method in both.methods)
    assert counting.added_parameters(both, 32) == counting.added_parameters(both.methods[1], 32) == 4 * 16 * 32 + 2 * 32


@pytest.mark.parametrize(
    ("name", "fields", "told"),
    [
        ("dropout+klnorm", {"beta": 1.0}, "METHOD.FIELD"),
        ("dropout+klnorm", {"vib.beta": 1.0}, "METHOD.FIELD"),
        ("dropout+klnorm", {"klnorm.gamma": 1.0}, "klnorm has no hyperparameter gamma"),
        ("dropout+klnrm", {}, "did you mean 'klnorm'"),
        ("dropout+plain", {}, "unknown method 'plain'"),
        ("dropout+dropout", {}, "at least two different"),
    ],
)
def test_what_is_refused(name, fields, told):
    with pytest.raises(ValueError, match=told):
        methods.build(name, **fields)
