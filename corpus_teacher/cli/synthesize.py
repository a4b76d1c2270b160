"""`corpus-teacher synthesize`: a corpus that a teacher wrote, filtered, to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from corpus_teacher.cli.options import (
    AsJson,
    Device,
    Overwrite,
    TokenDtype,
    estimator_option,
    going_on,
    max_order_option,
    order_of,
    print_json,
)
from corpus_teacher.cli.source_options import TextField, UnpackRatio

_FILTERS = "Filters"
_DRAW = "Drawing"
_CORPUS = "Corpus teacher"


def _bound(help: str) -> typer.models.OptionInfo:
    return typer.Option(help=help, rich_help_panel=_FILTERS, show_default="none")


def synthesize(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            show_default=False,
            help="The folder of the corpus; one that was begun is completed.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]", show_default=False, help="A saved model or checkpoint, a name, a .gguf file, or smollm2."
        ),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            metavar="INDEX", show_default=False, help="An index: its corpus teaches.", rich_help_panel=_CORPUS
        ),
    ] = None,
    corpus_weight: Annotated[
        float, typer.Option(help="Share of the corpus where MODEL teaches too.", rich_help_panel=_CORPUS)
    ] = 0.5,
    estimator: Annotated[str, estimator_option(rich_help_panel=_CORPUS)] = "witten-bell",
    max_order: Annotated[str, max_order_option(rich_help_panel=_CORPUS)] = "5",
    explicit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="At most that many explicit tokens a target; faster.",
            show_default="all: exact",
            rich_help_panel=_CORPUS,
        ),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Stop when the corpus has that many tokens.", show_default=False)
    ] = None,
    documents: Annotated[
        int | None, typer.Option(min=1, help="Stop when it has that many documents.", show_default=False)
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1, help="Stop after that many samples, kept or not.", show_default="one a prompt, without a target"
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="A text that documents begin with; may be repeated.", show_default=False),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE",
            show_default=False,
            help="Or the documents of an index, text (files, folders, globs, hf:NAME), or ready tokens; repeatable.",
        ),
    ] = None,
    prompt_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Only the first tokens of each, where it has more.", show_default="whole documents"),
    ] = None,
    keep_prompt: Annotated[bool, typer.Option(help="Whether the corpus holds the prompts as well.")] = True,
    length: Annotated[int, typer.Option("--length", "-T", min=1, help="Tokens to draw at most.")] = 256,
    temperature: Annotated[
        float, typer.Option(min=0, help="0: always the most probable token.", rich_help_panel=_DRAW)
    ] = 1.0,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, help="Only the K most probable tokens.", show_default="all", rich_help_panel=_DRAW),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            help="Only the most probable tokens that hold this share.", show_default="all", rich_help_panel=_DRAW
        ),
    ] = None,
    start_token: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="What MODEL's texts begin after, an id or a name.",
            show_default="the end of a document",
            rich_help_panel=_DRAW,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same corpus.", rich_help_panel=_DRAW)] = 0,
    min_tokens: Annotated[int, typer.Option(min=1, help="Drawn tokens at least.", rich_help_panel=_FILTERS)] = 1,
    max_tokens: Annotated[int | None, _bound("Drawn tokens at most.")] = None,
    only_ended: Annotated[
        bool,
        typer.Option("--only-ended", help="Drop what reached the length before it ended.", rich_help_panel=_FILTERS),
    ] = False,
    ngram: Annotated[
        int, typer.Option(min=1, help="n of the n-grams of --max-repeated.", rich_help_panel=_FILTERS)
    ] = 4,
    max_repeated: Annotated[float | None, _bound("Share of n-grams that stood in the document before.")] = None,
    max_run: Annotated[int | None, _bound("How often one token stands in a row.")] = None,
    min_confidence: Annotated[float | None, _bound("The teacher's mean log-probability, nats/token, −3 say.")] = None,
    max_confidence: Annotated[float | None, _bound("The same, at most.")] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="INDEX",
            help="The index that novelty is measured against.",
            show_default="--index",
            rich_help_panel=_FILTERS,
        ),
    ] = None,
    match_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of a match that count as copied.", rich_help_panel=_FILTERS)
    ] = 16,
    min_copied: Annotated[float | None, _bound("Share of copied tokens at least.")] = None,
    max_copied: Annotated[float | None, _bound("Share of copied tokens at most.")] = None,
    min_match: Annotated[int | None, _bound("Tokens of the longest match at least.")] = None,
    max_match: Annotated[int | None, _bound("Tokens of the longest match at most.")] = None,
    duplicates: Annotated[
        bool, typer.Option("--drop-duplicates/--keep-duplicates", help="Equal documents.", rich_help_panel=_FILTERS)
    ] = True,
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="tokens or jsonl.")] = "tokens",
    batch: Annotated[int, typer.Option(min=1, help="Documents that are sampled at once.")] = 64,
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", "-t", metavar="T", help="The teacher's.", show_default="its own"),
    ] = None,
    text_field: TextField = "text",
    unpack_ratio: UnpackRatio = 200,
    token_dtype: TokenDtype = "auto",
    dtype: Annotated[
        str | None, typer.Option(help="Of MODEL: float32, bfloat16 or float16.", show_default="its own")
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a corpus: sample documents from a teacher, keep those that pass the filters.

    The teacher is MODEL, the corpus teacher of --index, or at every token the mixture of both. DIR holds tokens.npy and
    doc_starts.npy (or documents.jsonl), the evidence of each document, tokenizer.json, and synthesis.json with the
    report of the filters. Killed and started again, the command goes on where it was, to the same bytes.

    Sequence-level distillation: train a student on DIR with hard labels (corpus-teacher train).

    Simple self-distillation: let MODEL be the student's own checkpoint, with prompts, a training temperature and
    truncation: corpus-teacher synthesize CHECKPOINT --prompts prompts.jsonl --temperature 1.6 --top-k 20 --top-p 0.8
    --out DIR. Then go on from that checkpoint with corpus-teacher train: student.checkpoint is CHECKPOINT, data.train
    is DIR/tokens.npy, and there is no soft teacher.
    """
    from corpus_teacher.cli.console import progress as shown
    from corpus_teacher.cli.show_teacher import show_synthesis
    from corpus_teacher.data.drawing import DrawOptions
    from corpus_teacher.synthesis import Filters, SynthesisOptions, Target, WritingOptions
    from corpus_teacher.synthesis import synthesize as run

    filters = Filters(
        min_tokens=min_tokens,
        max_tokens=max_tokens,
        only_ended=only_ended,
        ngram=ngram,
        max_repeated=max_repeated,
        max_run=max_run,
        min_confidence=min_confidence,
        max_confidence=max_confidence,
        match_tokens=match_tokens,
        min_copied=min_copied,
        max_copied=max_copied,
        min_match=min_match,
        max_match=max_match,
        duplicates=duplicates,
    )
    options = SynthesisOptions(
        index=index,
        corpus_weight=corpus_weight,
        estimator=estimator,
        max_order=order_of(max_order),
        explicit=explicit,
        prompt_texts=prompt or (),
        prompt_sources=prompts or (),
        prompt_tokens=prompt_tokens,
        start_token=start_token,
        against=against,
        tokenizer=tokenizer,
        text_field=text_field,
        unpack_ratio=unpack_ratio,
        token_dtype=token_dtype,
        dtype=dtype,
        device=device,
        writing=WritingOptions(
            target=Target(tokens, documents, samples),
            keep_prompt=keep_prompt,
            length=length,
            draw=DrawOptions(temperature, top_k, top_p),
            filters=filters,
            form=form,
            batch_size=batch,
            seed=seed,
            overwrite=overwrite,
        ),
    )
    with going_on(f"the same command goes on with what {out} holds"), shown() as progress:
        summary = run(model, out, options, progress=progress)
    if as_json:
        print_json(summary)
    else:
        show_synthesis(summary)
