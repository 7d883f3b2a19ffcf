"""Pages that are written by the build: status, results, encoders, tasks and library reference."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import platform
from importlib import metadata
from pathlib import Path

import nbformat
import typer.cli
import typer.main
from tasks_page import tasks_page

from klnorm_lib.cli import app

# From the maths up to the command line, as in the contract of pyproject.toml.
LAYERS = (
    "functional", "tasks", "encoders", "sites", "probes", "methods", "pretraining", "study", "sweep",
    "figures", "pages", "cli",
)  # fmt: skip
MADE = ("status", "results", "could_not_reproduce", "architectures", "encoders", "tasks")
GENERATED = (*MADE, "library/index", *(f"library/{layer}" for layer in LAYERS))
PACKAGES = ("torch", "transformers", "datasets", "numpy", "scipy", "matplotlib", "papermill", "jupyter-book")
COMMANDS = (app.registered_callback.callback, *(command.callback for command in app.registered_commands))
MACHINE = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def generate(src: Path) -> dict[str, str]:
    """File name below ``book/`` to Markdown text."""
    written = {"status": status(src), "results": results(), "could_not_reproduce": could_not_reproduce()}
    written |= {"architectures": architectures(), "encoders": encoders(), "tasks": tasks_page(), **library()}
    return {f"{name}.md": written[name] for name in GENERATED}


def title_of(notebook: nbformat.NotebookNode) -> str:
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def status(src: Path) -> str:
    """When, how long and with which versions each notebook ran, from what papermill wrote into it."""
    rows = []
    for path in sorted((src / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        run, book = notebook.metadata["papermill"], notebook.metadata["book"]
        rows.append(
            f"| [{title_of(notebook)}](../notebooks/{path.name}) | {book['scale']} | {book['seconds']:.1f} "
            f"| {run['start_time'][:16].replace('T', ' ')} | {'failed' if run['exception'] else 'ran'} |"
        )
    versions = "\n".join(f"| {name} | {metadata.version(name)} |" for name in PACKAGES)
    table = "| chapter | scale | seconds | executed (UTC) | outcome |\n|---|---|---|---|---|\n" + "\n".join(rows)
    return (
        "# Status\n\nEvery chapter of this book was executed when the book was built. This page is written by that "
        f"build; nobody types it.\n\n## Chapters\n\n{table if rows else 'No chapter was executed.'}\n\n"
        f"## Versions\n\nMachine: {MACHINE}.\n\n| package | version |\n|---|---|\n{versions}\n"
    )


def public_modules() -> list[str]:
    """Every module of the library that a reader may import, layer by layer from the maths up."""
    import klnorm_lib

    names = [m.name for m in pkgutil.walk_packages(klnorm_lib.__path__, "klnorm_lib.")]
    public = [n for n in names if not any(part.startswith("_") for part in n.split("."))]
    layered = [n for n in public if n.split(".")[1] in LAYERS]
    return ["klnorm_lib", *sorted(layered, key=lambda n: (LAYERS.index(n.split(".")[1]), n))]


def public_names(module: str) -> dict[str, object]:
    """The public functions and classes that ``module`` defines, and, for a package, those it lists in ``__all__``.

    The commands of ``klnorm`` are not among them: the reference shows them as a user types them.
    """
    loaded = importlib.import_module(module)
    listed = {name: getattr(loaded, name) for name in getattr(loaded, "__all__", ())}
    return {
        name: value
        for name, value in {**vars(loaded), **listed}.items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and (name in listed or value.__module__ == module)
        and value not in COMMANDS
    }


def described() -> dict[str, dict[str, str]]:
    """Module to public name to directive: each object once, at the shortest path below the top that exports it."""
    entries: dict[str, dict[str, str]] = {}
    seen: set[int] = set()
    for module in public_modules():
        entries[module] = {}
        if module == "klnorm_lib":
            continue  # the top only passes names on
        for name, value in public_names(module).items():
            if id(value) not in seen:
                seen.add(id(value))
                entries[module][name] = "autoclass" if inspect.isclass(value) else "autofunction"
    return entries


def commands() -> str:
    """Usage, arguments and options of every command, from the application itself."""
    group = typer.main.get_command(app)
    context = typer.Context(group, info_name="klnorm")
    return typer.cli.get_docs_for_click(obj=group, ctx=context, name="klnorm", indent=1)


def library() -> dict[str, str]:
    """The reference of every public function and class, from its docstring: one page a package."""
    pages = {
        "library/index": "# Library reference\n\nEvery public name of `klnorm_lib`. Its packages are layers, the "
        "lowest first: a module imports from layers below its own only. Formulas stand where they are computed; the "
        "chapters derive them. These names are exported at the top: "
        + ", ".join(f"`{name}`" for name in importlib.import_module("klnorm_lib").__all__)
        + ".\n\n```{tableofcontents}\n```\n"
    }
    for module, names in described().items():
        lines = [f".. automodule:: {module}", "   :no-members:", "   :no-index:", ""]
        for name, directive in names.items():
            lines += [f".. {directive}:: {module}.{name}", *(["   :members:"] if directive == "autoclass" else []), ""]
        parts = module.split(".")
        if len(parts) > 1:
            heading = "#" if len(parts) == 2 else "##"
            section = f"{heading} `{module}`\n\n```{{eval-rst}}\n" + "\n".join(lines) + "\n```\n"
            if module == "klnorm_lib.cli":
                section += f"\n{commands()}"
            page = f"library/{parts[1]}"
            pages[page] = f"{pages[page]}\n{section}" if page in pages else section
    return pages


def results() -> str:
    """The results page: tables made from the committed records, and nothing else."""
    from klnorm_lib.pages import results

    return results.page()


def could_not_reproduce() -> str:
    """The paper's claims beside the verdicts of the records."""
    from klnorm_lib.pages import could_not_reproduce

    return could_not_reproduce.page()


def architectures() -> str:
    """What was checked on a small model of every classifier of transformers."""
    from klnorm_lib.pages import architectures

    return architectures.page()


def encoders() -> str:
    """The encoders that ship with the library: what they know and do not know, and their cards."""
    from klnorm_lib.pages import encoder_page

    return encoder_page.page()
