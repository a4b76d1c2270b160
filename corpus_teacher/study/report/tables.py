"""The tables of a study's report, as rows of texts: the page and the Markdown print the same ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corpus_teacher.study.report.analysis import BETTER, Analysis
from corpus_teacher.study.report.contrasts import Contrast
from corpus_teacher.study.report.fits import FAR, Law
from corpus_teacher.study.report.matching import Matched, curve, loss_metric
from corpus_teacher.study.report.numbers import NOTHING, interval, number, p_text, plural, ratio, signed
from corpus_teacher.study.report.results import Place, Results, Row, tuning_losses
from corpus_teacher.study.report.statistics import difference

_HEADS = ("arm", "size", "budget")
_OF_A_DOMAIN = {
    "nats": "nats/token",
    "bits_per_byte": "bits/byte",
    "top1": "top-1, %",
    "ece": "ECE, %",
    "adaptive_ece": "adaptive ECE, %",
    "brier": "Brier",
}
_OF_A_LEARNER = {
    "fidelity.kl_nats": "KL from the teacher, nats",
    "fidelity.top1": "top-1 as the teacher’s, %",
    "induction.nats_first": "random sequence, nats",
    "induction.nats_second": "repeated, nats",
    "induction.accuracy": "repeated, accuracy, %",
}
_OF_A_MEMORY = {"extraction.rate": "extracted verbatim, %", "extraction.tokens_right": "tokens verbatim, %"}


@dataclass(frozen=True)
class Table:
    """A table.

    Parameters
    ----------
    head : tuple of str
    rows : tuple of tuple of str
    best : tuple of bool
        Rows in bold.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: tuple[bool, ...] = ()


def markdown(table: Table) -> str:
    """A table in Markdown; the first column is left, the others are right."""
    lines = [table.head, ("---", *["---:"] * (len(table.head) - 1))]
    for place, row in enumerate(table.rows):
        bold = place < len(table.best) and table.best[place]
        lines.append(tuple(f"**{_escaped(text)}**" if bold and text != NOTHING else _escaped(text) for text in row))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def arms(results: Results, analysis: Analysis, places: Sequence[tuple[str, str]]) -> Table:
    """Every arm at some sizes and budgets: the primary metric, its difference from the baseline, the verdict."""
    found = {one.place: one for one in analysis.comparisons}
    best = {
        max(some, key=lambda one: one.gain).place
        for place in places
        if (some := [one for one in analysis.at(*place) if one.verdict == BETTER])
    }
    rows, bold, shown = [], [], [place for size, budget in places for place in _arms_at(results, size, budget)]
    columns = _columns(results) if len(places) > 1 else (0,)
    for place in shown:
        values, one = results.values(place, results.primary), found.get(place)
        names = tuple(place[column] for column in columns)
        if not values:
            row = ("not run", *[NOTHING] * 5)
        elif one is None:
            said = "baseline" if place[0] == results.baseline else "no seed in common"
            row = (number(sum(values) / len(values)), f"{len(values)}", NOTHING, NOTHING, said, NOTHING)
        else:
            shift = f"{signed(one.difference.value)} {interval(one.difference)}"
            p = p_text(one.p_holm, alone=True)
            row = (number(one.value), f"{one.difference.seeds}", shift, p, one.verdict, _speed(one.speed_up))
        rows.append((*names, *row))
        bold.append(place in best)
    minus = f"− {results.baseline} [95 %]"
    head = (*_heads(columns), results.primary, "seeds", minus, "p (Holm)", "verdict", "token speed-up [95 %]")
    return Table(head, tuple(rows), tuple(bold))


def contrasts(named: Sequence[Contrast]) -> Table:
    """The comparisons that the study names."""
    rows = []
    for one in named:
        shift = NOTHING if one.difference is None else f"{signed(one.difference.value)} {interval(one.difference)}"
        rows.append((*one.names, shift, p_text(one.p_holm, alone=True), one.verdict))
    return Table(("arm", "against", "difference [95 %]", "p (Holm)", "verdict"), tuple(rows))


def counts_alone(results: Results, size: str, budget: str) -> Table:
    """What n-grams of the index reach on the tokens of the primary metric, and each arm's own teacher; nats per token.

    Without rows where the trainings weren't given these references.
    """
    domain = results.primary_domain
    found: dict[str, float] = {}
    for place in _arms_at(results, size, budget):
        for row in results.runs.get(place, {}).values():
            for name, nats in ((row.get("references") or {}).get(domain) or {}).items():
                found[f"the teacher of {place[0]}" if name == "the teacher" else str(name)] = nats
    ordered = sorted(found.items(), key=lambda one: one[0].startswith("the teacher of"))
    return Table(("counts", "nats/token"), tuple((name, number(nats)) for name, nats in ordered))


def speed_ups(results: Results, analysis: Analysis) -> Table:
    """Tokens of the baseline for a loss over the arm's, with how that was read and how far it may be off."""
    rows, columns = [], _columns(results)
    for one in analysis.comparisons:
        found = one.speed_up
        error = NOTHING if math.isnan(found.error) else f"±{math.expm1(found.error):.1%}"
        value = ratio(found.estimate) if found.estimate else NOTHING
        saved = NOTHING if found.estimate is None else f"{signed(100 * (1 - 1 / found.estimate.value), 1)} %"
        tokens = results.mean(one.place, "tokens")
        names = tuple(one.place[column] for column in columns)
        rows.append((*names, f"{tokens:,.0f}" if tokens else NOTHING, value, saved, error, found.how))
    return Table(
        (*_heads(columns), "tokens read", "speed-up [95 %]", "tokens saved", "interpolation", "read"), tuple(rows)
    )


def stopped_early(results: Results, size: str, budget: str) -> Table:
    """The end of each arm's learning curve beside its lowest evaluation, means over the seeds."""
    rows = []
    for place in _arms_at(results, size, budget):
        curves = [curve(row) for row in results.runs.get(place, {}).values()]
        if not curves or any(not len(tokens) for tokens, _ in curves):
            continue
        ends = [float(nats[-1]) for _, nats in curves]
        lowest = [float(nats.min()) for _, nats in curves]
        at = [float(tokens[nats.argmin()] / tokens[-1]) for tokens, nats in curves]
        shares = f"{sum(at) / len(at):.0%}"
        rows.append((place[0], number(sum(ends) / len(ends)), number(sum(lowest) / len(lowest)), shares))
    return Table(("arm", "at the end", "lowest", "after"), tuple(rows))


def laws(found: Sequence[Law]) -> Table:
    """The law of each arm, and the tokens that it saves at each of its budgets."""
    rows = []
    for law in found:
        terms = (number(law.floor, 2), number(law.scale, 2), number(law.exponent, 2), number(law.misfit))
        far = NOTHING if law.far_saving is None else ratio(law.far_saving)
        far = "not read: the law misses its points" if law.savings and law.far_saving is None else far
        pairs = zip(law.savings, law.lack_of_fit, strict=True)
        savings = [f"{ratio(one)} ({_bound(low)} to {_bound(high)})" for one, (low, high) in pairs]
        rows.append((law.arm, *terms, *(savings or [NOTHING] * len(law.tokens)), far))
    tokens = [f"× at {tokens / 1e6:.2g} M [95 %] (lack of fit)" for tokens in found[0].tokens]
    far = f"× at {FAR:g} times the last [95 %]"
    return Table(("arm", "E", "A", "b", "misfit", *tokens, far), tuple(rows))


def _bound(value: float) -> str:
    """An end of a range of ratios."""
    return "> 100" if value > 100 else f"{value:.2f}"


def compute(results: Results, analysis: Analysis) -> Table:
    """The difference at equal tokens beside that at equal CPU time (at equal seconds on another device)."""
    rows, columns, unit = [], _columns(results), "CPU time" if results.cost == "cpu_s" else "seconds"
    for one in analysis.comparisons:
        base = (results.baseline, *one.place[1:])
        own, theirs = results.mean(one.place, results.cost), results.mean(base, results.cost)
        cost = f"{own:,.0f} s" if own is not None else NOTHING
        times = f"{own / theirs:.2f}" if own is not None and theirs else NOTHING
        matched, error = one.compute.estimate, one.compute.error
        shift = f"{signed(matched.value)} {interval(matched)}" if matched else NOTHING
        draws = results.draws([base, one.place], loss_metric(results))
        plain = difference(draws) if draws is not None else None
        at_tokens = f"{signed(plain.value)} {interval(plain)}" if plain else NOTHING
        off = NOTHING if math.isnan(error) else f"±{error:.3f}"
        names = tuple(one.place[column] for column in columns)
        rows.append((*names, cost, times, at_tokens, shift, off, one.compute.how))
    head = (
        *_heads(columns),
        unit,
        f"× {results.baseline}",
        "at equal tokens",
        f"at equal {unit}",
        "interpolation",
        "read",
    )
    return Table(head, tuple(rows))


def domain(results: Results, size: str, budget: str, name: str) -> Table:
    """All measures on one text, each with its difference from the baseline; not corrected for their number."""
    return _measures(results, size, budget, {f"{name}.{key}": head for key, head in _OF_A_DOMAIN.items()})


def student(results: Results, size: str, budget: str) -> Table:
    """Fidelity and induction; not corrected for their number."""
    return _measures(results, size, budget, _OF_A_LEARNER)


def memory(results: Results, size: str, budget: str) -> Table:
    """Extraction and novelty; not corrected for their number."""
    rows = [row for place in _arms_at(results, size, budget) for row in results.runs.get(place, {}).values()]
    lengths = {key for row in rows for key in row.get("metrics", {}).get("novelty") or {}}
    novelty = {f"novelty.{key}": f"new {key}-grams, %" for key in sorted(lengths, key=lambda key: (len(key), key))}
    return _measures(results, size, budget, _OF_A_MEMORY | novelty)


def learning_rates(results: Results) -> Table:
    """The rates that the tuning seed chose, the losses it chose by, and whether the grid ended there."""
    rows, columns = [], _columns(results)
    for place in _places(results):
        runs = results.runs[place].values()
        chosen = sorted({float(row["learning_rate"]) for row in runs if "learning_rate" in row})
        losses = tuning_losses(results, place)
        declared = [float(rate) for rate in results.settings.get("learning_rates") or ()]
        ends = set(chosen) & {min(losses), max(losses)} if len(losses) > 1 else set()
        where = "at the end of the grid" if ends else "inside of the grid" if len(losses) > 1 else "not tuned"
        if len(chosen) > 1:
            where = "differs between seeds"
        tried = [f"{rate:g} ({number(loss)})" for rate, loss in losses.items()]
        grid = ", ".join(tried or [f"{rate:g}" for rate in declared])
        names = tuple(place[column] for column in columns)
        rows.append((*names, ", ".join(f"{rate:g}" for rate in chosen) or NOTHING, where, grid or NOTHING))
    head = (*_heads(columns), "learning rate", "where", "grid (metric on the tuning documents)")
    return Table(head, tuple(rows))


def costs(results: Results) -> Table:
    """What a run took, means over the seeds."""
    rows, columns = [], _columns(results)
    for place in _places(results):
        mean = {key: results.mean(place, key) for key in ("seconds", "cpu_s", "teacher_s", "loader_s", "tokens")}
        memory, parameters = results.mean(place, "peak_memory_bytes"), results.mean(place, "parameters")
        seconds = mean["seconds"]
        parts = [mean[key] for key in ("teacher_s", "loader_s")]
        shares = [f"{part / seconds:.1%}" if seconds and part is not None else NOTHING for part in parts]
        rows.append(
            (
                *(place[column] for column in columns),
                f"{parameters:,.0f}" if parameters else NOTHING,
                f"{mean['tokens']:,.0f}" if mean["tokens"] else NOTHING,
                number(seconds, 0),
                number(mean["cpu_s"], 0),
                *shares,
                f"{memory / 2**30:.2f} GiB" if memory else NOTHING,
            )
        )
    head = (*_heads(columns), "parameters", "tokens", "seconds", "CPU s", "teacher", "loader", "peak memory")
    return Table(head, tuple(rows))


def environment(results: Results) -> list[tuple[str, str]]:
    """Settings, versions, commits, machines, time: what was the same for all runs, and what was not."""
    rows = results.rows
    settings = results.settings
    tuning = sum(len(some) for some in results.tuning.values())
    seconds = sum(float(row.get("seconds", 0)) for row in rows)
    started = sorted(str(row["started"]) for row in rows if "started" in row)
    facts = [
        ("form", str(settings.get("form", NOTHING))),
        ("primary metric", f"{results.primary}, named in the study's settings before the run"),
        ("baseline", results.baseline),
        ("seeds", f"{settings['seeds']}, paired: the same first weights and order of the data for every arm"),
        (
            "runs",
            f"{plural(len(rows), 'finished run')}, {plural(tuning, 'tuning run')}, {seconds / 3600:.1f} h of training",
        ),
        ("started", f"{started[0]} to {started[-1]}" if started else NOTHING),
    ]
    facts += [(name, _distinct(rows, key)) for name, key in (("commit", "commit"), ("machine", "machine"))]
    facts.append(("versions", _distinct(rows, "versions")))
    return facts


def _measures(results: Results, size: str, budget: str, columns: Mapping[str, str]) -> Table:
    present = {
        metric: head
        for metric, head in columns.items()
        if any(results.values((arm, size, budget), metric) for arm in results.arms)
    }
    base, rows = (results.baseline, size, budget), []
    for place in _arms_at(results, size, budget):
        cells = []
        for metric, head in present.items():
            values = results.values(place, metric)
            scale, digits = (100, 2) if head.endswith("%") else (1, 3)
            text = number(scale * sum(values) / len(values), digits) if values else NOTHING
            draws = results.draws([base, place], metric) if place != base and values else None
            if draws is not None:
                one = difference(draws)
                spread = "" if math.isnan(one.low) else f" ± {number(scale * one.half_width, digits)}"
                text += f" ({signed(scale * one.value, digits)}{spread})"
            cells.append(text)
        if any(cell != NOTHING for cell in cells):
            rows.append((place[0], *cells))
    return Table(("arm", *present.values()), tuple(rows))


def _speed(found: Matched) -> str:
    return NOTHING if found.estimate is None else ratio(found.estimate)


def _columns(results: Results) -> tuple[int, ...]:
    """The arm, and size and budget where there are several of them."""
    return (0, *([1] if len(results.sizes) > 1 else []), *([2] if len(results.budgets) > 1 else []))


def _heads(columns: Sequence[int]) -> tuple[str, ...]:
    return tuple(_HEADS[column] for column in columns)


def _arms_at(results: Results, size: str, budget: str) -> list[Place]:
    return [(arm, size, budget) for arm in results.arms]


def _places(results: Results) -> list[Place]:
    """In the order of sizes, budgets, arms."""
    grid = [(arm, size, budget) for size in results.sizes for budget in results.budgets for arm in results.arms]
    return [place for place in grid if place in results.runs]


def _distinct(rows: Sequence[Row], key: str) -> str:
    """What the rows say of it: one text, or all of them with how many rows say so."""
    said: dict[str, int] = {}
    for row in rows:
        value = row.get(key)
        text = ", ".join(f"{name} {one}" for name, one in value.items()) if isinstance(value, Mapping) else str(value)
        said[text] = said.get(text, 0) + 1
    if len(said) <= 1:
        return next(iter(said), NOTHING)
    parts = [f"{text} ({plural(count, 'run')})" for text, count in sorted(said.items())]
    return f"not the same for all: {'; '.join(parts)}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
