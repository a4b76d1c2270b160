"""`corpus-teacher trace`: what of a text stands verbatim in the corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from corpus_teacher.cli.options import (
    AsJson,
    IndexPath,
    OutPage,
    OwnTokenizer,
    check_page,
    print_json,
    text_of,
    write_page,
)


def trace(
    path: IndexPath,
    text: Annotated[
        list[str] | None,
        typer.Option(help="The text, a model's output for example; repeat it for several.", show_default=False),
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            "--data",
            metavar="FILE",
            help="A file of text, - for stdin; repeat it for several.",
            show_default=False,
        ),
    ] = None,
    min_length: Annotated[int, typer.Option(min=1, help="Tokens of the shortest span that counts.")] = 6,
    max_count: Annotated[
        int | None, typer.Option(min=1, help="Leave out spans that occur more often.", show_default="no bound")
    ] = None,
    snippets: Annotated[int, typer.Option(min=0, help="How many places to show of each span.")] = 3,
    held_out: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Text that is not in the corpus, to compare the novelty with.",
            show_default="the corpus's own documents, each against the others",
        ),
    ] = None,
    tokenizer: OwnTokenizer = None,
    ids: Annotated[bool, typer.Option("--ids", help="The text is token ids, separated by spaces or commas.")] = False,
    out: OutPage = None,
    as_json: AsJson = False,
) -> None:
    """Find what of a text stands verbatim in the corpus: the spans, how often and where, and how novel the rest is."""
    from corpus_teacher.analysis.query import parse_ids
    from corpus_teacher.analysis.trace import trace as trace_text
    from corpus_teacher.cli.show_trace import show_trace
    from corpus_teacher.errors import ConfigError

    texts = [*(text or ()), *(text_of(one) for one in file or ())]
    if not texts:
        raise ConfigError("there is no text to trace: give `text` or `file`")
    check_page(out)
    answer = trace_text(
        path,
        [parse_ids(one) for one in texts] if ids else texts,
        min_length=min_length,
        max_count=max_count,
        snippets=snippets,
        held_out=[text_of(one) for one in held_out] if held_out else None,
        tokenizer=tokenizer,
    )
    if out is not None:
        from corpus_teacher.pages.trace import render_trace

        write_page(lambda: render_trace(answer), out)
    if as_json:
        print_json(answer)
    else:
        show_trace(answer)
        if out is not None:
            typer.echo(f"\nwrote {out}")
