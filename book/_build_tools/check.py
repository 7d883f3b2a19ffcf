"""Look at what was built, for what Sphinx's warnings do not see. Every problem names its file and what to do.

Errors or unexecuted cells in notebooks; LaTeX that MathJax would print in red; files no page leads to; ``$$`` glued to
a paragraph; figures without alt text; requests to other machines; results that somebody typed into a notebook, its
outputs included; leftovers of a build outside ``build/``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import latex
import nbformat
import typed_in_notebooks
import yaml
from bs4 import BeautifulSoup

LEFTOVERS = {"_build", "jupyter_execute", ".ipynb_checkpoints", ".jupyter_cache"}
SKIPPED = {"build", ".venv", ".git", "node_modules"}
PICTURES = {".png", ".svg", ".jpg", ".jpeg", ".gif", ".webp"}


def notebooks(folder: Path) -> Iterator[str]:
    """Error outputs, cells that were not executed, and numbers that were typed."""
    for path in sorted(folder.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        yield from (f"{path.name}, {problem}" for problem in typed_in_notebooks.problems(notebook))
        for number, cell in enumerate(notebook.cells):
            if cell.cell_type != "code" or not cell.source.strip():
                continue
            for output in cell.outputs:
                if output.output_type == "error":
                    yield f"{path.name}, cell {number}: {output.ename}: {output.evalue}; repair the cell"
            if cell.execution_count is None:
                yield f"{path.name}, cell {number}: was not executed; delete {path} and build again"


def markdown_lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines without the marks of quotes; lines inside a code fence come as empty ones."""
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        bare = re.sub(r"^[\s>]*", "", line)
        opening = re.match(r"(`{3,}|~{3,}|:{3,})", bare)
        if fence is None and opening and opening[1][0] != ":":
            fence = opening[1]
            yield number, ""
        elif fence is not None:
            if opening and opening[1].startswith(fence) and bare.strip("`~ ") == "":
                fence = None
            yield number, ""
        else:
            yield number, bare.rstrip()


def glued_maths(name: str, text: str) -> Iterator[str]:
    """Displayed equations without a blank line around, or inside a line of text: MyST prints them as text."""
    lines = [re.sub(r"`[^`]*`", "", line) for _, line in markdown_lines(text)]
    inside = False
    for index, line in enumerate(lines):
        marks = line.count("$$")
        if not marks:
            continue
        alone = re.fullmatch(r"\$\$(.*\$\$)?\s*(\([\w-]+\))?", line) if not inside else None
        closing = re.fullmatch(r".*\$\$\s*(\([\w-]+\))?", line) if inside else None
        advice = "give the equation lines of its own, with a blank line before and after"
        if not inside and (not re.match(r"\$\$", line) or (index and lines[index - 1])):
            yield f"{name}, line {index + 1}: `$$` glued to a paragraph; {advice}"
        elif not inside and marks == 1 and not alone and line != "$$" and not line.startswith("$$"):
            yield f"{name}, line {index + 1}: `$$` opens in the middle of a line; {advice}"
        elif not inside and marks == 2 and not alone:
            yield f"{name}, line {index + 1}: text beside a displayed equation; {advice}"
        elif inside and not closing:
            yield f"{name}, line {index + 1}: text behind a displayed equation; {advice}"
        ends = inside or marks == 2
        if ends and index + 1 < len(lines) and lines[index + 1]:
            yield f"{name}, line {index + 1}: no blank line after the equation; {advice}"
        inside ^= marks % 2 == 1
    if inside:
        yield f"{name}: a `$$` is never closed"


def sources(src: Path) -> Iterator[tuple[str, str]]:
    """Every piece of Markdown that becomes a page: files, and the Markdown cells of notebooks."""
    for path in sorted(src.rglob("*.md")):
        yield str(path.relative_to(src)), path.read_text(encoding="utf-8")
    for path in sorted(src.rglob("*.ipynb")):
        for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
            if cell.cell_type == "markdown":
                yield f"{path.relative_to(src)}, cell {number}", cell.source


def toc_files(toc: object) -> Iterator[str]:
    """Every file that the table of contents names, without suffix."""
    if isinstance(toc, dict):
        for key, value in toc.items():
            if key in ("file", "root"):
                yield str(value)
            else:
                yield from toc_files(value)
    elif isinstance(toc, list):
        for item in toc:
            yield from toc_files(item)


def orphans(src: Path) -> Iterator[str]:
    """Pages that the table of contents does not name, names without a page, and pictures that no page shows."""
    listed = set(toc_files(yaml.safe_load((src / "_toc.yml").read_text(encoding="utf-8"))))
    pages = {p.relative_to(src).with_suffix("").as_posix() for s in ("*.md", "*.ipynb") for p in src.rglob(s)}
    for page in sorted(pages - listed):
        yield f"{page}: not in _toc.yml; add it, or remove the file"
    for page in sorted(listed - pages):
        yield f"{page}: in _toc.yml, but there is no such file"
    text = "\n".join(body for _, body in sources(src)) + (src / "_config.yml").read_text(encoding="utf-8")
    for path in sorted(src.rglob("*")):
        if path.suffix in PICTURES and "mathjax" not in path.parts and path.name not in text:
            yield f"{path.relative_to(src)}: no page shows this picture; use it, or remove it"


def page_problems(name: str, page: BeautifulSoup) -> Iterator[str]:
    """Figures without alt text, resources of other machines, and maths that stayed text, on one rendered page."""
    article = page.select_one("article") or page
    for image in article.find_all("img"):
        alt = (image.get("alt") or "").strip()
        if not alt or re.search(r"\.(png|svg|jpe?g|gif|webp)$", alt):
            advice = 'set the cell\'s metadata {"mystnb": {"image": {"alt": "…"}}}, or :alt: of the figure'
            yield f"{name}: the figure {image.get('src', '')[:60]} has no alt text; {advice}"
    for tag in page.find_all(["script", "img", "iframe", "source", "video", "audio", "embed", "object", "link"]):
        address = tag.get("src") or tag.get("data") or (tag.get("href") if tag.name == "link" else None) or ""
        harmless = tag.name == "link" and {"canonical", "alternate"} & set(tag.get("rel") or [])
        if re.match(r"(https?:)?//", address) and not harmless:
            yield f"{name}: loads {address}; the book must not need the network, take a local copy"
    for style in page.find_all("style"):
        yield from css_problems(f"{name}, <style>", style.get_text())
    for node in article.find_all(string=re.compile(r"\$\$|\{eq\}`|\{cite")):
        if not node.find_parent(["code", "pre", "script"]) and not node.find_parent(class_="math"):
            yield f"{name}: printed as text instead of being rendered: {node.strip()[:60]!r}"


def css_problems(name: str, text: str) -> Iterator[str]:
    for address in re.findall(r"(?:@import\s+|url\()\s*[\"']?((?:https?:)?//[^\"')\s]+)", text):
        yield f"{name}: loads {address}; the book must not need the network, take a local copy"


def rendered(html: Path) -> Iterator[str]:
    """Problems of the rendered pages, style sheets and equations."""
    formulas: dict[str, str] = {}
    for path in sorted(html.rglob("*.html")):
        if "_static" in path.parts:
            continue
        name = path.relative_to(html).as_posix()
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        yield from page_problems(name, page)
        button = f"/blob/main/{name.removesuffix('.html')}.ipynb"
        if name.startswith("notebooks/") and not page.select(f'a[href^="https://colab."][href$="{button}"]'):
            yield f"{name}: no Colab button that opens {button[11:]}; see launch_buttons and repository in _config.yml"
        for span in page.select(".math.notranslate"):
            # A numbered equation carries its number and a link in front of the formula.
            formula = re.search(r"\\[\[(].*\\[\])]", span.get_text(), re.DOTALL)
            formulas.setdefault(formula[0] if formula else span.get_text(), name)
    for path in sorted(html.rglob("*.css")):
        yield from css_problems(path.relative_to(html).as_posix(), path.read_text(encoding="utf-8"))
    script = html / "_static/mathjax/tex-mml-chtml.js"
    if not script.exists():
        yield f"{script.relative_to(html)}: missing, so that no equation is typeset"
        return
    yield from latex.problems(formulas, script)


def leftovers(root: Path) -> Iterator[str]:
    """What a build or a kernel dropped outside ``build/``."""
    for folder in sorted(root.iterdir()):
        if folder.name in SKIPPED or not folder.is_dir():
            continue
        for path in [folder, *sorted(folder.rglob("*"))]:
            if path.name in LEFTOVERS or path.name.endswith((".nbconvert.ipynb", "-papermill.ipynb")):
                yield f"{path.relative_to(root)}: left over from a build; delete it"


def problems(root: Path, src: Path, html: Path) -> list[str]:
    found = [*notebooks(src / "notebooks"), *orphans(src), *leftovers(root), *rendered(html)]
    for name, text in sources(src):
        found.extend(glued_maths(name, text))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--src", type=Path, default=Path("build/src"))
    parser.add_argument("--html", type=Path, default=Path("build/book/_build/html"))
    arguments = parser.parse_args()
    found = problems(Path.cwd(), arguments.src, arguments.html)
    for problem in found:
        print(f"  {problem}", file=sys.stderr)
    print(f"== checked what was built: {len(found)} problems" if found else "== checked what was built: no problems")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
