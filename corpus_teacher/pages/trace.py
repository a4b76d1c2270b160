"""The page of `corpus-teacher trace`: a text with its spans in colour, its novelty, and where each span stands."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from corpus_teacher.pages.page import INK, PALETTE, card, chart, page, plot

if TYPE_CHECKING:
    from corpus_teacher.analysis.novelty import Novelty
    from corpus_teacher.analysis.trace import Trace

_STYLE = """
.traced { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.9; }
.traced a { color: inherit; text-decoration: none; border-radius: 3px; padding: 2px 0;
  background: color-mix(in srgb, var(--series-1, #c2710c) var(--heat), transparent); }
.traced a:hover, .traced a:focus { outline: 2px solid var(--series-1, #c2710c); }
.place { margin: 10px 0; font-size: 14px; overflow-wrap: anywhere; }
.place b { font-weight: 600; } .place span { color: var(--soft); }
"""
_LONG = 64  # tokens of a span in the strongest colour


def render_trace(answer: Trace) -> str:
    """The page, as HTML that loads nothing from anywhere."""
    bound = f" that occur at most {answer.max_count:,} times" if answer.max_count else ""
    spans = sorted(range(len(answer.spans)), key=lambda one: -answer.spans[one].num_tokens)
    noun = "span" if len(answer.spans) == 1 else "spans"
    return page(
        "corpus-teacher: trace",
        [
            "<h1>What is copied from the corpus</h1>",
            f'<p class="lead">{answer.copied_share:.1%} of {answer.num_tokens:,} tokens lie in {len(answer.spans):,} '
            f"{noun} of {answer.min_length} tokens or more{bound}; the longest match has {answer.longest:,} "
            "tokens.</p>",
            card(f'<div class="traced">{_text(answer)}</div>'),
            "<h2>Novelty</h2>",
            f"<p>The share of n-grams that the corpus lacks{_beside(answer)}.</p>",
            card(chart(novelty_plot(answer.novelty, answer.baseline), "Share of new n-grams against n")),
            "<h2>Where the spans occur</h2>",
            *(_span(answer, number) for number in spans),
        ],
        dark=True,
        style=_STYLE,
    )


def novelty_plot(novelty: list[Novelty], baseline: list[Novelty]) -> Figure:
    """The share of n-grams that the corpus lacks against n, of the text and of what it is compared with."""
    figure, axes = plot(7.2, 3.8)
    for number, (name, curve) in enumerate((("the text", novelty), ("baseline", baseline))):
        if curve:
            axes.plot(
                [one.n for one in curve],
                [one.novel for one in curve],
                color=PALETTE[number],
                marker="os"[number],
                markersize=4.5,
                linewidth=1.8,
                label=name,
            )
    ticks = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= max((one.n for one in novelty), default=1)]
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("n, tokens", color=INK)
    axes.set_ylabel("n-grams that the corpus lacks", color=INK)
    axes.legend(frameon=False, labelcolor=INK)
    return figure


def _beside(answer: Trace) -> str:
    return f", beside {answer.baseline_of}" if answer.baseline_of else ""


def _text(answer: Trace) -> str:
    """The tokens, each in the colour of the longest span that it lies in."""
    owner = answer.span_of_each()
    parts, begin = [], 0
    for place in range(1, answer.num_tokens + 1):
        if place == answer.num_tokens or owner[place] != owner[begin]:
            text = html.escape("".join(answer.tokens[begin:place]))
            if owner[begin] >= 0:
                span = answer.spans[owner[begin]]
                heat = 15 + round(45 * min(1.0, span.num_tokens / _LONG))
                about = f"{span.num_tokens} tokens, {span.count:,} times"
                text = f'<a href="#span{owner[begin]}" style="--heat:{heat}%" title="{about}">{text}</a>'
            parts.append(text)
            begin = place
    return "".join(parts)


def _span(answer: Trace, number: int) -> str:
    span = answer.spans[number]
    places = "".join(
        f'<p class="place"><span>{html.escape(one.name or f"document {one.document:,}")}</span><br>'
        f"<span>{'…' if one.cut_before else ''}{html.escape(one.before)}</span><b>{html.escape(one.match)}</b>"
        f"<span>{html.escape(one.after)}{'…' if one.cut_after else ''}</span></p>"
        for one in span.occurrences
    )
    head = f"{span.num_tokens} tokens, {span.count:,} {'time' if span.count == 1 else 'times'}"
    return card(f'<h3 id="span{number}">{head}</h3>{places}')
