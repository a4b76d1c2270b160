"""More figures of a report: the difference on each document, the laws of loss by tokens, the map of arm by rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from corpus_teacher.pages.page import INK, plot
from corpus_teacher.study.report.fits import Law, predicted
from corpus_teacher.study.report.matching import loss_metric
from corpus_teacher.study.report.plots import arm_style, errors, legend_above, short, sideways, whisker
from corpus_teacher.study.report.results import Place, Results, lower_is_better, tuning_losses
from corpus_teacher.study.report.statistics import Estimate, difference, draw_values

_GREY, _BLUE = "#b8c0ca", "#2563eb"
_PALEST = 0.2  # nats per token above an arm's best rate: from there on a cell is white


@dataclass(frozen=True)
class OfDocument:
    """An arm minus the baseline on one held-out document; the interval is over the seeds alone."""

    tokens: int
    difference: Estimate


def differences_by_document(results: Results, place: Place) -> list[OfDocument]:
    """Each document's difference from the baseline at a place, in the order of the text; none without common seeds."""
    base, domain = (results.baseline, *place[1:]), loss_metric(results).rpartition(".")[0]
    seeds = results.common_seeds([base, place])
    sums = [
        np.array([results.runs[one][seed]["metrics"].get(domain, {}).get("documents", []) for seed in seeds], float)
        for one in (base, place)
    ]
    if not seeds or any(one.ndim != 3 for one in sums) or not np.array_equal(sums[0][..., 1], sums[1][..., 1]):
        return []
    tokens = sums[0][0, :, 1]
    means = [one[..., 0] / np.maximum(tokens, 1) for one in sums]  # (S, D)
    return [
        OfDocument(int(count), difference(draw_values([means[0][:, at], means[1][:, at]])))
        for at, count in enumerate(tokens)
        if count > 0
    ]


def forest(results: Results, place: Place) -> Figure | None:
    """A row for each document, its mark as large as the document, and below them the difference on all of them."""
    found = differences_by_document(results, place)
    draws = results.draws([(results.baseline, *place[1:]), place], loss_metric(results))
    if len(found) < 2 or draws is None:
        return None
    whole, largest = difference(draws), max(one.tokens for one in found)
    rows = [*reversed(found)]
    figure, axes = plot(height=1.4 + 0.26 * (len(rows) + 1))
    names = [f"{len(rows) - at}: {one.tokens:,} tokens" for at, one in enumerate(rows)]
    sideways(axes, ["all documents", *names])
    axes.axvline(0, color=_GREY, linewidth=1.2)
    axes.axvspan(whole.low, whole.high, color=_GREY, alpha=0.25, linewidth=0)
    colour = arm_style(results, place[0])["color"]
    for row, one in enumerate(rows, start=1):
        whisker(axes, row, one.difference, colour)
        size = 3 + 6 * (one.tokens / largest) ** 0.5
        axes.plot(one.difference.value, row, "s", color=colour, markersize=size)
    whisker(axes, 0, whole, INK)
    axes.plot(whole.value, 0, "D", color=INK, markersize=7)
    axes.set_xlabel(f"{place[0]} minus {results.baseline}, nats per token  (left is better)", color=INK)
    return figure


def laws_figure(results: Results, laws: Sequence[Law]) -> Figure | None:
    """Losses of finished runs by tokens read, the law of each arm, and beside them the savings."""
    if len(laws) < 2:
        return None
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    axes, savings = figure.subplots(1, 2)
    for law in laws:
        style = arm_style(results, law.arm)
        along = np.geomspace(law.tokens[0], law.tokens[-1], 60)
        curve = [float(predicted((law.floor, law.scale, law.exponent), at)) for at in along]
        axes.plot(along, curve, color=style["color"], linestyle=style["linestyle"], linewidth=1.3)
        axes.plot(law.tokens, law.losses, label=law.arm, **{**style, "linestyle": "", "markersize": 6})
    axes.set_ylabel("loss of finished runs, nats per token", color=INK)
    savings.axhline(1, color=_GREY, linewidth=1.2)
    others = [law for law in laws if law.savings]
    for number, law in enumerate(others):
        shift = 1 + 0.03 * (number - (len(others) - 1) / 2)  # side by side: intervals don't hide each other
        savings.errorbar(
            [tokens * shift for tokens in law.tokens],
            [one.value for one in law.savings],
            yerr=errors(law.savings),
            linewidth=1.4,
            capsize=2.5,
            **arm_style(results, law.arm),
        )
    savings.set_ylabel(f"tokens that {results.baseline} needs, over the arm’s", color=INK)
    ticks = sorted({tokens for law in laws for tokens in law.tokens})
    for one in (axes, savings):
        one.set_xscale("log")
        one.set_xticks(ticks, [short(tokens) for tokens in ticks])
        one.xaxis.set_minor_locator(NullLocator())
        one.set_xlabel("tokens read", color=INK)
        one.grid(color="#e3e7ec")
        one.spines[["top", "right"]].set_visible(False)
    legend_above(figure)
    return figure


def rate_map(results: Results, size: str, budget: str) -> Figure | None:
    """A row an arm, a column a learning rate: what each was judged by, the darker the nearer to the arm's best.

    None where no arm was tuned at this size and budget.
    """
    found = {arm: tuning_losses(results, (arm, size, budget)) for arm in results.arms}
    found = {arm: losses for arm, losses in reversed(found.items()) if len(losses) > 1}
    if not found:
        return None
    rates = sorted({rate for losses in found.values() for rate in losses})
    figure, axes = plot(height=1.2 + 0.42 * max(len(found), 2))
    sideways(axes, list(found))
    axes.grid(visible=False)
    best_of = min if lower_is_better(results.primary) else max
    for row, losses in enumerate(found.values()):
        best = best_of(losses.values())
        for rate, loss in losses.items():
            place, off = rates.index(rate), abs(loss - best) if np.isfinite(loss) else np.inf
            deep = 0.6 * max(0.0, 1 - off / _PALEST)
            axes.add_patch(Rectangle((place - 0.5, row - 0.5), 1, 1, facecolor=_BLUE, alpha=deep, linewidth=0))
            said = f"{loss:.3f}" if np.isfinite(loss) else "diverged"
            axes.text(place, row, said, ha="center", va="center", color=INK, weight="bold" if off == 0 else "normal")
    axes.set_xlim(-0.5, len(rates) - 0.5)
    axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axes.set_xlabel(f"learning rate; {results.primary.rpartition('.')[2]} on the tuning documents", color=INK)
    return figure
