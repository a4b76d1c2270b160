"""`corpus-teacher teacher cache`: what a neural teacher says of a text, kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from corpus_teacher.cli.options import AsJson, print_json
from corpus_teacher.settings import CACHE_KINDS, PRECISIONS

INTERRUPTED = 130


def teacher_cache(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="A saved model, a name, a .gguf file, smollm2, or a cache of hidden states.",
        ),
    ],
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA…",
            show_default=False,
            help="The folder of an index, or text (files, folders, globs, hf:NAME), or ready tokens.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            show_default=False,
            help="The folder of the cache; one that was begun is completed.",
        ),
    ],
    keep: Annotated[str, typer.Option(metavar="KIND", help=f"One of {', '.join(CACHE_KINDS)}.")] = "top-k",
    k: Annotated[int, typer.Option(min=1, help="Tokens a position: of top-k; of top-p at most.")] = 64,
    p: Annotated[float, typer.Option(help="The mass that top-p holds.")] = 0.95,
    draws: Annotated[int, typer.Option(min=1, help="Random draws a position, of sample and systematic.")] = 50,
    precision: Annotated[str, typer.Option(help=f"Of stored numbers: {', '.join(PRECISIONS)}.")] = "fp16",
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    length: Annotated[int, typer.Option("--length", "-T", min=1, help="Tokens of a window, as in training.")] = 1024,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first tokens of the data.", show_default="all")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer", "-t", metavar="T", help="The teacher's, where none lies beside it.", show_default="its own"
        ),
    ] = None,
    text_field: Annotated[str, typer.Option(help="The key or column that holds the text.")] = "text",
    token_dtype: Annotated[str, typer.Option(help="The integers of a raw .bin file: uint16 or uint32.")] = "uint16",
    dtype: Annotated[
        str | None, typer.Option(help="Of the model: float32, bfloat16 or float16.", show_default="its own")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where it runs: cpu, cuda, …", show_default="cpu")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Windows that the model sees at once.")] = 8,
    shard_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of a file, about: what a run that is killed loses at most.")
    ] = 1 << 18,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew where there is a cache.")] = False,
    as_json: AsJson = False,
) -> None:
    """Keep what a language model says of the next token, for training without it."""
    from corpus_teacher.cli import console as display
    from corpus_teacher.cli import show_teacher as display_teacher
    from corpus_teacher.neural import TargetFormat, cache_teacher

    kept = TargetFormat(keep, k=k, p=p, draws=draws, precision=precision, seed=seed)
    try:
        with display.progress() as progress:
            summary = cache_teacher(
                model,
                data,
                out,
                kept=kept,
                length=length,
                limit=limit,
                tokenizer=tokenizer,
                text_field=text_field,
                token_dtype=token_dtype,
                dtype=dtype,
                device=device,
                rows=rows,
                shard_tokens=shard_tokens,
                overwrite=overwrite,
                progress=progress,
            )
    except KeyboardInterrupt:
        typer.echo(f"interrupted: the same command goes on with what {out} holds", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(summary)
    else:
        display_teacher.show_cache(summary)
