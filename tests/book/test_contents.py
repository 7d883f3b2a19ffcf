"""The table of contents, the citations, the method cards and the library reference miss nothing."""

import importlib
import inspect
import io
import re

import check
import nbformat
import pages
import pytest
import yaml
from docutils import nodes
from docutils.core import publish_doctree
from docutils.parsers.rst import Directive, directives, roles
from pybtex.database import parse_file
from typer.main import get_command

from klnorm_lib import cli, methods
from tests.book import NOTEBOOKS, PROSE, ROOT

TOC = list(check.toc_files(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))))
SECTIONS = ("what it does", "use", "defaults", "cost", "evidence", "caveats")
CITED = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")


def markdown():  # every page, cell by cell
    yield from ((p.name, p.read_text(encoding="utf-8")) for p in PROSE)
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                yield path.name, cell.source


def test_contents_name_every_page_once():
    on_disk = {p.relative_to(ROOT).with_suffix("").as_posix() for p in [*PROSE, *NOTEBOOKS]}
    assert sorted(TOC) == sorted(on_disk | {f"book/{name}" for name in pages.GENERATED})


def test_chapters_stand_in_the_order_of_their_files():
    chapters = [name for name in TOC if name.startswith("notebooks/")]
    assert chapters == sorted(chapters)


def test_every_citation_is_in_the_bibliography():
    known = parse_file(str(ROOT / "book/references.bib")).entries
    cited = {(k.strip(), name) for name, text in markdown() for keys in CITED.findall(text) for k in keys.split(",")}
    assert cited
    assert not {(key, name) for key, name in cited if key not in known}


def test_every_reference_says_who_what_where_and_when():
    for key, entry in parse_file(str(ROOT / "book/references.bib")).entries.items():
        assert entry.persons.get("author"), key
        assert {"title", "year"} <= set(entry.fields), key
        assert {"journal", "booktitle", "publisher", "howpublished"} & set(entry.fields), key
        assert key.split("20")[0].isalpha() or entry.fields["year"] < "2000", key


@pytest.mark.parametrize("name", [n for n in methods.names() if n != "plain"])
def test_every_method_has_a_card(name):
    card = (ROOT / f"book/methods/{name}.md").read_text(encoding="utf-8")
    headings = " ".join(re.findall(r"(?m)^#+ (.*)$", card)).lower()
    assert not [section for section in SECTIONS if section not in headings]


@pytest.mark.parametrize("name", [n for n in methods.names() if n != "plain"])
def test_card_states_every_field_and_its_default(name):
    card = (ROOT / f"book/methods/{name}.md").read_text(encoding="utf-8")
    fields = {k: v for k, v in methods.to_dict(methods.build(name)).items() if k not in ("name", "version")}
    assert not [field for field in fields if f"`{field}" not in card]


MODULES = pages.public_modules()


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_documented(module):
    assert inspect.getdoc(importlib.import_module(module)), f"{module} has no docstring"
    assert not [name for name, value in pages.public_names(module).items() if not inspect.getdoc(value)]


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_link_to_no_module(module):
    # The reference registers functions and classes; a link to a module would be a broken one and stop the build.
    loaded = importlib.import_module(module)
    documented = [loaded, *pages.public_names(module).values()]
    assert not [value for value in documented if ":mod:`" in (inspect.getdoc(value) or "")]


class Asis(Directive):
    """Stands for the roles and directives of Sphinx, which docutils alone does not know."""

    has_content, optional_arguments, final_argument_whitespace = True, 99, True

    def run(self):
        return []


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_are_well_formed(module):
    # A warning here stops the build of the book, which takes minutes.
    for role in ("func", "class", "meth", "attr"):
        roles.register_local_role(role, roles.GenericRole(role, nodes.literal))
    directives.register_directive("math", Asis)
    loaded = importlib.import_module(module)
    for name, value in {module: loaded, **pages.public_names(module)}.items():
        told = io.StringIO()
        publish_doctree(inspect.getdoc(value), settings_overrides={"warning_stream": told, "report_level": 2})
        assert not told.getvalue(), name


def test_library_reference_describes_every_public_object_once():
    described = [(m, n, auto) for m, names in pages.described().items() for n, auto in names.items()]
    objects = [getattr(importlib.import_module(module), name) for module, name, _ in described]
    assert len(set(map(id, objects))) == len(objects)
    public = {f"{m}.{n}": v for m in MODULES for n, v in pages.public_names(m).items()}
    assert not [name for name, value in public.items() if not any(value is o for o in objects)]
    written = "\n".join(pages.library().values())
    assert not [f"{m}.{n}" for m, n, auto in described if written.count(f".. {auto}:: {m}.{n}\n") != 1]


def test_library_reference_describes_every_command_and_its_options():
    written = re.split(r"^### ", pages.library()["library/cli"], flags=re.MULTILINE)
    for name, command in get_command(cli.app).commands.items():
        (section,) = (part for part in written if part.startswith(f"`klnorm {name}`\n"))
        assert not [o for p in command.params for o in p.opts if o.startswith("--") and f"`{o}" not in section]


def test_names_exported_at_the_top_exist_and_are_in_the_reference():
    library = importlib.import_module("klnorm_lib")
    assert {"apply", "auxiliary_loss", "load", "effective_rates"} <= set(library.__all__)
    assert not [name for name in library.__all__ if getattr(library, name, None) is None]
