"""One list of methods: what is derived from it, what other packages add to it, and what it refuses."""

import dataclasses
import subprocess
import sys

import pytest

import klnorm_lib
from klnorm_lib import methods
from klnorm_lib.methods.plugins import Registry

MODULE = """\
from dataclasses import dataclass
from klnorm_lib import Method

@dataclass(frozen=True)
class Doubled(Method):
    factor: float = 2.0

    name = "doubled"

@dataclass(frozen=True)
class OtherDropout(Method):
    name = "dropout"
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Make a package with ``MODULE`` and these entry points importable, as pip would."""

    def install(**points):
        (tmp_path / "their_methods.py").write_text(MODULE)
        info = tmp_path / "their_methods-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-methods\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[klnorm_lib.methods]", *lines]))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "their_methods", raising=False)
        registry = Registry(list(methods.REGISTRY.own.values()))
        monkeypatch.setattr("klnorm_lib.methods.registry.REGISTRY", registry)
        return registry

    return install


def test_exports_are_those_of_the_registry():
    classes = {cls.__name__: cls for cls in methods.REGISTRY.own.values()}
    for package in (methods, klnorm_lib):
        assert {name: getattr(package, name) for name in classes} == classes
        assert set(classes) <= set(package.__all__)
    assert methods.names() == ["plain", *methods.REGISTRY]
    assert all(dataclasses.is_dataclass(cls) and cls.name == name for name, cls in methods.REGISTRY.items())


def test_importing_the_library_imports_no_method():
    code = "import klnorm_lib, sys; assert 'torch' not in sys.modules; klnorm_lib.KLNorm; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_entry_point_is_a_method_like_any_other(install):
    registry = install(doubled="their_methods:Doubled")
    assert list(registry)[-1] == "doubled"
    assert methods.names()[-1] == "doubled"
    built = methods.build("doubled", factor=3.0)
    assert type(built).__module__ == "their_methods"
    assert methods.from_dict(methods.to_dict(built)) == built
    assert registry["doubled"] is registry["doubled"]


@pytest.mark.parametrize(
    ("point", "error", "told"),
    [
        ({"dropout": "their_methods:OtherDropout"}, ValueError, "dropout = their_methods:OtherDropout.*is taken"),
        ({"twice": "their_methods:Doubled"}, ValueError, "twice = their_methods:Doubled.*calls itself 'doubled'"),
        ({"doubled": "their_methods:MODULE_LEVEL"}, UserWarning, "doubled = their_methods:MODULE_LEVEL"),
        ({"doubled": "dataclasses:dataclass"}, ValueError, "doubled = dataclasses:dataclass.*no subclass"),
    ],
)
@pytest.mark.filterwarnings("error::UserWarning")
def test_what_an_entry_point_may_not_be(install, point, error, told):
    install(**point)
    for _ in range(1 if error is UserWarning else 2):  # an error is not forgotten
        with pytest.raises(error, match=told):
            methods.names()


def test_an_entry_point_that_cannot_be_imported_is_named_and_leaves_the_others(install):
    install(lost="no_such_module:Lost", doubled="their_methods:Doubled")
    with pytest.warns(UserWarning, match="lost = no_such_module:Lost.*ModuleNotFoundError") as warned:
        names = methods.names()
    assert "doubled" in names
    assert methods.build("klnorm").name == "klnorm"
    assert len(warned) == 1
    with pytest.raises(ValueError, match="'lost' is not there.*no_such_module"):
        methods.build("lost")


def test_two_methods_of_one_name_are_refused():
    cls = methods.KLNorm
    with pytest.raises(ValueError, match="is taken"):
        Registry([cls, cls])


@dataclasses.dataclass(frozen=True)
class Grown(methods.Method):
    """A method of two fields, the second of which came later."""

    rate: float = 0.1
    shape: str = "flat"

    name = "grown"


def test_a_later_field_with_the_old_behaviour_changes_no_record(monkeypatch):
    before = {"rate": 0.1}
    assert methods.recorded_fields(Grown()) == {"rate": 0.1, "shape": "flat"}
    monkeypatch.setattr(Grown, "later", {"shape": "flat"})
    assert methods.recorded_fields(Grown()) == before
    assert methods.recorded_fields(Grown(shape="round")) == {"rate": 0.1, "shape": "round"}
    assert methods.to_dict(Grown()) == {"name": "grown", "rate": 0.1, "shape": "flat"}
    both = methods.Together((Grown(), methods.MLPHead()))
    assert methods.recorded_fields(both) == {"grown.rate": 0.1, "mlp_head.rank": 16, "mlp_head.seed": 0}
    assert methods.recorded_fields(None) == {}
