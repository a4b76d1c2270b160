"""The page of `corpus-teacher teacher eval`: tables, and curves by order, reliability, coverage, evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from corpus_teacher.pages.page import INK, PALETTE, card, chart, facts, page, plain_axes, plot, table

if TYPE_CHECKING:
    from corpus_teacher.analysis.evaluation import Bucket, EstimatorScore, Evaluation

_MARKERS = "osD^vPX*"
_FEWEST = 30  # positions of a bin that is drawn: fewer are noise


def render_evaluation(answer: Evaluation) -> str:
    """The page, as HTML that loads nothing from anywhere.

    Parameters
    ----------
    answer : Evaluation
        What `corpus_teacher.analysis.evaluation.evaluate_index` returns.
    """
    best = min(answer.scores, key=lambda score: score.cross_entropy_nats)
    return page(
        "corpus-teacher: evaluation",
        [
            "<h1>How good a teacher the corpus is</h1>",
            f'<p class="lead">{answer.num_tokens:,} tokens of held-out text (whether the index contains it isn’t '
            f"checked), predicted by n-gram estimators over an index of {answer.index_tokens:,} tokens. "
            f"Lowest cross-entropy: {best.estimator} with contexts of {_up_to(best.max_order)}, "
            f"{_number(best.cross_entropy_nats)} nats per token.</p>",
            "<h2>Cross-entropy by order</h2>",
            card(chart(entropy_curves(answer), "Cross-entropy against the longest context")),
            "<h2>Reliability</h2>",
            "<p>How often the most probable token is the next one, against the probability that it was given, at each "
            f"estimator’s best order. On the diagonal, a probability is what it says. Bins of fewer than {_FEWEST} "
            "positions are left out.</p>",
            card(chart(reliability_curves(answer), "Accuracy against top-1 probability")),
            "<h2>Coverage</h2>",
            "<p>The share of positions whose last n tokens stand in the corpus, followed by a token.</p>",
            card(chart(coverage_curve(answer), "Share of positions with a match of at least n tokens")),
            "<h2>Loss by evidence</h2>",
            card(chart(bucket_curves(answer), "Cross-entropy by match length and by context count")),
            "<h2>All scores</h2>",
            _scores(answer, best),
            f'<p class="note">{_measured_on(answer.top_k)} '
            "An estimator that gives any token probability 0 has an infinite cross-entropy; p = 0 is the share of such "
            "tokens.</p>",
            "<h2>By evidence, in numbers</h2>",
            _buckets("longest match, in tokens", best.by_match_len),
            _buckets(f"count of the longest context of {_up_to(best.max_order)}", best.by_context_count),
            f'<p class="note">The tables are of {best.estimator}, contexts of {_up_to(best.max_order)}.</p>',
            *_recited(answer),
            "<h2>What was measured</h2>",
            facts(
                [
                    ("index", answer.path),
                    ("fingerprint", answer.fingerprint),
                    ("held-out text", ", ".join(answer.sources)),
                    ("documents", f"{answer.num_documents:,}"),
                    ("bytes", f"{answer.num_bytes:,}" if answer.num_bytes else "unknown (ready tokens, no tokenizer)"),
                ]
            ),
        ],
        dark=True,
    )


def _recited(answer: Evaluation) -> list[str]:
    """The documents of the index that the held-out text repeats, by name; nothing where there are none."""
    if not answer.recited:
        return []
    rows = [(one.name or f"document {one.document:,}", f"{one.positions:,}") for one in answer.recited]
    return [
        "<h2>Documents that the held-out text repeats</h2>",
        "<p>Positions of the held-out text after 32 tokens or more that a document of the index contains "
        "word for word: what a leak between the two would come from.</p>",
        table(("document", "positions"), rows),
    ]


def entropy_curves(answer: Evaluation) -> Figure:
    """Cross-entropy against the order, a line an estimator; infinite ones are left out."""
    figure, axes = plot(height=4.8)
    drawn = False
    orders = sorted({score.max_order for score in answer.scores}, key=lambda order: (order is None, order))
    for number, (name, scores) in enumerate(_by_estimator(answer)):
        points = [
            (orders.index(one.max_order), one.cross_entropy_nats)
            for one in scores
            if math.isfinite(one.cross_entropy_nats)
        ]
        if points:
            _line(axes, number, *zip(*points, strict=True), label=name)
            drawn = True
    axes.set_xticks(range(len(orders)), ["any" if order is None else f"{order}" for order in orders])
    axes.set_xlabel("longest context, tokens", color=INK)
    axes.set_ylabel("cross-entropy, nats per token", color=INK)
    if drawn:
        axes.legend(frameon=False, fontsize=9.5, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def reliability_curves(answer: Evaluation) -> Figure:
    """Accuracy against confidence of the top-1 probability, each estimator at its best order."""
    figure, axes = plot(height=5.2)
    axes.plot([0, 1], [0, 1], color="#b8c0ca", linewidth=1, linestyle="--")
    for number, (name, scores) in enumerate(_by_estimator(answer)):
        best = min(scores, key=lambda score: (score.cross_entropy_nats, score.calibration_error))
        filled = [one for one in best.reliability if one.share * answer.num_tokens >= _FEWEST]
        label = f"{name}, {_up_to(best.max_order)}: ECE {best.calibration_error:.3f}"
        _line(axes, number, [one.confidence for one in filled], [one.accuracy for one in filled], label=label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("probability of the most probable token", color=INK)
    axes.set_ylabel("how often it is the next one", color=INK)
    axes.legend(frameon=False, fontsize=9.5)
    return figure


def coverage_curve(answer: Evaluation) -> Figure:
    """Share of positions with a match of at least n tokens, against n."""
    figure, axes = plot(height=3.6)
    axes.plot(
        range(1, len(answer.coverage)),
        answer.coverage[1:],
        color=PALETTE[0],
        linewidth=2,
        marker="o",
        markersize=3,
        label="coverage",
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("match of at least n tokens", color=INK)
    axes.set_ylabel("share of positions", color=INK)
    return figure


def bucket_curves(answer: Evaluation) -> Figure:
    """Cross-entropy by bucket of match length and of context count, each estimator at its best order."""
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    parts: list[tuple[str, Callable[[EstimatorScore], list[Bucket]]]] = [
        ("longest match, tokens", lambda score: score.by_match_len),
        ("count of the context", lambda score: score.by_context_count),
    ]
    for place, (title, buckets_of) in enumerate(parts, start=1):
        axes = figure.add_subplot(1, 2, place)
        plain_axes(axes)
        labels = _labels(buckets_of(score) for score in answer.scores)
        for number, (name, scores) in enumerate(_by_estimator(answer)):
            best = min(scores, key=lambda score: (score.cross_entropy_nats, score.calibration_error))
            if math.isfinite(best.cross_entropy_nats):
                found = [(labels.index(one.label), one.cross_entropy_nats) for one in buckets_of(best)]
                _line(axes, number, *zip(*found, strict=True), label=name)
        axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right", fontsize=8.5)
        axes.set_xlabel(title, color=INK)
        if place == 1:
            axes.set_ylabel("cross-entropy, nats per token", color=INK)
            if axes.lines:
                axes.legend(frameon=False, fontsize=8.5)
    return figure


def _line(axes: Axes, number: int, x: Iterable[float], y: Iterable[float], *, label: str) -> None:
    axes.plot(
        list(x),
        list(y),
        color=PALETTE[number % len(PALETTE)],
        linestyle="-" if number < len(PALETTE) else "--",
        marker=_MARKERS[number % len(_MARKERS)],
        markersize=4.5,
        linewidth=1.6,
        label=label,
    )


def _by_estimator(answer: Evaluation) -> list[tuple[str, list[EstimatorScore]]]:
    """The scores of each estimator, in the order of the answer."""
    found: dict[str, list[EstimatorScore]] = {}
    for score in answer.scores:
        found.setdefault(score.estimator, []).append(score)
    return list(found.items())


def _labels(several: Iterable[list[Bucket]]) -> list[str]:
    """The names of all buckets that any score fills, ascending."""
    labels = {bucket.label for buckets in several for bucket in buckets}
    return sorted(labels, key=lambda label: int(label.replace(",", "").split("–")[0].split()[0]))


def _scores(answer: Evaluation, best: EstimatorScore) -> str:
    heads = ("estimator", "order", "nats/token", "bits/byte", "p = 0", "top-1", "ECE", "entropy", "cut mass")
    rows = [
        (
            score.estimator,
            "any" if score.max_order is None else f"{score.max_order}",
            _number(score.cross_entropy_nats),
            "–" if score.bits_per_byte is None else _number(score.bits_per_byte),
            f"{score.zero_share:.2%}" if score.zero_share else "–",
            f"{score.top1:.2%}",
            f"{score.calibration_error:.4f}",
            f"{score.entropy_nats:.3f}",
            f"{score.cut_mass:.2%}",
        )
        for score in answer.scores
    ]
    return table(heads, rows, [score is best for score in answer.scores])


def _buckets(title: str, buckets: list[Bucket]) -> str:
    rows = [
        (bucket.label, f"{bucket.share:.1%}", _number(bucket.cross_entropy_nats), f"{bucket.top1:.1%}")
        for bucket in buckets
    ]
    return table((title, "share of positions", "nats/token", "top-1"), rows)


def _up_to(max_order: int | None) -> str:
    return "any length" if max_order is None else f"up to {max_order} token{'' if max_order == 1 else 's'}"


def _measured_on(top_k: int | None) -> str:
    if top_k is None:
        return "All figures are of the exact distributions."
    return (
        "Cross-entropy is exact. Top-1, calibration error and entropy are of the targets as a teacher gives them, with "
        f"{top_k} explicit tokens; what that cuts lies on the base (cut mass)."
    )


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "∞"
