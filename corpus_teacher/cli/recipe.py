"""`corpus-teacher recipe`: the example trainings, and what they read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from corpus_teacher.cli.options import AsJson, print_json


def recipe(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", show_default=False, help="One of the example trainings; none lists them."),
    ] = None,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare", help="Make the index, the texts and the model that it names, where they are missing."
        ),
    ] = False,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where they go, and the TOML file beside them.")
    ] = Path("."),
    as_json: AsJson = False,
) -> None:
    """Print an example training as TOML, or make all that it reads: a minute or two of Python's standard library."""
    from corpus_teacher.demo.recipe import RECIPES, prepare_recipe, recipe_text

    if name is None:
        if as_json:
            print_json(list(RECIPES))
        else:
            typer.echo("\n".join(RECIPES))
        return
    if not prepare:
        typer.echo(recipe_text(name), nl=False)
        return
    made = prepare_recipe(name, out, report=lambda sentence: typer.echo(sentence, err=True))
    if as_json:
        print_json({"made": [str(path) for path in made], "config": str(out / f"{name}.toml")})
    else:
        where = "" if out == Path(".") else f"cd {out} && "
        typer.echo(f"ready: {where}corpus-teacher train {name}.toml")
