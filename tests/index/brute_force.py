"""Counts, types and leave-outs by brute force, and every estimator's formula over them; shares nothing with the twins.

A corpus is a list of *events*: (what stands before, as a string of symbols led by "^"; the token; its document; its
place). To leave something out is to strike events from the list: the one at the own place, or those of a document.
Everything else is a filter over what is left.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple


class Event(NamedTuple):
    """One token of the corpus, and all that stands before it in its document."""

    before: str
    token: int
    document: int
    place: int


class BruteForce:
    """A corpus of small ids, written as letters."""

    def __init__(self, documents: list[list[int]], vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.events = [
            Event("^" + "".join(chr(97 + one) for one in document[:place]), token, number, place)
            for number, document in enumerate(documents)
            for place, token in enumerate(document)
        ]

    def left(self, own: Event, leave_out: str | None) -> list[Event]:
        """The events that are left at a position."""
        if leave_out == "self":
            return [event for event in self.events if event != own]
        if leave_out == "document":
            return [event for event in self.events if event.document != own.document]
        return self.events


def occurrences(events: list[Event], h: str) -> dict[int, int]:
    """c(h w) by w."""
    found: dict[int, int] = defaultdict(int)
    for event in events:
        if event.before.endswith(h):
            found[event.token] += 1
    return dict(found)


def types(events: list[Event], h: str) -> dict[int, int]:
    """By w, how many different symbols stand before h w; occurrences where nothing can."""
    if h.startswith("^"):
        return occurrences(events, h)
    found: dict[int, set[str]] = defaultdict(set)
    for event in events:
        if event.before.endswith(h):
            found[event.token].add(event.before[-len(h) - 1])
    return {token: len(symbols) for token, symbols in found.items()}


def at(values: Any, order: int) -> Any:
    """The parameters of an order; the last ones go on."""
    return values[order] if order < len(values) else values[-1]


def distribution(corpus: BruteForce, estimator: Any, own: Event, leave_out: str | None) -> list[float]:
    """p(w | what stands before the own position) for all w, the position or its document left out."""
    events, vocab = corpus.left(own, leave_out), range(corpus.vocab_size)
    bound = len(own.before) if estimator.max_order is None else min(estimator.max_order, len(own.before))
    suffixes = [own.before[len(own.before) - n :] for n in range(bound + 1)]
    chain = [h for h in suffixes[1:] if occurrences(events, h)]  # nested, so these are the first ones
    whole_chain = [h for h in suffixes[1:] if occurrences(corpus.events, h)]
    name = estimator.name
    unigrams = occurrences(events, "")
    if name in ("mle", "add-k"):
        counts = occurrences(events, chain[-1]) if chain else unigrams
        k = estimator.k if name == "add-k" else 0.0
        total = sum(counts.values()) + k * corpus.vocab_size
        return [(counts.get(w, 0) + k) / total if total else 1 / corpus.vocab_size for w in vocab]
    distinct = len({event.token for event in corpus.events})
    smoothed = [
        (unigrams.get(w, 0) + distinct / corpus.vocab_size) / (sum(unigrams.values()) + distinct) for w in vocab
    ]
    if name == "ppm-c":
        return _ppm_c(events, chain, smoothed)
    if name in ("katz", "stupid-backoff"):
        p = smoothed
        for n, h in enumerate(chain, 1):
            p = (
                _katz(occurrences(events, h), at(estimator.ratios, n), p)
                if name == "katz"
                else _stupid(occurrences(events, h), estimator.alpha, p)
            )
        return [one / sum(p) for one in p]
    if not name.endswith("kneser-ney") and name not in ("pitman-yor", "auto"):
        p = smoothed
        for n, h in enumerate(chain, 1):
            p = _mix(occurrences(events, h), _rule(estimator, n, occurrences(events, h)), p)
        return p
    counts = unigrams if estimator.max_order == 0 else types(events, "")
    uniform = [1 / corpus.vocab_size] * corpus.vocab_size
    cuts = at(estimator.discounts, 0)
    p = _mix(counts, _discounted(counts, cuts), uniform) if counts else uniform
    branching = name in ("pitman-yor", "auto")
    for n, h in enumerate(chain, 1):
        preceding = {event.before[-n - 1 :][:1] for event in corpus.events if event.before.endswith(h) and h[0] != "^"}
        if branching and n < len(whole_chain) and len(preceding) < 2:
            continue
        top = n == estimator.max_order or (estimator.max_order is None and not branching and n == len(chain))
        counts = occurrences(events, h) if top else types(events, h)
        p = _mix(counts, _rule(estimator, n, counts), p)
    return p


Rule = tuple[tuple[float, float, float], float, float]  # what counts lose, a factor, what is passed on


def _mix(counts: dict[int, int], rule: Rule, below: list[float]) -> list[float]:
    cuts, factor, passed = rule
    own = {w: (count - cuts[min(count, 3) - 1]) * factor for w, count in counts.items()}
    return [own.get(w, 0.0) + passed * p for w, p in enumerate(below)]


def _discounted(counts: dict[int, int], cuts: Any) -> Rule:
    total = sum(counts.values())
    return tuple(cuts), 1 / total, sum(cuts[min(count, 3) - 1] for count in counts.values()) / total


def _rule(estimator: Any, n: int, counts: dict[int, int]) -> Rule:
    total, distinct, nothing = sum(counts.values()), len(counts), (0.0, 0.0, 0.0)
    if estimator.name == "witten-bell":
        return nothing, 1 / (total + distinct), distinct / (total + distinct)
    if estimator.name == "dirichlet":
        mass = at(estimator.strengths, n)[0]
        return nothing, 1 / (total + mass), mass / (total + mass)
    if estimator.name == "jelinek-mercer":
        weight = at(at(estimator.strengths, n), len(f"{total:b}") - 1)
        return nothing, weight / total, 1 - weight
    if estimator.name == "pitman-yor":
        discount, theta = at(estimator.discounts, n)[0], at(estimator.strengths, n)[0]
        return (discount,) * 3, 1 / (total + theta), (theta + discount * distinct) / (total + theta)
    if estimator.name == "auto":
        orders, lengths, shares = (int(size) for size in estimator.strengths[0][:3])
        line = (min(n, orders) - 1) * lengths + min(len(f"{total:b}") - 1, lengths - 1)
        weight, *cuts = estimator.strengths[1 + line * shares + distinct * (shares - 1) // total]
        kept = sum(count - cuts[min(count, 3) - 1] for count in counts.values())
        return tuple(cuts), weight / kept, 1 - weight
    return _discounted(counts, at(estimator.discounts, n))


def _katz(counts: dict[int, int], ratios: Any, below: list[float]) -> list[float]:
    kept = {w: count * (ratios[count - 1] if count <= len(ratios) else 1.0) for w, count in counts.items()}
    total = sum(counts.values())
    saved = total - sum(kept.values())
    if len(counts) == len(below):
        return [kept[w] / sum(kept.values()) for w in range(len(below))]
    if not any(count <= len(ratios) and ratios[count - 1] < 1 for count in counts.values()):
        saved, total = 1.0, total + 1
    unseen = sum(p for w, p in enumerate(below) if w not in counts)
    return [kept[w] / total if w in counts else saved / total * p / unseen for w, p in enumerate(below)]


def _stupid(counts: dict[int, int], alpha: float, below: list[float]) -> list[float]:
    total = sum(counts.values())
    return [counts[w] / total if w in counts else alpha * p for w, p in enumerate(below)]


def _ppm_c(events: list[Event], chain: list[str], lowest: list[float]) -> list[float]:
    p, mass = dict[int, float](), 1.0
    for h in reversed(chain):
        new = {w: count for w, count in occurrences(events, h).items() if w not in p}
        escapes = len(new) if len(p) + len(new) < len(lowest) else 0
        total = sum(new.values()) + escapes
        p |= {w: mass * count / total for w, count in new.items()}
        mass *= escapes / total if new else 1.0
    others = sum(one for w, one in enumerate(lowest) if w not in p)
    return [p[w] if w in p else mass * one / others for w, one in enumerate(lowest)]
