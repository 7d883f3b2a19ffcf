"""Lay out the folder that Sphinx reads: configuration, prose, executed notebooks, MathJax, and the generated pages."""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
from pathlib import Path

import pages
import repo_url
import source_links

# The extensions are fetched by the script itself when a formula needs one; if one is missing, a whole page stays unset.
MATHJAX_FILES = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")


def copy_mathjax(target: Path) -> None:
    """Take what a page needs from the PyPI package, which holds all of MathJax (24 MB)."""
    package = importlib.metadata.distribution("sphinx-mathjax-offline")
    source = Path(str(package.locate_file("sphinx-mathjax-offline/static/mathjax")))
    for name in MATHJAX_FILES:
        if not (source / name).exists():
            raise FileNotFoundError(f"{source / name}: reinstall sphinx-mathjax-offline")
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
        else:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, target / name)


def assemble(root: Path, src: Path) -> None:
    """Fill ``src``; executed notebooks are there already, and those whose source has gone are removed."""
    for executed in (src / "notebooks").glob("*.ipynb"):
        if not (root / "notebooks" / executed.name).exists():
            executed.unlink()
    source_links.link_notebooks(src / "notebooks", repo_url.current(root))
    shutil.rmtree(src / "book", ignore_errors=True)
    shutil.copytree(root / "book", src / "book", ignore=shutil.ignore_patterns("_build_tools", ".*", "__pycache__"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root / name, src / name)
    copy_mathjax(src / "book/_static/mathjax")
    for name, page in pages.generate(src).items():
        (src / "book" / name).parent.mkdir(exist_ok=True)
        (src / "book" / name).write_text(page, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--src", type=Path, default=Path("build/src"))
    assemble(Path.cwd(), parser.parse_args().src)


if __name__ == "__main__":
    main()
