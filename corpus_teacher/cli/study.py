"""`corpus-teacher study`: a study, as a TOML file describes it, and the report of one."""

from __future__ import annotations

import statistics
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from corpus_teacher.cli.options import App, AsJson, State, going_on, print_json

if TYPE_CHECKING:
    from corpus_teacher.study.running import StudyProgress
    from corpus_teacher.study.settings import Study

study_app = App(help="Studies: arms × sizes × budgets × paired seeds, run and reported.")


@study_app.command("run")
def study_run(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", show_default=False, help="The study; see docs/studies.md.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            show_default=False,
            help="The folder of the study; one that was begun is completed.",
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(metavar="NAME", show_default="standard", help="A form of the file: quick, standard, full."),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Trainings at a time; they share out the cores.")
    ] = 1,
    share: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            show_default=False,
            help="Only the K-th of N shares of the trainings, for one of N machines; `study join` joins them.",
        ),
    ] = None,
    reuse: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="Another study's folder, whose trainings that are the very same are taken. Repeat it."
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the file, and print it with all defaults.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run what is missing of a study: killed and started again, it goes on."""
    from corpus_teacher.cli.console import progress
    from corpus_teacher.errors import ConfigError
    from corpus_teacher.study import read_study, run_study

    study = read_study(config, form)
    if check:
        print_json(study.describe())
        return
    if out is None:
        raise ConfigError("`out` isn't given: name the folder of the study")
    if study.core_hours is not None and not State.quiet:
        typer.echo(f"{study.name} ({study.form}): about {study.core_hours:g} core-hours on an idle machine", err=True)
    with going_on("the same command goes on with what is missing"), progress() as bars:
        rows = run_study(
            study, out, jobs=jobs, share=_share(share), reuse=reuse or (), reading=bars, progress=_show_finished
        )
    if as_json:
        print_json({"out": str(out), "rows": len(rows)})
    else:
        _show_rows(study, rows, out)


@study_app.command("time")
def study_time(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", show_default=False, help="The study.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", show_default=False, help="The folder of the study.")
    ],
    form: Annotated[
        str | None,
        typer.Option(metavar="NAME", show_default="standard", help="A form of the file: quick, standard, full."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps to time at a time.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="How often each arm is timed, in turns with the baseline.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Time a step of each arm in turns with the baseline, with nothing else running: what "equal compute" rests on."""
    from dataclasses import asdict

    from corpus_teacher.cli.console import progress
    from corpus_teacher.study import StepCost, read_study, step_costs

    def report(cost: StepCost) -> None:
        spread = f"{min(cost.cost_s_per_step):.4g} to {max(cost.cost_s_per_step):.4g}"
        typer.echo(f"{cost.arm}: {spread} s per step, {cost.ratio:.3f} times the baseline's", err=True)

    with progress() as bars:
        costs = step_costs(read_study(config, form), out, steps=steps, rounds=rounds, reading=bars, report=report)
    if as_json:
        print_json([asdict(cost) | {"ratio": cost.ratio} for cost in costs])


@study_app.command("join")
def study_join(
    out: Annotated[Path, typer.Argument(metavar="OUT", show_default=False, help="The folder of the whole study.")],
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR…", show_default=False, help="Folders of `study run --share`.")
    ],
    as_json: AsJson = False,
) -> None:
    """Join the rows of the shares of a study that several machines ran."""
    from corpus_teacher.study import join_studies

    added = join_studies(out, folders)
    if as_json:
        print_json({"out": str(out), "added": added})
    else:
        typer.echo(f"added {added} rows to {out / 'rows.jsonl'}")


@study_app.command("report")
def study_report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", show_default=False, help="The folder of a study.")],
    as_json: AsJson = False,
) -> None:
    """Write report.html, findings.md and figures/ of a study, finished or not."""
    from corpus_teacher.study.report.write import write_study_report

    summary = write_study_report(folder)
    if as_json:
        print_json(summary)
        return
    for sentence in (
        summary.question,
        summary.answer,
        *summary.contrasts,
        *summary.missing,
        *summary.remarks,
        *summary.checks_failed,
    ):
        typer.echo(sentence)
    typer.echo(f"wrote {summary.page} and {summary.findings}")


def _share(said: str | None) -> tuple[int, int]:
    """K/N as numbers."""
    from corpus_teacher.errors import ConfigError

    if said is None:
        return 1, 1
    number, _, of = said.partition("/")
    if not (number.isdecimal() and of.isdecimal()):
        raise ConfigError(f"`share` is {said!r}: give it as K/N, such as 1/3")
    return int(number), int(of)


def _show_finished(told: StudyProgress) -> None:
    """A line on stderr for a training that is finished, with the time that is left."""
    from rich.console import Console

    row = told.row
    domain, metrics = next(iter(row["metrics"].items()))
    place = " · ".join((row["arm"], row["size"], row["budget"]))
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"{told.done}/{told.total} {row['role']} {place}, seed {row['seed']}, rate {row['learning_rate']:g}: "
        f"{metrics['nats']:.4f} nats ({domain}), {row['seconds']:.0f} s; "
        f"about {timedelta(seconds=round(told.left_s))} left"
    )


def _show_rows(study: Study, rows: list[dict[str, Any]], out: Path) -> None:
    """The primary metric of every arm, without judging it: that is the report's."""
    from rich.console import Console
    from rich.table import Table

    domain, metric = study.primary.split(".")
    table = Table(title=f"{study.name} ({study.form}): {study.primary}, mean of the seeds")
    for column in ("arm", "size", "budget", "seeds", "rate", study.primary):
        table.add_column(column, justify="left" if column in ("arm", "size", "budget") else "right")
    for cell in study.cells():
        found = [row for row in rows if (row["arm"], row["size"], row["budget"]) == cell and row["role"] == "run"]
        values = [row["metrics"][domain][metric] for row in found if row["metrics"][domain][metric] is not None]
        mean = f"{statistics.fmean(values):.4f}" if values else "diverged"
        edge = "*" if found and found[0]["at_end_of_grid"] else ""
        table.add_row(*cell, str(len(found)), f"{found[0]['learning_rate']:g}{edge}" if found else "–", mean)
    console = Console(soft_wrap=True)
    console.print(table)
    if any(row["at_end_of_grid"] for row in rows if row["role"] == "run"):
        console.print("* the best rate lies at an end of the grid: a wider one may change the answer")
    console.print(f"rows: {out / 'rows.jsonl'}; corpus-teacher study report {out} makes the page of them")
