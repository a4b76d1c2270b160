"""`corpus-teacher warm-up`: the index's kernels compiled ahead."""

from __future__ import annotations

from typing import Annotated

import typer

from corpus_teacher.cli.options import AsJson, print_json


def warm_up(
    narrow: Annotated[
        bool,
        typer.Option("--narrow", help="Only for vocabularies of at most 65,536 tokens: half of the time."),
    ] = False,
    compact: Annotated[
        bool, typer.Option("--compact", help="Also for compact indexes, which have kernels of their own.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes; default: all processors.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compile ahead what the first commands would otherwise wait for.

    The engine is compiled for the machine that it runs on, each part at its first use, and then kept. This does all of
    it at once: some minutes of one processor for each width of tokens; some seconds where it was done before.
    """
    from corpus_teacher.analysis.kernels import warm_up as compile_all

    done = compile_all(workers=workers, wide=not narrow, compact=compact)
    if as_json:
        print_json(done._asdict())
        return
    there = f", {done.cached} were there" if done.cached else ""
    typer.echo(f"compiled {done.compiled} kernels in {done.seconds:.1f} s{there}; they are kept in {done.folder}")
