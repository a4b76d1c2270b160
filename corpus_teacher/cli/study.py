"""`corpus-teacher study`: a study, as a TOML file describes it, and the report of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from corpus_teacher.cli.options import AsJson, print_json

INTERRUPTED = 130

study_app = typer.Typer(
    help="Studies: arms × sizes × budgets × paired seeds, run and reported.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


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
    from corpus_teacher.cli import console as display
    from corpus_teacher.cli.show_study import show_finished, show_rows
    from corpus_teacher.errors import ConfigError
    from corpus_teacher.study import read_study, run_study

    study = read_study(config, form)
    if check:
        print_json(study.describe())
        return
    if out is None:
        raise ConfigError("--out isn't given: name the folder of the study")
    if study.core_hours is not None:
        typer.echo(f"{study.name} ({study.form}): about {study.core_hours:g} core-hours on an idle machine", err=True)
    try:
        with display.progress() as bars:
            rows = run_study(
                study, out, jobs=jobs, share=_share(share), reuse=reuse or (), reading=bars, progress=show_finished
            )
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command goes on with what is missing", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json({"out": str(out), "rows": len(rows)})
    else:
        show_rows(study, rows, out)


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

    from corpus_teacher.cli import console as display
    from corpus_teacher.study import StepCost, read_study, step_costs

    def report(cost: StepCost) -> None:
        spread = f"{min(cost.cost_s_per_step):.4g} to {max(cost.cost_s_per_step):.4g}"
        typer.echo(f"{cost.arm}: {spread} s per step, {cost.ratio:.3f} times the baseline's", err=True)

    with display.progress() as bars:
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
        raise ConfigError(f"--share is {said!r}: give it as K/N, such as 1/3")
    return int(number), int(of)
