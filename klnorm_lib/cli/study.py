"""``klnorm study``: carry out a grid of runs, list it, or do some of its committed runs again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from klnorm_lib.cli import completion, output
from klnorm_lib.cli.application import app

if TYPE_CHECKING:
    from klnorm_lib.sweep.design import Grid
    from klnorm_lib.sweep.execution import Options, Summary
    from klnorm_lib.sweep.remake import Remade


@app.command()
def study(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A packaged study, or a YAML file of your own.", autocompletion=completion.study
        ),
    ],
    part: Annotated[
        list[str] | None, typer.Option(help="Only this part; repeatable. The parts done by default if not given.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local, dask or ray.")] = "local",
    jobs: Annotated[int, typer.Option(help="Runs at a time; on a GPU they share it.")] = 1,
    threads: Annotated[int, typer.Option(help="Torch threads of each run; part of a run's identity.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of a Dask scheduler or Ray cluster that runs already.")
    ] = None,
    records: Annotated[
        Path | None, typer.Option(help="Records file to go on with.", show_default="records/NAME.jsonl")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what is recorded as failed.")] = False,
    notebook: Annotated[
        bool, typer.Option("--notebook", help="Each run in a notebook, kept executed beside the records.")
    ] = False,
    dry: Annotated[bool, typer.Option("--dry", help="List the runs and stop.")] = False,
    remake: Annotated[
        str | None,
        typer.Option(metavar="TASK/SIZE/ENCODER/ARM", help="Do the committed runs of an arm in a setting again."),
    ] = None,
    replicates: Annotated[
        int | None, typer.Option(min=1, help="With --remake: only the first so many replicates (pairs of seeds).")
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Carry out a grid of runs; the same command goes on where it was interrupted."""
    from klnorm_lib.sweep import engines, grid

    chosen = grid.load(name)
    chosen.chosen_parts(part)
    engines.check(engine, jobs, threads, scheduler)
    from klnorm_lib.sweep.execution import Options, sweep  # takes seconds: torch

    path = Path("records") / f"{chosen.name}.jsonl" if records is None else records
    if dry:
        rows = plan(chosen, path, part)
        if as_json:
            output.print_json(rows)
        else:
            typer.echo("\n".join(f"{'# recorded: ' * row['recorded']}{row['command']}" for row in rows))
        return
    notebooks = path.with_suffix(".notebooks") if notebook else None
    if remake is not None:
        remade = again(name, remake, replicates, Options(engine, jobs, threads, scheduler, retry, notebooks), part)
        if as_json:
            output.print_json(remade_dict(remade))
        else:
            show_remade(remade)
        raise typer.Exit(not remade.holds)
    summary = sweep(
        chosen, path, engine, jobs, part, threads=threads, scheduler=scheduler, retry=retry, notebooks=notebooks
    )
    if as_json:
        output.print_json(summary_dict(summary))
    else:
        output.note("\n".join(summary_lines(summary)))
    raise typer.Exit(not summary.complete)


def again(name: str, result: str, replicates: int | None, options: Options, parts: list[str] | None = None) -> Remade:
    """The committed runs of an arm in a setting (TASK/SIZE/ENCODER/ARM), done again and compared."""
    from klnorm_lib.study.errors import StudyError
    from klnorm_lib.sweep.remake import ResultName, remake

    if parts is not None and len(parts) > 1:
        raise StudyError(f"--remake is about one part; give --part once, not {', '.join(parts)}")
    return remake(name, ResultName.parse(result), replicates, options, parts[0] if parts else None)[0]


def plan(grid: Grid, records: Path, parts: list[str] | None) -> list[dict[str, Any]]:
    """Every run of a study: stage, arm, whether it seems recorded (by its name alone), and its command.

    Final runs of which the trial is not chosen yet have no command.
    """
    from klnorm_lib.study.errors import StudyError
    from klnorm_lib.sweep.index import RecordIndex

    index = RecordIndex(records)
    items = grid.tuning(parts)
    with suppress(StudyError):  # the tuning runs come first
        items = items + grid.final(index.records, parts)
    return [
        {
            "stage": item.study["stage"],
            "part": item.study["part"],
            "arm": item.study["arm"],
            "recorded": "finished" in index.lookup(item.run).values(),
            "command": item.run.command(records=str(records)),
        }
        for item in items
    ]


def summary_lines(summary: Summary) -> list[str]:
    """What came of a study, in words, and every failure with its command."""
    from klnorm_lib.sweep.progress import spell

    lines = [
        f"{summary.planned} runs: {summary.made} made in {spell(summary.seconds)}, {summary.found} recorded before, "
        f"{len(summary.failures)} failed; records in {summary.records}"
    ]
    lines += [f"failed: {failure}" for failure in summary.failures]
    return lines + [f"left out: {what}" for what in summary.left_out]


def summary_dict(summary: Summary) -> dict[str, Any]:
    """The same for ``--json``."""
    failures = [{"command": f.run.command(), "message": f.message} for f in summary.failures]
    return {
        "runs": summary.planned,
        "made": summary.made,
        "recorded_before": summary.found,
        "failures": failures,
        "left_out": summary.left_out,
        "seconds": round(summary.seconds, 3),
        "records": str(summary.records),
    }


def show_remade(remade: Remade) -> None:
    """Committed and remade scores side by side, and the verdict."""
    table = output.table("replicate", f"{remade.metric} committed", "remade")
    for seeds, *scores in zip(remade.replicates, remade.committed, remade.remade, strict=True):
        table.add_row("/".join(map(str, seeds)), *("–" if s is None else f"{s:.4f}" for s in scores))
    output.show(table)
    output.note(verdict(remade))


def remade_dict(remade: Remade) -> dict[str, Any]:
    """What was remade, for ``--json``."""
    return {
        "result": str(remade.result),
        "metric": remade.metric,
        "replicates": [list(seeds) for seeds in remade.replicates],
        "committed": list(remade.committed),
        "remade": list(remade.remade),
        "difference": remade.difference,
        "tolerance": remade.tolerance,
        "same_machine": remade.same,
        "other": list(remade.other),
        "holds": remade.holds,
    }


def verdict(remade: Remade) -> str:
    """Whether the committed numbers hold, in a sentence."""
    if remade.same:
        change = "the machine, its threads and the versions are those of the records: the numbers must be equal"
        found = "they are" if remade.holds else f"they differ by {remade.difference:.4g}"
    else:
        change = f"not as it was: {', '.join(remade.other)}; the means may differ by {remade.tolerance:.4f}"
        found = f"they differ by {remade.difference:.4f}: {'within the tolerance' if remade.holds else 'too much'}"
    return f"{remade.result}: {change}, and {found}"
