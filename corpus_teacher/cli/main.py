"""The command line: parse, one call, show.

Nothing heavy is imported here: `corpus-teacher --help` answers at once, and each command imports what it
needs. Whatever goes wrong on purpose ends as one sentence on stderr and exit code 2; CORPUS_TEACHER_DEBUG=1
shows the traceback.
"""

from __future__ import annotations

import enum
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperGroup

from corpus_teacher import __version__
from corpus_teacher.cli.cache import teacher_cache
from corpus_teacher.cli.options import AsJson, IndexPath, print_json
from corpus_teacher.cli.recipe import recipe
from corpus_teacher.cli.study import study_app
from corpus_teacher.cli.synthesize import synthesize
from corpus_teacher.cli.teacher import near_duplicates, sample, teacher_app
from corpus_teacher.cli.train import train
from corpus_teacher.cli.warm_up import warm_up

if TYPE_CHECKING:
    from corpus_teacher.data.file_kinds import Kind

_FAILED = 2
_INTERRUPTED = 130
_CHATTY = ("torchao", "torch.utils._pytree")
"""What transformers imports where it is installed, and what warns of that: nothing that a user could act on."""


class _Group(TyperGroup):
    """The root command: turns what was raised into one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; see the class."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted: nothing was left behind", err=True)
            raise typer.Exit(_INTERRUPTED) from None
        except Exception as error:
            sentence = _sentence(error)
            if sentence is None or os.environ.get("CORPUS_TEACHER_DEBUG") == "1":
                raise
            option = "--force" if ctx.invoked_subcommand == "index" else "--overwrite"
            sentence = sentence.replace("ask to overwrite it", f"ask to overwrite it ({option})")
            typer.echo(f"error: {sentence}", err=True)
            raise typer.Exit(_FAILED) from None


def _sentence(error: Exception) -> str | None:
    """What to tell the user about an error, or None for one that is a bug or typer's own."""
    from corpus_teacher.errors import CorpusIndexError

    if isinstance(error, BrokenPipeError):
        return None
    if isinstance(error, CorpusIndexError):
        # an error that is an OSError too may carry its sentence as the only argument
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}"
    if isinstance(error, MemoryError):
        return "out of memory: split the corpus into several indexes, or use a machine with more"
    return None


class OnErrors(enum.Enum):
    """What to do with a broken document."""

    fail = "fail"
    replace = "replace"
    skip = "skip"


class RawType(enum.Enum):
    """The integers of a raw .bin file."""

    uint16 = "uint16"
    uint32 = "uint32"


class FileFormat(enum.Enum):
    """What a file of an unknown suffix holds."""

    auto = "auto"
    text = "text"
    jsonl = "jsonl"
    parquet = "parquet"
    tokens = "tokens"


app = typer.Typer(
    cls=_Group,
    name="corpus-teacher",
    help="What the pre-training corpus itself says about the next token: index it, ask it, learn from it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
index_app = typer.Typer(
    help="Build an index of a corpus, look into it, check it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(index_app, name="index")

app.add_typer(teacher_app, name="teacher")
app.add_typer(study_app, name="study")
app.command("sample")(sample)
app.command("synthesize")(synthesize)
app.command("train")(train)
app.command("recipe")(recipe)
app.command("warm-up")(warm_up)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"corpus-teacher {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Nothing but `--version`: the commands do the work."""


@index_app.command("build")
def index_build(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            show_default=False,
            help="Text files (one document each), .jsonl, .parquet, also packed as .gz or .zst; folders "
            "or globs of those; a folder that `datasets` saved; hf:NAME[:CONFIG[:SPLIT]]; or ready "
            "tokens: .npy, raw .bin, Megatron's .bin + .idx.",
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
    force: Annotated[bool, typer.Option("--force", help="Replace an index that stands at DIR.")] = False,
    errors: Annotated[
        OnErrors,
        typer.Option(help="A broken document: stop; put U+FFFD where bytes are no UTF-8; or leave the document out."),
    ] = OnErrors.fail,
    text_field: Annotated[str, typer.Option(help="The key or column that holds the text.")] = "text",
    split: Annotated[
        str | None, typer.Option(help="The split of a data set that has several.", show_default="train")
    ] = None,
    file_format: Annotated[
        FileFormat, typer.Option("--format", help="What a file holds whose suffix doesn't say it.")
    ] = FileFormat.auto,
    end_of_document: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            show_default="what the tokenizer says",
            help="The token that ends a document, as an id or by its name: appended to text, split at in ready tokens.",
        ),
    ] = None,
    dtype: Annotated[
        RawType, typer.Option(help="The integers of a raw .bin file.", rich_help_panel="Ready tokens")
    ] = RawType.uint16,
    doc_offsets: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            rich_help_panel="Ready tokens",
            help="Where documents begin, counted in tokens: a .npy, or raw int64.",
        ),
    ] = None,
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
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Threads; the index is the same for any number.", show_default="all cores"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build an index: read, tokenise, sort; written beside DIR and renamed when it is whole."""
    if workers is not None:  # before the tokenizer library starts its own threads
        os.environ.setdefault("RAYON_NUM_THREADS", str(workers))
    from corpus_teacher.cli import console as display
    from corpus_teacher.data.build import BuildOptions, build_index_from_sources
    from corpus_teacher.data.readers import ReadOptions

    options = BuildOptions(
        tokenizer=tokenizer,
        end_of_document=end_of_document,
        vocab_size=vocab_size,
        read=ReadOptions(errors=errors.value, text_field=text_field, split=split),
        kind=None if file_format is FileFormat.auto else cast("Kind", file_format.value),
        dtype=dtype.value,
        doc_offsets=doc_offsets,
        force=force,
        workers=workers,
    )
    with display.progress() as progress:
        summary = build_index_from_sources(sources, out, options, progress=progress)
    if as_json:
        print_json(summary.as_dict())
    else:
        display.show_summary(summary)


@index_app.command("info")
def index_info(path: IndexPath, as_json: AsJson = False) -> None:
    """What an index is: its corpus, its tokenizer, its size on disk."""
    from corpus_teacher.analysis import query as lookup
    from corpus_teacher.cli import console as display

    info = lookup.index_info(path)
    if as_json:
        print_json(info)
    else:
        display.show_info(info)


@index_app.command("verify")
def index_verify(
    path: IndexPath,
    full: Annotated[bool, typer.Option("--full", help="Check every invariant at every token, not a sample.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check an index: the checksums of all files, and a sample of what must hold."""
    from corpus_teacher.analysis import query as lookup
    from corpus_teacher.cli import console as display

    passed = lookup.index_verify(path, full=full)
    if as_json:
        print_json({"path": str(path), "full": full, "passed": passed})
    else:
        display.show_checks(path, passed, full=full)


@index_app.command("query")
def index_query(
    path: IndexPath,
    text: Annotated[
        str,
        typer.Argument(metavar="TEXT", help="The context; what follows its end is asked.", show_default=False),
    ],
    max_order: Annotated[
        int | None, typer.Option(min=0, help="The longest context, in tokens.", show_default="no limit")
    ] = None,
    min_count: Annotated[
        int, typer.Option(min=1, help="How often a context must be followed by a token to count.")
    ] = 1,
    top: Annotated[int, typer.Option(min=1, help="How many continuations to show.")] = 10,
    snippets: Annotated[int, typer.Option(min=0, help="How many places in the corpus to show.")] = 5,
    estimator: Annotated[
        str | None,
        typer.Option(
            "--estimator",
            "-e",
            metavar="NAME|FILE",
            help="Show this estimator's distribution, and what each order adds to it.",
            show_default=False,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            "-t",
            metavar="T",
            help="Must be the index's own; for indexes of ready tokens.",
            show_default="the index's",
        ),
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="TEXT is token ids, separated by spaces or commas.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask the corpus: what follows a text, order by order, and where the text stands."""
    from corpus_teacher.analysis import query as lookup
    from corpus_teacher.cli import console as display
    from corpus_teacher.cli import show_explained as display_explained

    answer = lookup.index_query(
        path,
        text,
        tokenizer=tokenizer,
        ids=ids,
        max_order=max_order,
        min_count=min_count,
        top=top,
        snippets=snippets,
        estimator=estimator,
    )
    if as_json:
        print_json(answer)
    else:
        display.show_answer(answer)
        if answer.explained is not None:
            display_explained.show_explained(answer.explained)


index_app.command("near-duplicates")(near_duplicates)
teacher_app.command("cache")(teacher_cache)


@app.command("demo")
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
    from corpus_teacher.cli import console as display
    from corpus_teacher.demo.run import run_demo

    result = run_demo(out, seconds=seconds, seed=seed, quick=quick, console=display.console(stderr=as_json))
    if as_json:
        print_json(result)


def _stop(number: int, frame: object) -> None:
    """SIGTERM unwinds the stack, so that temporary files go away."""
    del frame
    sys.exit(128 + number)


def main() -> None:
    """The entry point of the `corpus-teacher` script."""
    signal.signal(signal.SIGTERM, _stop)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    app()


if __name__ == "__main__":
    main()
