"""One address, one list of dependencies, no machine's paths: what must hold over the whole repository."""

import re
import shutil
import subprocess
import tomllib

import nbformat
import pytest
import replay_environment
import repo_url
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.book import NOTEBOOKS, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
URL = repo_url.current(ROOT)
PATHS = re.compile(r"(?:^|[^A-Za-z.\w])/(?:root|tmp|work|home|Users|mnt|opt)/[A-Za-z]")
INDEXES = ("pypi", "pythonhosted", "npmjs", "pytorch", "debian", "anaconda")
HOSTS = re.compile(rf"\b(?:{'|'.join(INDEXES)})\.(?:org|com|io|python)\b|index-url|find-links", re.I)


def constraints():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_the_address_is_the_same_everywhere():
    assert PROJECT["urls"]["Repository"] == URL
    assert PROJECT["urls"]["Book"] == repo_url.pages_url(URL)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["repository-code"] == URL
    assert f"git+{URL}@main" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"git clone {URL}" in (ROOT / "book/how_to_read.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"git+{URL}@main" in nbformat.read(path, as_version=4).cells[1].source, path.name


def test_no_other_repository_of_ours_is_named():
    name = repo_url.split(URL)[1]
    for path in repo_url.files(ROOT):
        for match in repo_url.REPOSITORY.finditer(path.read_text(encoding="utf-8", errors="ignore")):
            if match[2].removesuffix(".git").rstrip(".") == name:
                assert match[0].removesuffix(".git").rstrip(".") == URL, path


def test_one_command_changes_every_place(tmp_path):
    names = ["_config.yml", "pyproject.toml", "CITATION.cff", "README.md", "book", "notebooks", ".github"]
    for name in filter(lambda n: (ROOT / n).exists(), names):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    before = repo_url.places(tmp_path, URL)
    assert {"_config.yml", "pyproject.toml", "CITATION.cff", "README.md"} <= {p.name for p in before}
    repo_url.change(tmp_path, "https://github.com/Someone/else.where/")
    assert repo_url.current(tmp_path) == "https://github.com/Someone/else.where"
    assert not repo_url.places(tmp_path, URL)
    assert "https://someone.github.io/else.where" in (tmp_path / "pyproject.toml").read_text(encoding="utf-8")
    after = repo_url.places(tmp_path, "https://github.com/Someone/else.where")
    assert after == before


@pytest.mark.parametrize("url", ["", "github.com/a/b", "https://gitlab.com/a/b", "https://github.com/a", "x y"])
def test_an_address_that_is_none_is_refused(url, tmp_path):
    with pytest.raises(ValueError, match="https://github.com/ORG/REPO"):
        repo_url.change(tmp_path, url)


def test_environment_installs_this_project_and_nothing_else():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert set(environment) == {"name", "channels", "dependencies"}
    python, pip, last = environment["dependencies"]
    assert (pip, set(last)) == ("pip", {"pip"})
    version = python.removeprefix("python=")
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{version}.99")
    assert replay_environment.pip_lines(ROOT) == ["-c constraints.txt", "-e .[book,test]"]


def test_environment_asks_for_extras_that_exist():
    extras = re.search(r"\[(.*)\]", replay_environment.pip_lines(ROOT)[1])[1].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    assert f'".[{",".join(extras)}]"' in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_extras_are_those_that_are_promised():
    assert {"book", "test", "cluster"} <= set(PROJECT["optional-dependencies"])


def test_constraints_pin_every_dependency_within_its_bounds():
    pins = {}
    for pin in constraints():
        pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *extras["book"], *extras["test"]]:
        wanted = Requirement(text)
        found = pins.get(canonicalize_name(wanted.name), [])
        assert found, f"constraints.txt does not pin {wanted.name}"
        for pin in found:
            assert wanted.specifier.contains(str(pin.specifier).removeprefix("==")), f"{pin} is outside {wanted}"


def test_constraints_hold_versions_only():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert not re.search(r"--hash|file:|://|@|\+cpu", text)
    for pin in constraints():
        assert re.fullmatch(r"==[\w.!]+", str(pin.specifier)), pin


def test_every_file_of_the_library_is_packaged():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]
    packaged = {path for pattern in patterns["klnorm_lib"] for path in (ROOT / "klnorm_lib").glob(pattern)}
    listed = subprocess.run(["git", "ls-files", "klnorm_lib"], cwd=ROOT, capture_output=True, text=True, check=True)
    data = {ROOT / name for name in listed.stdout.split("\n") if name and not name.endswith(".py")}
    assert ROOT / "klnorm_lib/py.typed" in data
    assert data - packaged == set()


def test_users_get_lower_bounds():
    for text in PROJECT["dependencies"]:
        assert all(s.operator == ">=" for s in Requirement(text).specifier), text


def test_no_path_of_a_machine_and_no_host_of_an_index():
    for path in repo_url.files(ROOT):
        if path.is_relative_to(ROOT / "tests/book"):
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        assert not PATHS.findall(text), path
        assert not HOSTS.findall(text), path


@pytest.mark.parametrize("text", [f"open('/{top}/me/x')" for top in ("home", "work", "tmp")])
def test_a_path_of_a_machine_would_be_found(text):
    assert PATHS.search(text)


@pytest.mark.parametrize("index", INDEXES)
def test_a_host_of_an_index_would_be_found(index):
    assert HOSTS.search(f"https://{index}.org/simple")


def test_the_workflow_calls_the_script_that_everybody_can_call():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    commands = [step.get("run", "") for step in workflow["jobs"]["ci"]["steps"]]
    assert any(command.startswith(".ci/run") for command in commands)
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert "make book" in script
    assert "make test" in script
    assert (ROOT / ".ci/run").stat().st_mode & 0o100
