"""`corpus-teacher index`: build an index of a corpus, look into it, check it."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from corpus_teacher.cli.options import (
    App,
    AsJson,
    IndexPath,
    OutPage,
    Overwrite,
    OwnTokenizer,
    check_page,
    estimator_option,
    max_order_option,
    numbers_of,
    order_of,
    print_json,
    write_page,
)
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

index_app = App(help="Build an index of a corpus, look into it, check it.")


class Layout(enum.Enum):
    """What an index stores."""

    full = "full"
    compact = "compact"


class Specials(enum.Enum):
    """What the name of a special token in a text is."""

    text = "text"
    ids = "ids"


@index_app.command("build")
def index_build(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            show_default=False,
            help="Text files (one document each), .jsonl, .parquet, also packed as .gz or .zst; folders "
            "or globs of those; a folder that `datasets` saved; hf:NAME[:CONFIG[:SPLIT]]; shards of MDS, litdata "
            "or WebDataset; rows of token ids in any of these; ready tokens: .npy, raw .bin, Megatron's .bin + .idx, "
            "datatrove's .ds, or a folder of such.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", show_default=False, help="The folder of the new index."),
    ],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            "-t",
            metavar="T",
            show_default=False,
            help="train:VOCAB (a byte-level BPE trained on the sources), bytes, a tokenizer.json, a folder "
            "that holds one, or a name on the model hub. Ready tokens need none.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    errors: Errors = OnErrors.fail,
    text_field: TextField = "text",
    unpack_ratio: UnpackRatio = 200,
    split: Split = None,
    name_field: NameField = None,
    keep_field: KeepField = None,
    file_format: Format = FileFormat.auto,
    end_of_document: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            show_default="what the tokenizer says",
            help="The token that ends a document, as an id or by its name: appended to text, split at in ready tokens.",
        ),
    ] = None,
    special_tokens: Annotated[
        Specials | None,
        typer.Option(
            show_default="text; ids with --chat",
            help="What the name of a special token in a text is, such as <|im_start|>: letters, or the token.",
        ),
    ] = None,
    chat: Annotated[
        bool,
        typer.Option("--chat", help='Make text of {"messages": …} with the tokenizer\'s chat template.'),
    ] = False,
    dtype: RawTokens = RawType.auto,
    doc_offsets: DocOffsets = None,
    vocab_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=2**31,
            rich_help_panel="Ready tokens",
            show_default="the largest id + 1",
            help="The vocabulary of tokens without a tokenizer.",
        ),
    ] = None,
    workers: Workers = None,
    shard_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=2**32 - 2,
            rich_help_panel="A corpus larger than memory",
            show_default="as many as the memory allows",
            help="Tokens of a shard at most: a larger corpus is cut at document boundaries.",
        ),
    ] = None,
    layout: Annotated[
        Layout,
        typer.Option(
            help="What is stored: compact takes a third of the disk, and matches take two to four times as long."
        ),
    ] = Layout.full,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            rich_help_panel="A corpus larger than memory",
            show_default="half of what is free",
            help="What the building may take, such as 4G: shards are as large as that allows.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            rich_help_panel="A corpus larger than memory",
            show_default="this process alone",
            help="Read, tokenise and build as tasks of a Ray cluster: local, auto, or its head's HOST:PORT.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build an index: read, tokenise, sort; written beside DIR and renamed when it is whole."""
    if workers is not None:  # before the tokenizer library starts its own threads
        os.environ.setdefault("RAYON_NUM_THREADS", str(workers))
    from corpus_teacher.cli.console import progress as shown
    from corpus_teacher.cli.show_index import show_summary
    from corpus_teacher.data.build import BuildOptions, build_index_from_sources
    from corpus_teacher.data.memory import parse_bytes
    from corpus_teacher.data.readers import ReadOptions

    options = BuildOptions(
        tokenizer=tokenizer,
        end_of_document=end_of_document,
        vocab_size=vocab_size,
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
        special_tokens=None if special_tokens is None else special_tokens.value,
        chat=chat,
        doc_offsets=doc_offsets,
        force=overwrite,
        workers=workers,
        shard_tokens=shard_tokens,
        memory=None if memory is None else parse_bytes(memory),
        layout=layout.value,
    )
    with shown() as progress:
        if ray is None:
            summary = build_index_from_sources(sources, out, options, progress=progress)
        else:
            from corpus_teacher.distributed import build_index_on_ray

            summary = build_index_on_ray(sources, out, options, address=ray, progress=progress)
    if as_json:
        print_json(summary.as_dict())
    else:
        show_summary(summary)


@index_app.command("info")
def index_info(path: IndexPath, as_json: AsJson = False) -> None:
    """What an index is: its corpus, its tokenizer, its size on disk."""
    from corpus_teacher.analysis import query as lookup
    from corpus_teacher.cli.show_index import show_info

    info = lookup.index_info(path)
    if as_json:
        print_json(info)
    else:
        show_info(info)


@index_app.command("verify")
def index_verify(
    path: IndexPath,
    full: Annotated[bool, typer.Option("--full", help="Check every invariant at every token, not a sample.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check an index: the checksums of all files, and a sample of what must hold."""
    from corpus_teacher.analysis import query as lookup
    from corpus_teacher.cli.show_index import show_checks

    passed = lookup.index_verify(path, full=full)
    if as_json:
        print_json({"path": str(path), "full": full, "passed": passed})
    else:
        show_checks(path, passed, full=full)


@index_app.command("query")
def index_query(
    path: IndexPath,
    text: Annotated[
        str,
        typer.Argument(metavar="TEXT", help="The context; what follows its end is asked.", show_default=False),
    ],
    max_order: Annotated[str, max_order_option()] = "none",
    min_count: Annotated[
        int, typer.Option(min=1, help="How often a context must be followed by a token to count.")
    ] = 1,
    top: Annotated[int, typer.Option(min=1, help="How many continuations to show.")] = 10,
    snippets: Annotated[int, typer.Option(min=0, help="How many places in the corpus to show.")] = 5,
    estimator: Annotated[
        str | None,
        estimator_option("Show this estimator's distribution, and what each order adds to it", show_default=False),
    ] = None,
    tokenizer: OwnTokenizer = None,
    ids: Annotated[bool, typer.Option("--ids", help="TEXT is token ids, separated by spaces or commas.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask the corpus: what follows a text, order by order, and where the text stands."""
    from corpus_teacher.analysis import query as lookup
    from corpus_teacher.cli.console import progress as shown
    from corpus_teacher.cli.show_index import show_answer, show_explained

    with shown() as progress:
        answer = lookup.index_query(
            path,
            text,
            tokenizer=tokenizer,
            ids=ids,
            max_order=order_of(max_order),
            min_count=min_count,
            top=top,
            snippets=snippets,
            estimator=estimator,
            progress=progress,
        )
    if as_json:
        print_json(answer)
    else:
        show_answer(answer)
        if answer.explained is not None:
            show_explained(answer.explained)


@index_app.command("near-duplicates")
def near_duplicates(
    path: IndexPath,
    lengths: Annotated[
        str, typer.Option(metavar="N,N,…", help="Lengths of matches to count, in tokens, 1 to 255.")
    ] = "16,32,64,128",
    top: Annotated[int, typer.Option(min=0, help="How many documents and pairs to name.")] = 10,
    top_length: Annotated[int, typer.Option(min=1, max=255, help="The length that they are judged by.")] = 64,
    out: OutPage = None,
    as_json: AsJson = False,
) -> None:
    """How much of the corpus stands in several of its documents: what a teacher of it only copies."""
    from corpus_teacher.analysis.duplicates import index_repeats
    from corpus_teacher.cli.show_index import show_repeats

    check_page(out)
    answer = index_repeats(path, numbers_of(lengths, "lengths"), top=top, top_length=top_length)
    if out is not None:
        from corpus_teacher.pages.duplicates import render_duplicates_report

        write_page(lambda: render_duplicates_report(answer), out)
    if as_json:
        print_json(answer)
    else:
        show_repeats(answer)
        if out is not None:
            typer.echo(f"\nwrote {out}")


@index_app.command("contamination")
def contamination(
    path: IndexPath,
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            metavar="BENCH",
            show_default=False,
            help="Benchmarks: .jsonl (also packed) or .parquet, folders or globs of them; may be repeated.",
        ),
    ],
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            metavar="KEY",
            show_default="all texts",
            help="A field that counts, a text of its own; repeat it.",
        ),
    ] = None,
    name_field: Annotated[
        str | None,
        typer.Option(metavar="KEY", show_default="file and line", help="The field that names an item."),
    ] = None,
    ngrams: Annotated[str, typer.Option(metavar="N,N,…", help="Lengths of n-grams, in tokens.")] = "8,13",
    documents: Annotated[int, typer.Option(min=0, help="How many documents to name for an item.")] = 3,
    tokenizer: OwnTokenizer = None,
    unpack_ratio: UnpackRatio = 200,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", show_default=False, help="Write a line for each item.")
    ] = None,
    out: OutPage = None,
    as_json: AsJson = False,
) -> None:
    """How much of a benchmark stands in the corpus: longest matches, n-grams found, verdicts as others give them."""
    from corpus_teacher.analysis.contamination import index_contamination, write_csv
    from corpus_teacher.cli.console import progress as shown
    from corpus_teacher.cli.show_trace import show_contamination

    check_page(out)
    check_page(csv)
    with shown() as progress:
        answer = index_contamination(
            path,
            data,
            fields=fields or (),
            name_field=name_field,
            ngrams=numbers_of(ngrams, "ngrams"),
            documents=documents,
            tokenizer=tokenizer,
            unpack_ratio=unpack_ratio,
            progress=progress,
        )
    if csv is not None:
        write_page(lambda: write_csv(answer), csv)
    if out is not None:
        from corpus_teacher.pages.contamination import render_contamination

        write_page(lambda: render_contamination(answer), out)
    if as_json:
        print_json(answer)
    else:
        show_contamination(answer)
        for file in (csv, out):
            if file is not None:
                typer.echo(f"wrote {file}")
