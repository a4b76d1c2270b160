"""`corpus-teacher index append`, `remove` and `merge`: an index that grows, shrinks, and gathers its shards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from corpus_teacher.cli.index import FileFormat, OnErrors, RawType, index_app
from corpus_teacher.cli.options import AsJson, IndexPath, OwnTokenizer, TextField, print_json

if TYPE_CHECKING:
    from corpus_teacher.data.file_kinds import Kind
    from corpus_teacher.data.growing import IndexChange

Workers = Annotated[
    int | None, typer.Option(min=1, help="Threads; the index is the same for any number.", show_default="all cores")
]
ShardTokens = Annotated[
    int | None,
    typer.Option(
        min=1, max=2**32 - 2, show_default="as many as the memory allows", help="Tokens of a new shard at most."
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", show_default="half of what is free", help="What the building may take, such as 4G."),
]


@index_app.command("append")
def index_append(
    path: IndexPath,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", show_default=False, help="Texts or ready tokens, as of `index build`."),
    ],
    errors: Annotated[
        OnErrors,
        typer.Option(help="A broken document: stop; put U+FFFD where bytes are no UTF-8; or leave the document out."),
    ] = OnErrors.fail,
    text_field: TextField = "text",
    split: Annotated[
        str | None, typer.Option(help="The split of a data set that has several.", show_default="train")
    ] = None,
    name_field: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", show_default="file and line", help="The key or column that names a document: an id, a url."
        ),
    ] = None,
    keep_field: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY", show_default="none", help="A key or column that is kept with each document; repeat it."
        ),
    ] = None,
    file_format: Annotated[
        FileFormat, typer.Option("--format", help="What a file holds whose suffix doesn't say it.")
    ] = FileFormat.auto,
    dtype: Annotated[
        RawType,
        typer.Option(
            "--token-dtype",
            help="The integers of a raw .bin file of tokens; auto looks.",
            rich_help_panel="Ready tokens",
        ),
    ] = RawType.auto,
    doc_offsets: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            rich_help_panel="Ready tokens",
            help="Where documents begin, counted in tokens: a .npy, or raw int64.",
        ),
    ] = None,
    tokenizer: OwnTokenizer = None,
    shard_tokens: ShardTokens = None,
    memory: Memory = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Add documents to an index as a shard; who has it open goes on with what was opened."""
    if workers is not None:  # before the tokenizer library starts its own threads
        os.environ.setdefault("RAYON_NUM_THREADS", str(workers))
    from corpus_teacher.cli.console import progress as shown
    from corpus_teacher.data.build import BuildOptions
    from corpus_teacher.data.growing import append_sources
    from corpus_teacher.data.memory import parse_bytes
    from corpus_teacher.data.readers import ReadOptions

    options = BuildOptions(
        tokenizer=tokenizer,
        read=ReadOptions(
            errors=errors.value,
            text_field=text_field,
            split=split,
            name_field=name_field,
            keep_fields=tuple(keep_field or ()),
        ),
        kind=None if file_format is FileFormat.auto else cast("Kind", file_format.value),
        dtype=dtype.value,
        doc_offsets=doc_offsets,
        workers=workers,
        shard_tokens=shard_tokens,
        memory=None if memory is None else parse_bytes(memory),
    )
    with shown() as progress:
        change = append_sources(sources, path, options, progress=progress)
    _show(change, as_json)


@index_app.command("remove")
def index_remove(
    path: IndexPath,
    document: Annotated[
        list[str],
        typer.Option(
            "--document",
            "-d",
            metavar="N|NAME|FILE",
            show_default=False,
            help="A document by its number or name, or a file with one on each line; repeat it.",
        ),
    ],
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Take documents out of every answer, as if they had never been in the index; its history says which and when."""
    from corpus_teacher.cli.console import progress as shown
    from corpus_teacher.data.growing import remove_from_index

    with shown() as progress:
        change = remove_from_index(path, document, workers=workers, progress=progress)
    _show(change, as_json)


@index_app.command("merge")
def index_merge(
    path: IndexPath,
    shard_tokens: ShardTokens = None,
    memory: Memory = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Make fewer, larger shards: questions take less time."""
    from corpus_teacher.cli.console import progress as shown
    from corpus_teacher.data.build import BuildOptions
    from corpus_teacher.data.growing import merge_index
    from corpus_teacher.data.memory import parse_bytes

    options = BuildOptions(
        workers=workers, shard_tokens=shard_tokens, memory=None if memory is None else parse_bytes(memory)
    )
    with shown() as progress:
        change = merge_index(path, options, progress=progress)
    _show(change, as_json)


def _show(change: IndexChange, as_json: bool) -> None:
    if as_json:
        print_json(change)
        return
    from corpus_teacher.cli.show_index import show_change

    show_change(change)
