"""`corpus-teacher teacher`: how good the corpus teacher is, kept fits, other programs' files, caches of models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from corpus_teacher.cli.options import (
    App,
    AsJson,
    Device,
    IndexPath,
    OutPage,
    Overwrite,
    OwnTokenizer,
    TokenDtype,
    WithRecall,
    check_page,
    estimator_option,
    going_on,
    max_order_option,
    order_of,
    print_json,
    write_page,
)
from corpus_teacher.cli.source_options import TextField, UnpackRatio
from corpus_teacher.names import CACHE_KINDS, EXPORTS, PRECISIONS

teacher_app = App(help="The corpus as a teacher, and language models.")

_ESTIMATORS = ("witten-bell", "modified-kneser-ney", "auto")
_ORDERS = (1, 3, 5)
_SAMPLE = 20_000
"""What `teacher eval` does unless asked for more: a minute's work."""


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
        estimator_option("Which ones; repeat it for several", show_default="witten-bell, modified-kneser-ney, auto"),
    ] = None,
    max_order: Annotated[list[str] | None, max_order_option(show_default="1, 3, 5; repeat it for several")] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="All estimators at orders 1, 2, 3, 5 and 8, exactly, on all of the text: long."),
    ] = False,
    sample: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="That many tokens, spread evenly over the text.",
            show_default="20,000, without --all or --limit",
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Top-1, entropy and calibration of targets with that many explicit tokens, as a teacher gives them; "
            "much faster.",
            show_default="all: exact",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=2, help="Only the first tokens of the text.", show_default="all")
    ] = None,
    text_field: TextField = "text",
    unpack_ratio: UnpackRatio = 200,
    dtype: Annotated[
        str,
        typer.Option(
            "--token-dtype", "--dtype", help="The integers of a raw .bin file of tokens: uint16 or uint32; auto looks."
        ),
    ] = "auto",
    recall: WithRecall = False,
    tokenizer: OwnTokenizer = None,
    out: OutPage = None,
    as_json: AsJson = False,
) -> None:
    """How well the corpus predicts text that it does not hold, by estimator and order."""
    from corpus_teacher.analysis.evaluation import ESTIMATORS, MAX_ORDERS, evaluate_index
    from corpus_teacher.cli import show_teacher as display_teacher
    from corpus_teacher.cli.console import duration, remark
    from corpus_teacher.cli.console import progress as shown
    from corpus_teacher.data.readers import ReadOptions

    if sample is None and limit is None and not everything:
        sample = _SAMPLE
    orders = [order_of(word) for word in max_order or ()] or (MAX_ORDERS if everything else _ORDERS)
    check_page(out)
    with shown() as progress:
        answer = evaluate_index(
            path,
            data,
            estimators=estimator or (ESTIMATORS if everything else _ESTIMATORS),
            max_orders=orders,
            top_k=top_k,
            recall=recall,
            limit=limit,
            sample=sample,
            read=ReadOptions(text_field=text_field, unpack_ratio=unpack_ratio),
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
        runs = len(ESTIMATORS) * len(MAX_ORDERS)
        seconds = sum(one.seconds for one in answer.scores) / len(answer.scores) / answer.num_tokens
        if not everything:
            remark(
                f"--all evaluates {len(ESTIMATORS)} estimators at {len(MAX_ORDERS)} orders on all "
                f"{answer.text_tokens:,} tokens: about {duration(seconds * runs * answer.text_tokens)}"
            )
        if out is not None:
            typer.echo(f"\nwrote {out}")


@teacher_app.command("fit")
def teacher_fit(
    path: IndexPath,
    estimator: Annotated[str, estimator_option("Which one; auto predicts best", show_default=False)],
    max_order: Annotated[str, max_order_option()] = "none",
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
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Fit an estimator on an index and keep it in a file, which every --estimator takes in place of a name."""
    from corpus_teacher.analysis.fit import fit_estimator
    from corpus_teacher.cli import show_teacher as display_teacher
    from corpus_teacher.cli.console import progress as shown

    with shown() as progress:
        answer = fit_estimator(
            path, estimator, max_order=order_of(max_order), out=out, overwrite=overwrite, progress=progress
        )
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
        str,
        typer.Option(
            "--estimator",
            "-e",
            metavar="NAME|FILE",
            help="kneser-ney or modified-kneser-ney, or the file of a fitted one.",
        ),
    ] = "modified-kneser-ney",
    order: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, show_default="5", help="The longest n-grams, as KenLM's -o; a file has its own."
        ),
    ] = None,
    max_order: Annotated[
        str | None,
        typer.Option(
            "--max-order",
            metavar="N",
            show_default="4",
            help="The same as the longest context, in tokens: one less than --order.",
        ),
    ] = None,
    convention: Annotated[
        str, typer.Option(help="kenlm: the model that KenLM's lmplz makes; plain: the one that the other commands use.")
    ] = "kenlm",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write the teacher as an ARPA file, for KenLM and others; its words are token ids."""
    from corpus_teacher.analysis.export import export_arpa
    from corpus_teacher.cli import show_teacher as display_teacher
    from corpus_teacher.cli.console import progress as shown
    from corpus_teacher.errors import ConfigError

    longest = None if max_order is None else order_of(max_order)
    if max_order is not None and longest is None:
        raise ConfigError("max_order none: an ARPA file lists all n-grams up to a length; give a number")
    if order is not None and longest not in (None, order - 1):
        raise ConfigError(f"order {order} and max_order {longest} differ: give one of both")
    with shown() as progress:
        answer = export_arpa(
            path,
            out,
            estimator=estimator,
            order=order or (5 if longest is None else longest + 1),
            convention=convention,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json(answer)
    else:
        display_teacher.show_arpa(answer)


@teacher_app.command("export-targets")
def teacher_export_targets(
    path: IndexPath,
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            metavar="DATA",
            show_default=False,
            help="The folder of an index, or text (files, folders, globs, hf:NAME), or ready tokens; may be repeated.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="PLACE", show_default=False, help="A file; of megatron a folder.")
    ],
    format: Annotated[
        str, typer.Option(metavar="NAME", show_default=False, help=f"Whose files: {', '.join(EXPORTS)}.")
    ],
    k: Annotated[int, typer.Option(min=1, help="Tokens a position.")] = 64,
    length: Annotated[int, typer.Option("--length", "-T", min=1, help="Tokens of a window, as in training.")] = 1024,
    rows: Annotated[int, typer.Option(min=1, help="Windows of an iteration of Megatron's.")] = 16,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first tokens of the data.", show_default="all")
    ] = None,
    dataset_hash: Annotated[
        str | None,
        typer.Option(
            metavar="HASH",
            show_default=False,
            help="Of Megatron's files: the hash of the student's data, which its refusal of another one names.",
        ),
    ] = None,
    estimator: Annotated[str, estimator_option()] = "witten-bell",
    max_order: Annotated[str, max_order_option()] = "5",
    leave_out: Annotated[
        str, typer.Option(metavar="WHAT", help="Of text that is in the index: auto, self, document or none.")
    ] = "auto",
    tokenizer: OwnTokenizer = None,
    text_field: TextField = "text",
    unpack_ratio: UnpackRatio = 200,
    token_dtype: TokenDtype = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write what the corpus says of a text for trainers that read top-k files; they need nothing of ours."""
    from corpus_teacher.cli.console import progress as shown
    from corpus_teacher.neural.corpus_export import export_targets
    from corpus_teacher.teacher import CorpusTeacher

    teacher = CorpusTeacher(
        path,
        estimator=estimator,
        max_order=order_of(max_order),
        leave_out=None if leave_out == "none" else leave_out,
        top_k=max(k, 64),
    )
    with shown() as progress:
        answer = export_targets(
            teacher,
            data,
            out,
            format=format,
            k=k,
            length=length,
            rows=rows,
            limit=limit,
            dataset_hash=dataset_hash,
            text_field=text_field,
            unpack_ratio=unpack_ratio,
            token_dtype=token_dtype,
            tokenizer=tokenizer,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json(answer)
    else:
        typer.echo(
            f"{answer.windows:,} windows of {answer.length:,} tokens, {answer.k} a position, which hold "
            f"{answer.kept_mass:.2%} of the mass\nwrote {answer.path} in {answer.seconds:.1f} s"
        )


@teacher_app.command("cache")
def teacher_cache(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="A saved model, a name, a .gguf file, smollm2, or a cache of hidden states.",
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
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DATA…]", show_default=False, help="The same as --data."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="DATA",
            show_default=False,
            help="The folder of an index, or text (files, folders, globs, hf:NAME), or ready tokens; may be repeated.",
        ),
    ] = None,
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
    text_field: TextField = "text",
    unpack_ratio: UnpackRatio = 200,
    token_dtype: TokenDtype = "auto",
    dtype: Annotated[
        str | None, typer.Option(help="Of the model: float32, bfloat16 or float16.", show_default="its own")
    ] = None,
    device: Device = "auto",
    rows: Annotated[int, typer.Option(min=1, help="Windows that the model sees at once.")] = 8,
    shard_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of a file, about: what a run that is killed loses at most.")
    ] = 1 << 18,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Keep what a language model says of the next token, for training without it."""
    from corpus_teacher.cli import show_teacher as display_teacher
    from corpus_teacher.cli.console import progress as shown
    from corpus_teacher.errors import ConfigError

    read = [*(sources or ()), *(data or ())]
    if not read:
        raise ConfigError("there is no text to cache the model on: give `data`")

    from corpus_teacher.neural import TargetFormat, cache_teacher

    kept = TargetFormat(keep, k=k, p=p, draws=draws, precision=precision, seed=seed)
    with going_on(f"the same command goes on with what {out} holds"), shown() as progress:
        summary = cache_teacher(
            model,
            read,
            out,
            kept=kept,
            length=length,
            limit=limit,
            tokenizer=tokenizer,
            text_field=text_field,
            unpack_ratio=unpack_ratio,
            token_dtype=token_dtype,
            dtype=dtype,
            device=device,
            rows=rows,
            shard_tokens=shard_tokens,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json(summary)
    else:
        display_teacher.show_cache(summary)


@teacher_app.command("score")
def teacher_score(
    path: IndexPath,
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            metavar="SOURCE",
            show_default=False,
            help="Documents (files, folders, globs, hf:NAME), or ready tokens; may be repeated.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE.parquet",
            show_default=False,
            help="The file; a run that was ended is continued.",
        ),
    ],
    estimator: Annotated[str, estimator_option()] = "modified-kneser-ney",
    max_order: Annotated[str, max_order_option()] = "4",
    thresholds: Annotated[
        str | None,
        typer.Option(
            metavar="MIDDLE,TAIL",
            show_default="three even parts",
            help="Nats per token where the middle and the tail bucket begin.",
        ),
    ] = None,
    text_field: TextField = "text",
    unpack_ratio: UnpackRatio = 200,
    name_field: Annotated[
        str | None, typer.Option(metavar="KEY", show_default="file and line", help="The key that names a document.")
    ] = None,
    dtype: TokenDtype = "auto",
    tokenizer: OwnTokenizer = None,
    tables: Annotated[
        bool | None,
        typer.Option(
            help="Make a table of all n-grams first, in memory: some 20 seconds and 0.8 GB for 100 million tokens of "
            "the corpus, then several times as fast.",
            show_default="where it pays and fits",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads; the file is the same for any number.", show_default="all cores")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Score documents under the corpus: nats, bits a byte and a bucket for each, as CCNet sorts web pages."""
    from corpus_teacher.analysis.score_files import score_documents
    from corpus_teacher.cli import show_teacher as display_teacher
    from corpus_teacher.cli.console import progress as shown
    from corpus_teacher.data.readers import ReadOptions
    from corpus_teacher.errors import ConfigError

    bounds = None
    if thresholds is not None:
        try:
            bounds = [float(word) for word in thresholds.replace(",", " ").split()]
        except ValueError as error:
            raise ConfigError(f"`thresholds` {thresholds!r} are no numbers: give two, with a comma between") from error
    with going_on(f"the same command goes on with what is done of {out}"), shown() as progress:
        summary = score_documents(
            path,
            data,
            out,
            estimator=estimator,
            max_order=order_of(max_order),
            thresholds=bounds,
            read=ReadOptions(text_field=text_field, name_field=name_field, unpack_ratio=unpack_ratio),
            dtype=dtype,
            tokenizer=tokenizer,
            tables=tables,
            workers=workers,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json(summary)
    else:
        display_teacher.show_scores(summary)
