"""`corpus-teacher demo`: the whole idea in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from corpus_teacher.cli.options import AsJson, print_json


def demo(
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="Where the index, the students and report.html go."),
    ] = Path("corpus-teacher-demo"),
    seconds: Annotated[
        float | None,
        typer.Option(min=1, help="Time to train in, of all students together.", show_default="under three minutes"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the data order and the students.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A much smaller run, to see that all works.")] = False,
    as_json: AsJson = False,
) -> None:
    """Teach three small students on Python's own standard library, and report who learnt best."""
    from corpus_teacher.cli.console import console
    from corpus_teacher.demo.run import run_demo

    result = run_demo(out, seconds=seconds, seed=seed, quick=quick, console=console(stderr=as_json))
    if as_json:
        print_json(result)
