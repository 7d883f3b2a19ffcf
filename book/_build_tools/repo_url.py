"""The repository's address: every place that holds it, and one command that changes it in all of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

# What a GitHub repository is called, on its own page and on the one that its Pages site gets.
REPOSITORY = re.compile(r"https://github\.com/([A-Za-z0-9][A-Za-z0-9-]*)/([A-Za-z0-9._-]+)")


def current(root: Path) -> str:
    """The address in ``_config.yml``, which all other places follow."""
    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"].rstrip("/")


def pages_url(url: str) -> str:
    """Where GitHub publishes the pages of the repository ``url``."""
    organisation, name = split(url)
    return f"https://{organisation.lower()}.github.io/{name}"


def split(url: str) -> tuple[str, str]:
    match = REPOSITORY.fullmatch(url.rstrip("/").removesuffix(".git"))
    if match is None:
        raise ValueError(f"{url!r} is not of the form https://github.com/ORG/REPO")
    return match[1], match[2]


def files(root: Path) -> list[Path]:
    """Every text file of the repository that may hold the address."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=root, capture_output=True, text=True
    )
    if listed.returncode:
        raise RuntimeError(f"git ls-files failed in {root}: {listed.stderr.strip()}; run this inside the repository")
    suffixes = {".toml", ".yml", ".yaml", ".md", ".cff", ".ipynb", ".py", ".txt", ""}
    paths = [root / name for name in listed.stdout.splitlines()]
    return [p for p in paths if p.suffix in suffixes and p.is_file() and p.stat().st_size < 2**20]


def places(root: Path, url: str) -> dict[Path, int]:
    """How often each file names the repository ``url`` or its published pages."""
    found = {}
    for path in files(root):
        text = path.read_text(encoding="utf-8", errors="ignore")
        if count := sum(len(_exactly(u).findall(text)) for u in (url, pages_url(url))):
            found[path] = count
    return found


def change(root: Path, new: str) -> dict[Path, int]:
    """Write the address ``new`` wherever the current one stands; return how often in each file."""
    split(new)
    old, new = current(root), new.rstrip("/").removesuffix(".git")
    found = places(root, old)
    for path in found:
        text = path.read_text(encoding="utf-8")
        for before, after in ((old, new), (pages_url(old), pages_url(new))):
            text = _exactly(before).sub(after, text)
        path.write_text(text, encoding="utf-8")
    return found


def _exactly(url: str) -> re.Pattern[str]:
    return re.compile(re.escape(url) + r"(?![\w-])(?!\.[A-Za-z0-9])")


def main() -> int:
    try:
        changed = change(Path.cwd(), sys.argv[1])
    except (ValueError, RuntimeError) as error:
        print(f"repo-url: {error}", file=sys.stderr)
        return 1
    for path, count in changed.items():
        print(f"  {path.relative_to(Path.cwd())}: {count}")
    print(f"== {sum(changed.values())} places in {len(changed)} files now say {sys.argv[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
