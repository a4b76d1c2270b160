"""`corpus-teacher sample`: text as the corpus would write it."""

from __future__ import annotations

from typing import Annotated

import typer

from corpus_teacher.cli.options import (
    AsJson,
    IndexPath,
    OwnTokenizer,
    WithRecall,
    estimator_option,
    max_order_option,
    order_of,
    print_json,
)


def sample(
    path: IndexPath,
    prompt: Annotated[
        str, typer.Option(help="The text to go on from; without one, texts start where documents start.")
    ] = "",
    estimator: Annotated[str, estimator_option()] = "witten-bell",
    max_order: Annotated[str, max_order_option()] = "5",
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
    length: Annotated[
        int, typer.Option("--length", "-T", min=1, help="Tokens of each at most; a text ends with its document.")
    ] = 100,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Each token with the order and the count of its context.")
    ] = False,
    explicit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="At most that many explicit tokens in each target, as a teacher gives them; twice as fast.",
            show_default="all: exact",
        ),
    ] = None,
    recall: WithRecall = False,
    tokenizer: OwnTokenizer = None,
    as_json: AsJson = False,
) -> None:
    """Write text as the corpus would: draw it from an n-gram teacher, token by token."""
    from corpus_teacher.analysis.sample import sample_index
    from corpus_teacher.cli.console import progress as shown
    from corpus_teacher.cli.show_teacher import show_samples
    from corpus_teacher.data.drawing import DrawOptions

    with shown() as progress:
        answer = sample_index(
            path,
            prompt,
            num=num,
            length=length,
            estimator=estimator,
            max_order=order_of(max_order),
            draw=DrawOptions(temperature, top_k, top_p),
            seed=seed,
            evidence=evidence,
            explicit=explicit,
            recall=recall,
            tokenizer=tokenizer,
            progress=progress,
        )
    if as_json:
        print_json(answer)
    else:
        show_samples(answer)
