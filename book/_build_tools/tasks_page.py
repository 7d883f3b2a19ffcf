"""The page that lists the tasks, written by the build from the registry."""

from __future__ import annotations

_HEADINGS = {
    "Real texts": lambda task: not task.built_in and task.kind != "audio",
    "Real speech and sound": lambda task: not task.built_in and task.kind == "audio",
    "Tasks that ship with the library": lambda task: task.built_in,
}
_COLUMNS = ("task", "what", "classes", "compared by", "on the hub", "out of domain", "licence")
_TABLE = f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|\n"
_KINDS = {"audio": "a recording", "pair": "two texts", "classification": "a text", "regression": "two texts, a score"}


def tasks_page() -> str:
    """Every task of the registry with its source, licence and caveats."""
    from klnorm_lib import tasks

    specs = [tasks.spec(name) for name in tasks.names()]
    parts = [
        "# Tasks\n\nThe rows of an experiment come from the Hugging Face hub, from a **mirror** (a folder for machines "
        "without a network, named by `KLNORM_MIRROR`; `klnorm mirror TASK... --to FOLDER` fills one) or from the "
        "library itself, and a record says which. `klnorm tasks` lists what can be had on your machine now. Recordings "
        "are decoded to one channel of float32 samples at 16 kHz and kept in a cache (`KLNORM_CACHE`); a file that is "
        "empty, silent, cut off, or not as its table says is an error that names it. A file of your own: `klnorm run "
        "--data FILE --text COLUMN --label COLUMN`, with `--audio COLUMN` for paths of sound files.\n"
    ]
    for heading, belongs in _HEADINGS.items():
        members = [task for task in specs if belongs(task)]
        caveats = [f"- `{task.name}`: {_cell(' '.join(task.caveats))}" for task in members if task.caveats]
        parts += [f"## {heading}\n", _TABLE + "\n".join(map(_row, members)) + "\n", "\n".join(caveats) + "\n"]
    return "\n".join(parts)


def _row(task) -> str:
    classes = "–" if task.label_names is None else str(task.num_labels)
    hub = "–" if task.hub[0] is None else f"`{task.hub[0]}`" + (f" ({task.hub[1]})" if task.hub[1] else "")
    ood = str(len(task.ood)) if task.ood else "–"
    cells = [f"`{task.name}`", _KINDS[task.kind], classes, task.metrics[0], hub, ood, _cell(task.licence)]
    return "| " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split()).replace("_", r"\_").replace("*", r"\*")
