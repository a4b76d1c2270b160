"""The page of `corpus-teacher index near-duplicates`: how much of a corpus stands in several of its documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from corpus_teacher.files import write_text
from corpus_teacher.pages.page import INK, PALETTE, card, chart, page, plot, table

if TYPE_CHECKING:
    from corpus_teacher.analysis.duplicates import RepeatsAnswer


def write_duplicates_report(answer: RepeatsAnswer, path: str | Path) -> None:
    """Write the page.

    Raises
    ------
    OutputError
        If it can't be written.
    """
    write_text(path, render_duplicates_report(answer))


def render_duplicates_report(answer: RepeatsAnswer) -> str:
    """The page, as HTML that loads nothing from anywhere."""
    rows = [
        (
            f"{one.length}",
            f"{one.position_share:.3%}",
            f"{one.positions:,}",
            f"{one.token_share:.3%}",
            f"{one.tokens:,}",
        )
        for one in answer.lengths
    ]
    documents = [
        (
            _called(one.document, one.name, one.begins[:60]),
            f"{one.positions:,}",
            f"{one.share:.1%}",
            f"{one.num_tokens:,}",
        )
        for one in answer.documents
    ]
    pairs = [
        (
            _called(one.document, one.name, one.begins[:40]),
            _called(one.other, one.other_name, one.other_begins[:40]),
            f"{one.positions:,}",
            f"{one.share:.1%}",
        )
        for one in answer.pairs
    ]
    none = f"<p>No document shares {answer.top_length} tokens with another one.</p>"
    return page(
        "corpus-teacher: near-duplicates",
        [
            "<h1>What the documents share</h1>",
            f'<p class="lead">Of {answer.num_tokens:,} tokens in {answer.num_documents:,} documents: how many follow a '
            "context that stands in another document too, by its length. There a teacher made of this corpus repeats "
            "that document; repeats inside one document don’t count.</p>",
            card(chart(shared_curve(answer), "Share of positions by the length that another document shares")),
            table(
                ["length in tokens", "positions", "", "tokens in such passages", ""],
                rows,
            ),
            f"<h2>Documents with most matches of {answer.top_length} tokens</h2>",
            table(["document", "positions", "share of it", "tokens"], documents) if documents else none,
            f"<h2>Pairs with most matches of {answer.top_length} tokens</h2>",
            table(["document", "is repeated by", "positions", "share of the first"], pairs) if pairs else none,
            '<p class="note">A passage that several other documents hold is put down to one of them.</p>',
        ],
        dark=True,
        style="td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 220px; }",
    )


def _called(number: int, name: str | None, begins: str) -> str:
    """A document's name, or its number where it has none, and how it begins."""
    return f"{f'{number:,}' if name is None else name}: {begins}"


def shared_curve(answer: RepeatsAnswer) -> Figure:
    """Share of positions whose context shares at least n tokens with another document, against n."""
    figure, axes = plot()
    axes.plot(
        range(1, 256), answer.curve[1:], color=PALETTE[0], linewidth=2, marker="o", markersize=2.5, label="positions"
    )
    axes.set_xscale("log", base=2)
    if answer.curve[1] > 0:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1)  # a share, though there is none
    axes.set_xticks([1, 2, 4, 8, 16, 32, 64, 128, 255], ["1", "2", "4", "8", "16", "32", "64", "128", "255"])
    axes.set_xlabel("tokens shared with another document, at least", color=INK)
    axes.set_ylabel("share of positions", color=INK)
    return figure
