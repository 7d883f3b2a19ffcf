"""Execute one notebook with papermill, in an empty working folder, and say how it went in one live line.

A notebook that fails leaves no output file, so that the next `make book` runs it again.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import time
from pathlib import Path

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

FORMAT = "{desc:<32}{bar:20} {n_fmt:>3}/{total_fmt} cells  {elapsed}"


def execute(source: Path, target: Path, scale: str) -> float:
    """Run ``source`` with ``SCALE`` set, write the executed notebook to ``target``, return the seconds it took."""
    # Nothing of the repository lies beside the notebook, as in Colab, and nothing it writes lands in the repository.
    folder = Path("build/run", source.stem).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = folder / source.name
    quiet_ipython(folder / "ipython")
    live = sys.stdout.isatty()
    bar = {"desc": source.stem, "bar_format": FORMAT, "file": sys.stdout, "mininterval": 0.5}
    if not live:
        print(f"{source.stem:<32}", end="", flush=True)
    start = time.monotonic()
    papermill.execute_notebook(
        str(source),
        str(partial),
        parameters={"SCALE": scale},
        kernel_name="python3",
        cwd=str(folder),
        progress_bar=live and bar,
    )
    seconds = time.monotonic() - start
    if not live:
        print(f"{seconds:6.1f} s")
    finish(partial, target, scale, seconds)
    shutil.rmtree(folder)
    return seconds


def quiet_ipython(folder: Path) -> None:
    """Give the kernel a profile of its own: no start-up files of the user's, no warnings between our lines."""
    (folder / "profile_default").mkdir(parents=True)
    (folder / "profile_default/ipython_kernel_config.py").write_text("get_config().IPKernelApp.log_level = 40\n")
    os.environ["IPYTHONDIR"] = str(folder)


def finish(partial: Path, target: Path, scale: str, seconds: float) -> None:
    """Hide the injected parameters, number the title, say what was run, and keep the time for the status page."""
    notebook = nbformat.read(partial, as_version=4)
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata["tags"].append("remove-cell")
    title = notebook.cells[0]
    title.source = re.sub(r"\A# ", f"# {target.stem[:2]} · ", title.source)
    title.source += (
        f"\n\n<small>This page was executed at scale `{scale}` in {seconds:.0f} s on the machine that built the book; "
        "[status](../book/status.md).</small>"
    )
    notebook.metadata["book"] = {"scale": scale, "seconds": round(seconds, 1)}
    nbformat.write(notebook, target)


def explain(error: PapermillExecutionError, source: Path) -> str:
    """One paragraph naming the notebook, the cell, its code and the error."""
    code = "\n".join("    " + line for line in error.source.splitlines())
    return (
        f"\n{source}, cell {error.cell_index} (In [{error.exec_count}]) failed with "
        f"{error.ename}: {error.evalue}\n\n{code}\n\nOpen the notebook in Jupyter, run it up to this cell, repair it, "
        "and call `make book` again: only what changed is executed.\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--scale", default="ci", choices=["ci", "colab", "paper"])
    arguments = parser.parse_args()
    arguments.target.unlink(missing_ok=True)
    try:
        execute(arguments.source, arguments.target, arguments.scale)
    except PapermillExecutionError as error:
        print(explain(error, arguments.source), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
