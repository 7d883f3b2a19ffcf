"""Run one notebook as Colab would: alone in an empty folder, with the library installed by its own hidden cell.

A new environment holds what Colab brings (torch, a kernel) and an empty package ``google.colab``; git is told, through
its environment only, that the repository's address is this clone. Two negative controls show that the test can fail:
without that redirection the installation must fail, and without ``google.colab`` nothing may be installed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import repo_url

# What Colab's image has before the first cell runs; the library's lower bounds must not replace torch.
PREINSTALLED = ("torch", "ipykernel", "nbclient", "nbformat")
RUN = """
import sys, nbformat
from nbclient import NotebookClient
path = sys.argv[1]
notebook = nbformat.read(path, as_version=4)
if len(sys.argv) > 2:
    del notebook.cells[int(sys.argv[2]) + 1:]
NotebookClient(notebook, timeout=1800, kernel_name="python3").execute()
"""
PROBE = "import importlib.util, sys; sys.exit(importlib.util.find_spec('klnorm_lib') is None)"


class Colab:
    """A new environment that looks to a notebook like Colab's."""

    def __init__(self, folder: Path, root: Path, url: str):
        self.folder, self.root, self.url = folder, root, url
        self.python = folder / "venv/bin/python"
        print("== new environment with what Colab brings: torch and a kernel")
        venv.create(folder / "venv", with_pip=True)
        self.pip("install", "--quiet", "-c", str(root / "constraints.txt"), *PREINSTALLED)
        (folder / "fake/google/colab").mkdir(parents=True)
        (folder / "fake/google/colab/__init__.py").touch()
        startup = folder / "ipython/profile_default/startup"
        startup.mkdir(parents=True)
        (startup / "00-colab.py").write_text("import google.colab\n")

    def pip(self, *arguments: str) -> None:
        subprocess.run([str(self.python), "-m", "pip", "--disable-pip-version-check", *arguments], check=True)

    def environment(self, colab: bool, redirected: bool) -> dict[str, str]:
        own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "KLNORM_MIRROR", "IPYTHONDIR")}
        own |= {"PATH": f"{self.python.parent}:{own['PATH']}", "JUPYTER_PREFER_ENV_PATH": "1"}
        own["GIT_TERMINAL_PROMPT"] = "0"
        if colab:
            own |= {"PYTHONPATH": str(self.folder / "fake"), "IPYTHONDIR": str(self.folder / "ipython")}
        else:
            own["IPYTHONDIR"] = str(self.folder / "plain")
        # Without the redirection the address leads nowhere, also on a machine that could reach it.
        target = self.root.as_uri() if redirected else (self.folder / "nowhere").as_uri()
        own |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{target}.insteadOf", "GIT_CONFIG_VALUE_0": self.url}
        return own

    def run(self, notebook: Path, last: int | None = None, colab: bool = True, redirected: bool = True) -> bool:
        """Execute ``notebook``, up to cell ``last``, alone in an empty folder; true if no cell raised."""
        with tempfile.TemporaryDirectory(dir=self.folder) as alone:
            shutil.copy(notebook, alone)
            command = [str(self.python), "-c", RUN, notebook.name, *([] if last is None else [str(last)])]
            return not subprocess.run(command, cwd=alone, env=self.environment(colab, redirected)).returncode

    def installed(self) -> bool:
        return not subprocess.run([str(self.python), "-c", PROBE], cwd=self.folder).returncode

    def torch(self) -> str:
        code = "import importlib.metadata as m; print(m.version('torch'))"
        return subprocess.run([str(self.python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def check(colab: Colab, notebook: Path) -> list[str]:
    """Both controls, then the notebook; what went wrong, if anything."""
    print("== control: outside Colab, nothing is installed")
    colab.run(notebook, last=1, colab=False)
    if colab.installed():
        return ["the hidden cell installed the library although google.colab is not loaded"]
    print("== control: without the repository, the installation fails")
    colab.run(notebook, last=1, redirected=False)
    if colab.installed():
        return ["the library was installed from somewhere else than the repository's address"]
    before = colab.torch()
    print(f"== {notebook.name}, alone, as in Colab")
    if not colab.run(notebook):
        return [f"{notebook.name} does not run in Colab; the cell and its error stand above"]
    if not colab.installed():
        return ["the notebook ran without installing the library: is its hidden cell still there?"]
    return [] if colab.torch() == before else [f"installing the library replaced torch {before} by {colab.torch()}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", type=Path)
    notebook = parser.parse_args().notebook.resolve()
    root = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        wrong = check(Colab(Path(folder), root, repo_url.current(root)), notebook)
    print("\n".join(wrong) or "== as in Colab: the notebook installed the library, and ran")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
