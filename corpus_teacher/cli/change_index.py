"""`corpus-teacher index append`, `remove`, `merge`, `convert`: an index that grows, shrinks, and changes its form."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from corpus_teacher.cli.index import Layout, index_app
from corpus_teacher.cli.options import AsJson, IndexPath, Overwrite, OwnTokenizer, print_json
from corpus_teacher.cli.source_options import (
    DocOffsets,
    Errors,
    FileFormat,
    Format,
    KeepField,
    NameField,
    OnErrors,
    RawTokens,
    RawType,
    Split,
    TextField,
    UnpackRatio,
    Workers,
)

if TYPE_CHECKING:
    from corpus_teacher.data.file_kinds import Kind
    from corpus_teacher.data.growing import IndexChange

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
    errors: Errors = OnErrors.fail,
    text_field: TextField = "text",
    unpack_ratio: UnpackRatio = 200,
    split: Split = None,
    name_field: NameField = None,
    keep_field: KeepField = None,
    file_format: Format = FileFormat.auto,
    dtype: RawTokens = RawType.auto,
    doc_offsets: DocOffsets = None,
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
            unpack_ratio=unpack_ratio,
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


@index_app.command("convert")
def index_convert(
    path: IndexPath,
    layout: Annotated[
        Layout,
        typer.Option(
            show_default=False,
            help="compact takes a third of the disk, and matches take two to four times as long.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", show_default="in its place", help="The folder of the new index."),
    ] = None,
    overwrite: Overwrite = False,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Write an index in another layout, without its source text; answers stay the same, their price changes."""
    from corpus_teacher.analysis.query import index_info
    from corpus_teacher.data.growing import convert_index

    info = index_info(convert_index(path, layout.value, out=out, force=overwrite, workers=workers))
    if as_json:
        print_json(info)
        return
    from corpus_teacher.cli.show_index import show_info

    show_info(info)


def _show(change: IndexChange, as_json: bool) -> None:
    if as_json:
        print_json(change)
        return
    from corpus_teacher.cli.show_index import show_change

    show_change(change)
