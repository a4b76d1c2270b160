"""The options of commands that read a corpus."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer


class OnErrors(enum.Enum):
    """What to do with a broken document."""

    fail = "fail"
    replace = "replace"
    skip = "skip"


class RawType(enum.Enum):
    """The integers of a raw .bin file."""

    auto = "auto"
    uint16 = "uint16"
    uint32 = "uint32"


class FileFormat(enum.Enum):
    """What a file of an unknown suffix holds."""

    auto = "auto"
    text = "text"
    jsonl = "jsonl"
    parquet = "parquet"
    tokens = "tokens"


Errors = Annotated[
    OnErrors,
    typer.Option(help="A broken document: stop; put U+FFFD where bytes are no UTF-8; or leave the document out."),
]
TextField = Annotated[str, typer.Option(help="The key or column that holds the text.")]
UnpackRatio = Annotated[
    float,
    typer.Option(
        min=1,
        metavar="R",
        help="A packed file that gives more than 256 MiB and R times its size is refused; inf: none is.",
    ),
]
Split = Annotated[str | None, typer.Option(help="The split of a data set that has several.", show_default="train")]
NameField = Annotated[
    str | None,
    typer.Option(
        metavar="KEY", show_default="file and line", help="The key or column that names a document: an id, a url."
    ),
]
KeepField = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY", show_default="none", help="A key or column that is kept with each document; repeat it."
    ),
]
Format = Annotated[FileFormat, typer.Option("--format", help="What a file holds whose suffix doesn't say it.")]
RawTokens = Annotated[
    RawType,
    typer.Option(
        "--token-dtype",
        "--dtype",
        help="The integers of a raw .bin file of tokens; auto looks.",
        rich_help_panel="Ready tokens",
    ),
]
DocOffsets = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        show_default=False,
        rich_help_panel="Ready tokens",
        help="Where documents begin, counted in tokens: a .npy, or raw int64.",
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Threads; the index is the same for any number.", show_default="all cores")
]
