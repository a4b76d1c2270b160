"""Commands about the corpus teacher itself: how good it is, what it writes, what it can only copy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from corpus_teacher.cli.options import AsJson, IndexPath, print_json, write_page

teacher_app = typer.Typer(
    help="The corpus as a teacher, and language models.", no_args_is_help=True, pretty_exceptions_enable=False
)

OutPage = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE.html", show_default=False, help="Write a page with tables and plots."),
]
OwnTokenizer = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        "-t",
        metavar="T",
        help="Must be the index's own; for indexes of ready tokens.",
        show_default="the index's",
    ),
]


@teacher_app.command("eval")
def teacher_eval(
    path: IndexPath,
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            metavar="HELDOUT",
            show_default=False,
            help="Text that is not in the index (files, folders, globs, hf:NAME), or ready tokens; may be repeated.",
        ),
    ],
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help="An estimator, or the file of a fitted one, which has its own order; may be repeated.",
            show_default="all",
        ),
    ] = None,
    max_order: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N",
            help="The longest context, in tokens, or none: no bound; may be repeated.",
            show_default="1, 2, 3, 5, 8",
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Top-1, entropy and calibration of targets with so many explicit tokens, as a teacher gives them; "
            "much faster.",
            show_default="all: exact",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=2, help="Only the first tokens of the text.", show_default="all")
    ] = None,
    text_field: Annotated[str, typer.Option(help="The key or column that holds the text.")] = "text",
    dtype: Annotated[str, typer.Option(help="The integers of a raw .bin file: uint16 or uint32.")] = "uint16",
    tokenizer: OwnTokenizer = None,
    out: OutPage = None,
    as_json: AsJson = False,
) -> None:
    """How well the corpus predicts text that it does not hold, by estimator and order."""
    from corpus_teacher.analysis.evaluation import ESTIMATORS, MAX_ORDERS, evaluate_index
    from corpus_teacher.cli import console as display
    from corpus_teacher.cli import show_teacher as display_teacher
    from corpus_teacher.data.readers import ReadOptions

    with display.progress() as progress:
        answer = evaluate_index(
            path,
            data,
            estimators=estimator or ESTIMATORS,
            max_orders=[order_of(word) for word in max_order] if max_order else MAX_ORDERS,
            top_k=top_k,
            limit=limit,
            read=ReadOptions(text_field=text_field),
            dtype=dtype,
            tokenizer=tokenizer,
            progress=progress,
        )
    if out is not None:
        from corpus_teacher.pages.evaluation import render_evaluation

        write_page(lambda: render_evaluation(answer), out)
    if as_json:
        print_json(answer)
    else:
        display_teacher.show_evaluation(answer)
        if out is not None:
            typer.echo(f"\nwrote {out}")


@teacher_app.command("fit")
def teacher_fit(
    path: IndexPath,
    estimator: Annotated[
        str, typer.Option("--estimator", "-e", metavar="NAME", show_default=False, help="Which one; auto is the best.")
    ],
    max_order: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="The longest context, in tokens.", show_default="no bound")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE.json",
            help="Where it is kept.",
            show_default="beside the index: DIR.NAME.json, with a bound DIR.NAME-N.json",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fit an estimator on an index and keep it in a file, which every --estimator takes in place of a name."""
    from corpus_teacher.analysis.fit import fit_estimator
    from corpus_teacher.cli import console as display
    from corpus_teacher.cli import show_teacher as display_teacher

    with display.progress() as progress:
        answer = fit_estimator(path, estimator, max_order=max_order, out=out, overwrite=overwrite, progress=progress)
    if as_json:
        print_json(answer)
    else:
        display_teacher.show_fit(answer)


@teacher_app.command("export-arpa")
def teacher_export_arpa(
    path: IndexPath,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            show_default=False,
            help="The file to write; one that ends in .gz is compressed.",
        ),
    ],
    estimator: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="kneser-ney or modified-kneser-ney, or the file of a fitted one.")
    ] = "modified-kneser-ney",
    order: Annotated[
        int, typer.Option(metavar="N", min=1, help="The longest n-grams, as KenLM's -o; a file has its own.")
    ] = 5,
    convention: Annotated[
        str, typer.Option(help="kenlm: the model that KenLM's lmplz makes; plain: the one that the other commands use.")
    ] = "kenlm",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the teacher as an ARPA file, for KenLM and others; its words are token ids."""
    from corpus_teacher.analysis.export import export_arpa
    from corpus_teacher.cli import console as display
    from corpus_teacher.cli import show_teacher as display_teacher

    with display.progress() as progress:
        answer = export_arpa(
            path,
            out,
            estimator=estimator,
            order=order,
            convention=convention,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json(answer)
    else:
        display_teacher.show_arpa(answer)


def sample(
    path: IndexPath,
    prompt: Annotated[
        str, typer.Option(help="The text to go on from; without one, texts start where documents start.")
    ] = "",
    estimator: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="How counts become probabilities; a file has its own order.")
    ] = "witten-bell",
    max_order: Annotated[int, typer.Option(min=0, help="The longest context, in tokens.")] = 5,
    temperature: Annotated[float, typer.Option(min=0, help="0: always the most probable token.")] = 1.0,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Only the K most probable tokens.", show_default="all")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Only the most probable tokens that hold this share together.", show_default="all"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same text.")] = 0,
    num: Annotated[int, typer.Option("--num", "-n", min=1, help="How many texts.")] = 1,
    length: Annotated[int, typer.Option(min=1, help="Tokens of each at most; a text ends with its document.")] = 100,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Each token with the order and the count of its context.")
    ] = False,
    explicit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="At most so many explicit tokens a target, as a teacher gives them; twice as fast.",
            show_default="all: exact",
        ),
    ] = None,
    tokenizer: OwnTokenizer = None,
    as_json: AsJson = False,
) -> None:
    """Write text as the corpus would: draw it from an n-gram teacher, token by token."""
    from corpus_teacher.analysis.sample import sample_index
    from corpus_teacher.cli import show_teacher as display_teacher
    from corpus_teacher.data.drawing import DrawOptions

    answer = sample_index(
        path,
        prompt,
        num=num,
        length=length,
        estimator=estimator,
        max_order=max_order,
        draw=DrawOptions(temperature, top_k, top_p),
        seed=seed,
        evidence=evidence,
        explicit=explicit,
        tokenizer=tokenizer,
    )
    if as_json:
        print_json(answer)
    else:
        display_teacher.show_samples(answer)


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
    from corpus_teacher.cli import show_teacher as display_teacher

    answer = index_repeats(path, numbers_of(lengths, "--lengths"), top=top, top_length=top_length)
    if out is not None:
        from corpus_teacher.pages.duplicates import render_duplicates_report

        write_page(lambda: render_duplicates_report(answer), out)
    if as_json:
        print_json(answer)
    else:
        display_teacher.show_repeats(answer)
        if out is not None:
            typer.echo(f"\nwrote {out}")


def order_of(word: str) -> int | None:
    """A bound of the order from "5" or "none".

    Raises
    ------
    ConfigError
        If it is neither.
    """
    from corpus_teacher.errors import ConfigError

    if word == "none":
        return None
    try:
        return int(word)
    except ValueError as error:
        raise ConfigError(f"--max-order {word!r} is no order: give a whole number, or none for no bound") from error


def numbers_of(text: str, option: str) -> list[int]:
    """Integers of "16,32 64".

    Raises
    ------
    ConfigError
        If it is no list of integers.
    """
    from corpus_teacher.errors import ConfigError

    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise ConfigError(f"{option} {text!r} is no list of whole numbers: write them with commas between") from error
