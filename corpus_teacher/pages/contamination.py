"""The page of `corpus-teacher index contamination`: how much of a benchmark stands in the corpus, item by item."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from corpus_teacher.pages.page import INK, PALETTE, card, chart, facts, page, plot, table

if TYPE_CHECKING:
    from corpus_teacher.analysis.contamination import Contamination

_MOST_ITEMS = 200


def render_contamination(answer: Contamination) -> str:
    """The page, as HTML that loads nothing from anywhere."""
    items = sorted(answer.items, key=lambda one: (-one.longest, -one.window_share))
    found = ", ".join(f"{count:,} {name}" for name, count in answer.windows.items())
    heads = ["share of n-grams found", *(head for n in answer.ngrams for head in (f"items, n = {n}", ""))]
    thresholds = list(dict.fromkeys(one.threshold for one in answer.by_threshold))
    by_threshold = [
        [f"at least {at:.0%}" if at else "any"]
        + [
            cell
            for one in answer.by_threshold
            if one.threshold == at
            for cell in (f"{one.items:,}", f"{one.share:.1%}")
        ]
        for at in thresholds
    ]
    shown = [
        (
            item.name,
            f"{item.longest:,}",
            *(f"{share:.0%}" for share in item.ngram_shares),
            f"{item.longest_words:,}",
            f"{item.window_share:.0%}",
            item.window_verdict,
            "; ".join(one.name or f"document {one.document:,}" for one in item.documents)[:90],
        )
        for item in items[:_MOST_ITEMS]
    ]
    cut = f" The {_MOST_ITEMS} with the longest matches are shown." if len(items) > _MOST_ITEMS else ""
    return page(
        "corpus-teacher: contamination",
        [
            "<h1>How much of the benchmark the corpus contains</h1>",
            f'<p class="lead">{answer.num_items:,} items, {answer.num_tokens:,} tokens. By GPT-3’s rule '
            f"{answer.gpt3_dirty:,} are dirty ({answer.gpt3_words} words in a row occur in the corpus); by windows of "
            f"50 characters {found}.</p>",
            card(chart(shares_plot(answer), "Items by the share of their n-grams that the corpus contains")),
            table(heads, by_threshold),
            f"<h2>Items</h2><p>Lengths in tokens, then words in a row, and the share of windows found.{cut}</p>",
            table(
                ["item", "longest", *(f"{n}-grams" for n in answer.ngrams), "words", "windows", "verdict", "documents"],
                shown,
            ),
            "<h2>Documents that contain most</h2>",
            table(
                ["document", "items"], [(one.name or f"{one.document:,}", f"{one.count:,}") for one in answer.documents]
            ),
            "<h2>What was measured</h2>",
            facts(
                [
                    ("index", answer.path),
                    ("benchmark", ", ".join(answer.sources)),
                    ("fields", ", ".join(answer.fields) or "all texts of each record"),
                    (
                        "GPT-3",
                        "any n-gram of words, n the fifth percentile of the items’ lengths, 8 to 13; exact letters",
                    ),
                    ("windows", "50 characters, one at each word; dirty from 80 % on, suspicious from 20 %"),
                ]
            ),
        ],
        dark=True,
    )


def shares_plot(answer: Contamination) -> Figure:
    """How many items have at least so large a share of their n-grams in the corpus, a line an n."""
    figure, axes = plot(7.2, 3.8)
    for number, n in enumerate(answer.ngrams):
        shares = np.sort([item.ngram_shares[number] for item in answer.items])
        axes.step(
            shares, 1 - np.arange(shares.size) / shares.size, color=PALETTE[number % len(PALETTE)], label=f"n = {n}"
        )
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("share of n-grams found, at least", color=INK)
    axes.set_ylabel("share of items", color=INK)
    axes.legend(frameon=False, labelcolor=INK)
    return figure
