"""The figures of a study's report, each for what the rows have: an arm keeps its colour in all of them.

Intervals are 95 % and of paired differences, except the bands of losses, which are the range over the seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from corpus_teacher.pages.page import INK, PALETTE, plain_axes, plot
from corpus_teacher.study.report.analysis import Analysis, Comparison
from corpus_teacher.study.report.matching import mean_curves
from corpus_teacher.study.report.numbers import unit_of
from corpus_teacher.study.report.results import Place, Results, Row
from corpus_teacher.study.report.statistics import Estimate, Floats, draw_values, estimate, t_quantile
from corpus_teacher.study.row_file import WITH_COUNTS

Buckets: TypeAlias = Callable[[Row], list[Mapping[str, Any]]]
"""The buckets that a row has: label, tokens and nats of each."""

_GREY, _SOFT, _LINE = "#6b7280", "#5f6b7a", "#b8c0ca"
_COLOURS = tuple(colour for colour in PALETTE if colour != _GREY)
_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.75, 2, 2.5, 3, 4, 5, 6, 8, 16, 32)
_LATE = 0.15  # of a run: from there on its curve fits into the figure
_MARKERS = "osD^vPX*"
_FEWEST = 30  # tokens of a point that is drawn: fewer are noise
_BUCKETS = {
    "context_count": "occurrences of the context in the index",
    "match_len": "longest match of the context, tokens",
    "token_frequency": "occurrences of the token in the index",
    "copied": "the token, to the text before it",
}


def differences(results: Results, analysis: Analysis, size: str, budget: str) -> Figure:
    """Each arm's difference from the baseline with its interval, a row an arm."""
    found = list(reversed(analysis.at(size, budget)))
    figure, axes = plot(height=1.3 + 0.42 * max(len(found), 2))
    sideways(axes, [one.place[0] for one in found])
    axes.axvline(0, color=_LINE, linewidth=1.2)
    for row, one in enumerate(found):
        colour, value = arm_style(results, one.place[0])["color"], one.difference
        whisker(axes, row, value, colour)
        axes.plot(value.value, row, "o", color=colour, markersize=7)
    better = "left is better" if not found or found[0].lower_is_better else "right is better"
    axes.set_xlabel(
        f"{results.primary} minus that of {results.baseline},{unit_of(results.primary)}  ({better})", color=INK
    )
    return figure


def learning_curves(results: Results, size: str, budget: str) -> Figure | None:
    """Held-out loss against tokens read, and beside it each arm's gain on the baseline along the run."""
    curves: dict[str, tuple[Floats, Floats]] = {}
    for arm in results.arms:
        place = (arm, size, budget)
        found = mean_curves(results, place, results.common_seeds([place]))
        if found is not None:
            curves[arm] = found
    if not curves:
        return None
    figure = Figure(figsize=(9.6, 4.8), layout="constrained")
    axes, gains = figure.subplots(1, 2)
    for arm, (tokens, nats) in curves.items():
        style = {**arm_style(results, arm), "marker": ""}
        axes.plot(tokens / 1e6, nats.mean(axis=0), linewidth=1.6, label=arm, **style)
        axes.fill_between(
            tokens / 1e6, nats.min(axis=0), nats.max(axis=0), color=style["color"], alpha=_pale(results), linewidth=0
        )
    late = [nats[:, tokens >= _LATE * tokens[-1]] for tokens, nats in curves.values()]
    low, high = min(float(one.min()) for one in late), max(float(one.max()) for one in late)
    axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))  # the beginning would leave the rest flat
    axes.set_ylabel("held-out loss, nats per token", color=INK)
    gains.axhline(0, color=_LINE, linewidth=1.2)
    _gains_along(gains, results, size, budget)
    gains.set_ylabel(f"gain on {results.baseline}, nats per token", color=INK)
    for one in (axes, gains):
        plain_axes(one)
        one.set_xlabel("million tokens read", color=INK)
    legend_above(figure)
    return figure


def speed_up_bars(results: Results, analysis: Analysis, size: str) -> Figure | None:
    """Speed-up over the baseline with its interval, a bar for each arm and budget."""
    found = [
        (one.place[0], one.place[2], one.speed_up.estimate)
        for one in analysis.comparisons
        if one.place[1] == size and one.speed_up.estimate is not None
    ]
    if not found:
        return None
    found.sort(key=lambda one: (results.arms.index(one[0]), results.budgets.index(one[1])), reverse=True)
    several = len({budget for _, budget, _ in found}) > 1
    figure, axes = plot(height=1.3 + 0.36 * max(len(found), 2))
    sideways(axes, [f"{arm}, {budget}" if several else arm for arm, budget, _ in found])
    axes.axvline(1, color=_LINE, linewidth=1.2)
    for row, (arm, _, value) in enumerate(found):
        colour = arm_style(results, arm)["color"]
        axes.barh(row, value.value - 1, left=1, height=0.6, color=colour, alpha=0.4, linewidth=0)
        whisker(axes, row, value, colour)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, _RATIOS[0]), min(high, _RATIOS[-1]))  # an interval without an end would hide all others
    _plain_ticks(axes.xaxis, _RATIOS, axes.get_xlim())
    axes.set_xlabel(
        f"tokens that {results.baseline} needs for the arm’s loss, over the arm’s  (right is better)", color=INK
    )
    return figure


def gain_by_bucket(results: Results, size: str, budget: str) -> Figure | None:
    """Nats that each arm gains on the baseline, by what the corpus and the text before know of the token.

    An arm whose training text has another index than the baseline's has other tokens in its buckets, and is left out.
    """
    return _gains(results, size, budget, {words: partial(_buckets, kind=kind) for kind, words in _BUCKETS.items()})


def gain_by_entropy(results: Results, size: str, budget: str) -> Figure | None:
    """Nats that each arm gains on the baseline, by how unsure the counts are: alone, and with them mixed into both.

    On the domain of the primary metric. None where the study mixes no counts in.
    """
    domain = results.primary_domain + WITH_COUNTS
    panels = {
        "entropy of the counts, nats": partial(_by_entropy, domain=domain, of="student"),
        "the same, counts mixed into both": partial(_by_entropy, domain=domain, of="mixture"),
    }
    return _gains(results, size, budget, panels)


def _gains(results: Results, size: str, budget: str, panels: Mapping[str, Buckets]) -> Figure | None:
    """A panel of each way to sort tokens into buckets, those that the rows have; None without any."""
    found = {
        words: (buckets, labels)
        for words, buckets in panels.items()
        if (labels := _bucket_labels(results, size, budget, buckets))
    }
    if not found or len(results.arms) < 2:
        return None
    wide = math.ceil(len(found) / 2) if len(found) > 1 else 1
    figure = Figure(figsize=(9.6, 0.6 + 3.6 * wide), layout="constrained")
    for number, (words, (buckets, labels)) in enumerate(found.items(), start=1):
        axes = figure.add_subplot(wide, min(len(found), 2), number)
        plain_axes(axes)
        axes.axhline(0, color=_LINE, linewidth=1.2)
        total = sum(labels.values())
        _gain_lines(axes, results, size, budget, buckets, list(labels))
        ticks = [f"{label}\n{tokens / total:.0%}" for label, tokens in labels.items()]
        axes.set_xticks(range(len(labels)), ticks, fontsize=8.5)
        axes.set_xlabel(f"{words} (share of tokens)", color=INK, fontsize=9.5)
        if number % 2:
            axes.set_ylabel("gain, nats per token", color=INK)
    legend_above(figure)
    return figure


def gain_by(results: Results, analysis: Analysis, axis: str) -> Figure | None:
    """Gain of each arm against the size of the student, the tokens read, or the passes over the training text.

    Parameters
    ----------
    results, analysis
    axis : {"parameters", "tokens", "passes"}
        The other of size and budget stays at the headline's. None where there are fewer than two values.
    """
    if analysis.headline is None or (axis == "parameters" and len(results.sizes) < 2):
        return None  # an arm may be a larger student, such as one that teaches others: that is no size of the study
    size, budget = analysis.headline
    fixed = 2 if axis == "parameters" else 1
    found = [one for one in analysis.comparisons if one.place[fixed] == (budget if fixed == 2 else size)]
    at = {one.place: _position(results, one, axis) for one in found}
    ticks = sorted({value for value in at.values() if value})
    if len(ticks) < 2:
        return None
    figure, axes = plot(height=4.6)
    axes.axhline(0, color=_LINE, linewidth=1.2)
    others = [arm for arm in results.arms[1:] if any(one.place[0] == arm for one in found)]
    spread = math.log(ticks[-1] / ticks[0]) * 0.012
    for number, arm in enumerate(others):
        own = sorted((at[one.place] or 0.0, one) for one in found if one.place[0] == arm and at[one.place])
        shift = math.exp((number - (len(others) - 1) / 2) * spread)  # side by side: intervals don't hide each other
        ends = [_turned(one.difference) if one.lower_is_better else one.difference for _, one in own]
        axes.errorbar(
            [place * shift for place, _ in own],
            [one.value for one in ends],
            yerr=errors(ends),
            linewidth=1.6,
            capsize=2.5,
            label=arm,
            **arm_style(results, arm),
        )
    axes.set_xscale("log")
    axes.set_xticks(ticks, [short(value) for value in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    names = {
        "parameters": "parameters of the student",
        "tokens": "tokens read",
        "passes": "passes over the training text",
    }
    axes.set_xlabel(names[axis], color=INK)
    axes.set_ylabel(f"gain in {results.primary},{unit_of(results.primary)}", color=INK)
    legend_above(figure)
    return figure


def reliability(results: Results, size: str, budget: str) -> Figure | None:
    """How often the likeliest token is the next one, against the probability that it was given; seeds together."""
    found = {arm: _bins(list(results.runs.get((arm, size, budget), {}).values())) for arm in results.arms}
    if not any(found.values()):
        return None
    figure, axes = plot(height=5.2)
    axes.plot([0, 1], [0, 1], color=_LINE, linewidth=1, linestyle="--")
    for arm, points in found.items():
        if points:
            axes.plot(*zip(*points, strict=True), linewidth=1.6, label=arm, **arm_style(results, arm))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("probability of the likeliest token", color=INK)
    axes.set_ylabel("how often it is the next one", color=INK)
    legend_above(figure)
    return figure


def _gains_along(axes: Axes, results: Results, size: str, budget: str) -> None:
    """Paired gains with 95 % intervals over the seeds."""
    for arm in results.arms[1:]:
        places = [(results.baseline, size, budget), (arm, size, budget)]
        seeds = results.common_seeds(places)
        both = [mean_curves(results, place, seeds) for place in places]
        if both[0] is None or both[1] is None:
            continue
        tokens = np.intersect1d(both[0][0], both[1][0])
        gain = both[0][1][:, np.isin(both[0][0], tokens)] - both[1][1][:, np.isin(both[1][0], tokens)]
        style, mean = {**arm_style(results, arm), "marker": ""}, gain.mean(axis=0)
        axes.plot(tokens / 1e6, mean, linewidth=1.6, **style)
        if len(seeds) > 1:
            width = t_quantile(0.975, len(seeds) - 1) * gain.std(axis=0, ddof=1) / math.sqrt(len(seeds))
            axes.fill_between(
                tokens / 1e6, mean - width, mean + width, color=style["color"], alpha=_pale(results), linewidth=0
            )


def _position(results: Results, one: Comparison, axis: str) -> float | None:
    if axis != "passes":
        return results.mean(one.place, axis)
    found = [results.passes(row) for row in results.runs[one.place].values()]
    known = [round(value, 1) or value for value in found if value is not None]
    return known[0] if known and len(known) == len(found) else None


def _bins(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """Confidence and accuracy of each bin with enough tokens, over all rows."""
    sums: dict[int, list[float]] = {}
    for row in rows:
        bins = (row.get("metrics", {}).get("in") or {}).get("reliability") or []
        for one in bins:
            some = sums.setdefault(min(int(one["confidence"] * 15), 14), [0.0, 0.0, 0.0])
            for place, value in enumerate((1.0, one["confidence"], one["accuracy"])):
                some[place] += value * one["tokens"]
    kept = [some for _, some in sorted(sums.items()) if some[0] >= _FEWEST * len(rows)]
    return [(confidence / tokens, accuracy / tokens) for tokens, confidence, accuracy in kept]


def _bucket_labels(results: Results, size: str, budget: str, buckets: Buckets) -> dict[str, int]:
    """Labels of the buckets with enough tokens, and their tokens."""
    for row in results.runs.get((results.baseline, size, budget), {}).values():
        return {str(one["label"]): int(one["tokens"]) for one in buckets(row) if one["tokens"] >= _FEWEST}
    return {}


def _buckets(row: Row, kind: str) -> list[Mapping[str, Any]]:
    return list(((row.get("metrics", {}).get("in") or {}).get("buckets") or {}).get(kind) or [])


def _by_entropy(row: Row, domain: str, of: str) -> list[Mapping[str, Any]]:
    found = ((row.get("metrics", {}).get(domain) or {}).get("by_evidence") or {}).get("entropy") or []
    return [{**one, "label": _short_label(one["label"]), "nats": one[of]} for one in found]


def _short_label(label: str) -> str:
    """Seven of them fit below a panel: "1–2" for "1 to below 2", "< 1", "6+"."""
    return label.replace(" to below ", "–").replace("below", "<").replace(" and more", "+")


def _gain_lines(axes: Axes, results: Results, size: str, budget: str, buckets: Buckets, labels: Sequence[str]) -> None:
    others = results.arms[1:]
    base = (results.baseline, size, budget)
    for number, arm in enumerate(others):
        place = (arm, size, budget)
        seeds = results.common_seeds([base, place])
        points = [
            (spot, gain) for spot, label in enumerate(labels)
            if (gain := _bucket_gain(results, base, place, seeds, buckets, label)) is not None
        ]  # fmt: skip
        if points:
            ends = [gain for _, gain in points]
            shift = (number - (len(others) - 1) / 2) * min(0.09, 0.5 / len(others))
            axes.errorbar(
                [spot + shift for spot, _ in points],
                [one.value for one in ends],
                yerr=errors(ends),
                linewidth=1.3,
                capsize=2,
                label=arm,
                **arm_style(results, arm),
            )


def _bucket_gain(
    results: Results, base: Place, place: Place, seeds: Sequence[int], buckets: Buckets, label: str
) -> Estimate | None:
    """Baseline minus arm on one bucket; the interval is over the seeds. None where the two hold different tokens."""
    values, tokens = [], set()
    for one in (base, place):
        found = [buckets(results.runs[one][seed]) for seed in seeds]
        tokens |= {tuple(bucket["tokens"] for bucket in row) for row in found}
        known = [bucket["nats"] for row in found for bucket in row if bucket["label"] == label]
        values.append([nats for nats in known if nats is not None])
    if not seeds or len(tokens) > 1 or any(len(known) != len(seeds) for known in values):
        return None
    return estimate(draw_values(values), lambda losses: losses[..., 0] - losses[..., 1])


def arm_style(results: Results, arm: str) -> dict[str, Any]:
    """The baseline is grey; the others take colours in turn, then again with dashes."""
    if arm == results.baseline:
        return {"color": _GREY, "linestyle": "-", "marker": "o", "markersize": 4}
    number = results.arms.index(arm) - 1
    turn = number // len(_COLOURS)
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "linestyle": ("-", "--", ":", "-.")[turn % 4],
        "marker": _MARKERS[(number + 1) % len(_MARKERS)],
        "markersize": 4.5,
    }


def _pale(results: Results) -> float:
    """How much of a band's colour is seen: many bands lie over each other."""
    return 0.15 if len(results.arms) <= 5 else 0.07


def whisker(axes: Axes, row: float, value: Estimate, colour: str) -> None:
    """A lying interval with its ends; nothing where there is none."""
    if not math.isnan(value.low):
        axes.plot([value.low, value.high], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
        for end in (value.low, value.high):
            axes.plot([end, end], [row - 0.13, row + 0.13], color=colour, linewidth=1.4)


def errors(ends: Sequence[Estimate]) -> np.ndarray | None:
    """Lengths of error bars, (2, points); none where there are no intervals."""
    if any(math.isnan(one.low) for one in ends):
        return None
    return np.array([[one.value - one.low for one in ends], [one.high - one.value for one in ends]])


def _turned(one: Estimate) -> Estimate:
    return Estimate(-one.value, -one.high, -one.low, one.p, one.seeds, one.documents)


def sideways(axes: Axes, names: Sequence[str]) -> None:
    """A row a name."""
    axes.grid(visible=False)
    axes.grid(axis="x", color="#e3e7ec")
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set_ylim(-0.6, max(len(names), 1) - 0.4)
    axes.tick_params(axis="y", length=0, labelcolor=INK)


def _plain_ticks(axis: Any, values: Sequence[float], limits: tuple[float, float]) -> None:
    """Plain numbers on a logarithmic axis; fewer where they would touch."""
    inside = [value for value in values if limits[0] <= value <= limits[1]]
    least = math.log(limits[1] / limits[0]) / 12
    kept: list[float] = []
    for value in sorted(inside, key=lambda value: (value != 1, abs(math.log(value)))):
        if all(abs(math.log(value / other)) >= least for other in kept):
            kept.append(value)
    axis.set_ticks(sorted(kept))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def legend_above(figure: Figure) -> None:
    """One legend over all axes, outside of them."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if labels:
        columns = max(1, min(len(labels), 100 // (max(map(len, labels)) + 8)))
        figure.legend(
            handles, labels, loc="outside upper left", ncols=columns, frameon=False, fontsize=9.5, labelcolor=INK
        )


def short(value: float) -> str:
    """1.1 M, 64 k, 4."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
