"""`corpus-teacher train`: a training, as a TOML file describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from corpus_teacher.cli.options import AsJson, print_json

INTERRUPTED = 130


def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", show_default=False, help="The training; see docs/training.md.")
    ],
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="DIR", help="In place of the file's out.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="In place of the file's seed.", show_default=False)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Check the file, and print it with all defaults.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a student on labels, on what a corpus says, and on what models say."""
    from corpus_teacher.cli import console as display
    from corpus_teacher.cli import show_training as display_training
    from corpus_teacher.errors import TrainingInterrupted
    from corpus_teacher.training.assemble import is_main_process, run_training
    from corpus_teacher.training.check import check_places
    from corpus_teacher.training.settings import read_run

    changes = {name: value for name, value in (("out", out), ("seed", seed)) if value is not None}
    settings = read_run(config, changes)
    if check:
        check_places(settings)
        print_json(settings.to_dict())
        return
    try:
        with display.progress() as bars:
            steps, tokens = settings.training["max_steps"], settings.tokens_a_step()
            result = run_training(
                settings,
                resume=resume,
                reading=bars,
                progress=lambda step, _: bars("train the student", step, steps, step * tokens),
            )
    except TrainingInterrupted as stopped:
        typer.echo(
            f"interrupted after step {stopped.step}: {stopped.checkpoint} is saved, "
            "the same command with --resume goes on from it",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    if not is_main_process():
        return
    if as_json:
        print_json(result)
    else:
        display_training.show_result(result, settings)
