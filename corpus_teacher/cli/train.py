"""`corpus-teacher train`: a training, as a TOML file describes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from corpus_teacher.cli.options import INTERRUPTED, AsJson, State, print_json

if TYPE_CHECKING:
    from corpus_teacher.training import TrainingResult
    from corpus_teacher.training.assemble import Plan
    from corpus_teacher.training.settings import RunSettings


def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", show_default=False, help="The training; see docs/training.md.")
    ],
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="DIR", help="In place of the file's out.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="In place of the file's seed.", show_default=False)] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="TABLE.KEY=VALUE",
            help="In place of a setting of the file, such as training.max_steps=100; may be given often.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest whole checkpoint, or from the beginning.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Look whether all is there and fits, and print the whole file as TOML.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a student on labels, on what a corpus says, and on what models say."""
    from corpus_teacher.cli.console import progress
    from corpus_teacher.errors import TrainingInterrupted
    from corpus_teacher.training.assemble import open_training
    from corpus_teacher.training.command import run_opened
    from corpus_teacher.training.run import is_main_process
    from corpus_teacher.training.settings import merged, read_run

    said = {name: value for name, value in (("out", out), ("seed", seed)) if value is not None}
    settings = read_run(config, merged(_tables(changes or ()), said))
    with open_training(settings) as opened:
        if check:
            plan = opened.plan()
            resolved = settings.resolved(plan.windows)
            if as_json:
                print_json({**resolved, "plan": plan})
            else:
                typer.echo(_checked(resolved, plan), nl=False)
            return
        try:
            with progress() as bars:
                steps, tokens = opened.plan_steps(), settings.tokens_a_step()
                result = run_opened(
                    opened,
                    resume=resume,
                    reading=bars,
                    progress=lambda step, _: bars("train the student", step, steps, step * tokens),
                    notices=lambda notice: None if State.quiet else typer.echo(f"note: {notice}", err=True),
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
        _show_result(result, settings)


def _tables(changes: Iterable[str]) -> dict[str, Any]:
    """The tables of ``table.key=value``; a value that isn't TOML is a text."""
    from corpus_teacher.errors import ConfigError
    from corpus_teacher.files import tomllib

    made: dict[str, Any] = {}
    for change in changes:
        name, sign, text = change.partition("=")
        if not sign or not all(name.strip().split(".")):
            raise ConfigError(f"{change!r} sets nothing: write TABLE.KEY=VALUE, such as training.max_steps=100")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except (tomllib.TOMLDecodeError, RecursionError):
            value = text.strip()
        *tables, key = name.strip().split(".")
        place = made
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{change!r} and another change set one name: leave one of them out")
        place[key] = value
    return made


def _checked(resolved: Mapping[str, Any], plan: Plan) -> str:
    """A checked training as a TOML file that runs, headed by what it will be."""
    from corpus_teacher.cli.console import duration
    from corpus_teacher.settings import to_toml

    of_table = f", {plan.table_parameters:,} of them the table of n-grams" if plan.table_parameters else ""
    lines = [f"# student: {plan.parameters:,} parameters{of_table}"]
    if plan.windows is not None:
        lines.append(f"# text: {plan.windows:,} windows of {resolved['data']['length']:,} tokens")
    if plan.steps is not None and plan.tokens is not None:
        lines.append(f"# training: {plan.steps:,} steps, {plan.tokens:,} tokens")
    if plan.seconds is not None:
        lines.append(f"# time: about {duration(plan.seconds)} on this machine, without teachers and evaluations")
    every = resolved["training"].get("eval_steps")
    if every and resolved["training"].get("eval_strategy") == "steps":
        bound = resolved["data"].get("held_out_tokens")
        read = (
            "all of the held-out text (set data.held_out_tokens to read less)" if bound is None else f"{bound:,} tokens"
        )
        lines.append(f"# evaluation: every {every:,} steps, on {read}")
    return "\n".join([*lines, "", to_toml(resolved)])


def _show_result(result: TrainingResult, settings: RunSettings) -> None:
    """The learning curve, and where all lies."""
    from rich.table import Table

    from corpus_teacher.cli.console import console

    screen = console()
    table = Table(title=f"{result.steps:,} steps, {result.tokens:,} tokens, {result.tokens_per_s:,.0f} tokens/s")
    known = result.bits_per_byte is not None
    for column in ("step", "tokens", "held-out nats/token", *(["bits/byte"] if known else [])):
        table.add_column(column, justify="right")
    for point in result.history:
        bits = [f"{point['bits_per_byte']:.4f}"] if known else []
        table.add_row(f"{point['step']:,}", f"{point['tokens']:,}", f"{point['held_out_nats']:.4f}", *bits)
    screen.print(table)
    if result.logs:
        last = result.logs[-1]
        shares = {name.removeprefix("share_"): value for name, value in last.items() if name.startswith("share_")}
        if shares:
            told = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
            screen.print(f"taught by, of all positions since the log before: {told}")
    if result.teacher_share:
        screen.print(f"the teachers took {result.teacher_share:.1%} of the time of the steps")
    screen.print(f"wrote {settings.out}")
