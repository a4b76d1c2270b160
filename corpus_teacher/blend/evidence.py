"""What is known of a position that speaks for or against a teacher, and what a weight makes of it.

A measure is a number a position: how long the matched context is, how often it occurs, how unsure a teacher is, how
far two teachers agree. An `Evidence` turns it into a factor from 0 to 1.

Two teachers are compared on the explicit tokens of the corpus' target, all other tokens as one: with S those tokens and
p, q the two distributions, P = p on S and 1 − p(S) beyond, Q likewise. Merging tokens only brings distributions
nearer: the divergence is at most, the overlap at least that over the whole vocabulary. O(pairs) and no dense row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from corpus_teacher.blend.components import Components, DenseTargets, Targets
from corpus_teacher.errors import ConfigError
from corpus_teacher.settings import check_known, is_number, make_from
from corpus_teacher.targets.soft import SoftTargets

SPEAKERS = ("corpus", "neural", "self", "student")
"""Whose entropy, or whose probability of the label, can be asked for."""

CARRIED = ("distinct",)
"""Measures that a batch carries beside its targets, as `CorpusTeacher.evidence` makes them: a new one is a word here
and a row of the teacher's table."""

_OF_ONE = ("entropy", "label_probability")
_OF_TWO = ("top1_agreement", "overlap", "js_divergence")


@dataclass(frozen=True)
class Evidence:
    """A factor from 0 to 1 of a measure x: a ramp, ``clip((x − low) / (high − low), 0, 1)``, or ``x / (x + half)``.

    Parameters
    ----------
    by : str
        The measure x. Of the corpus' context: "match_len" (tokens), "count" (occurrences), "distinct" (continuations).
        Of one teacher: "entropy" (nats), "label_probability". Of the corpus and another teacher: "top1_agreement" (0 or
        1), "overlap" (Σ min(P, Q), 0 to 1), "js_divergence" (of P and Q, over ln 2: 0 to 1).
    of : {"corpus", "neural", "self", "student"}, optional
        Whose entropy or label probability: by default of the component that is weighted. Compared with whom: by default
        the neural teacher.
    low, high : float, optional
        Where the ramp's factor is 0 and where it is 1; high below low makes it descend.
    half : float, optional
        Instead of a ramp: the measure whose factor is 1/2, the form of Dirichlet and Witten–Bell smoothing.

    Raises
    ------
    ConfigError
        An unknown measure or teacher, or neither or both of ramp and half.

    Notes
    -----
    Where the measure isn't known (the teacher is silent) the factor is 0. ``by="label_probability", low=1, high=0`` is
    complementary weighting of one teacher: less of it where it knows the label anyway.

    Examples
    --------
    >>> Evidence("match_len", low=1, high=5).factor(torch.tensor([0.0, 2.0, 9.0])).tolist()
    [0.0, 0.25, 1.0]
    >>> Evidence("count", half=2).factor(torch.tensor([0.0, 2.0, 6.0])).tolist()
    [0.0, 0.5, 0.75]
    """

    by: str
    of: str | None = None
    low: float | None = None
    high: float | None = None
    half: float | None = None

    def __post_init__(self) -> None:
        check_known(self.by, MEASURES, "by")
        if self.of is not None:
            if self.by not in _OF_ONE + _OF_TWO:
                raise ConfigError(f"of is {self.of!r}, but {self.by} is always the corpus': leave it out")
            others = tuple(name for name in SPEAKERS if name != "corpus")
            check_known(self.of, SPEAKERS if self.by in _OF_ONE else others, "of")
        for name in ("low", "high", "half"):
            value = getattr(self, name)
            if value is not None and not is_number(value):
                raise ConfigError(f"{name} is {value!r}: give a number")
        ramp = self.low is not None and self.high is not None and self.half is None
        saturating = self.low is None and self.high is None and self.half is not None
        if not ramp and not saturating:
            raise ConfigError("give either low and high, or half")
        if ramp and self.low == self.high:
            raise ConfigError(f"low and high are both {self.low}: give two different numbers")
        if self.half is not None and self.half <= 0:
            raise ConfigError(f"half is {self.half}: give a positive number")

    def factor(self, measure: Tensor) -> Tensor:
        """The factor of each value, same shape."""
        if self.half is not None:
            return measure / (measure + self.half)
        low, high = float(self.low or 0), float(self.high or 0)  # both are there where half isn't
        return ((measure - low) / (high - low)).clamp(0, 1)

    def source(self, component: str) -> str:
        """Whose measure it is, for a weight of this component."""
        if self.by in _OF_TWO:
            return self.of or "neural"
        return (self.of or component) if self.by in _OF_ONE else "corpus"

    def needs(self, component: str) -> tuple[str, ...]:
        """What has to be given: names as in `Components`."""
        extra = (self.by,) if self.by in CARRIED else ("corpus",) if self.by in _OF_TWO else ()
        return (self.source(component), *extra)

    def __call__(self, components: Components, component: str) -> Tensor:
        """The factor of every position for a weight of this component, (Q,) float32."""
        values, known = MEASURES[self.by](components, self.source(component))
        return torch.where(known, self.factor(values.float()), 0)

    def to_dict(self) -> dict[str, Any]:
        """The table that `make_evidence` makes this evidence of."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def make_evidence(table: Mapping[str, Any], where: str = "evidence") -> Evidence:
    """Evidence of a table of the parameters of `Evidence`.

    Raises
    ------
    ConfigError
        An unknown key, measure or teacher, or a value out of range.
    """
    return make_from(Evidence, table, where)


def entropy(components: Components, of: str) -> tuple[Tensor, Tensor]:
    """Entropy of a teacher in nats, and where it is known: both (Q,)."""
    targets = _said(components, of)
    return targets.entropy(), targets.valid


def label_probability(components: Components, of: str) -> tuple[Tensor, Tensor]:
    """Probability that a teacher gives to the label, and where there are both: (Q,) each."""
    targets = _said(components, of)
    inside = components.counted & (components.labels < targets.vocab_size)
    probability = targets.probability_of(torch.where(inside, components.labels, 0))
    return torch.where(inside, probability, 0), targets.valid & components.counted


def top1_agreement(components: Components, of: str) -> tuple[Tensor, Tensor]:
    """Whether the corpus' most probable token is the other teacher's: 0 or 1, (Q,), and where it is known."""
    corpus, other = _said(components, "corpus"), _said(components, of)
    return (top_tokens(corpus) == top_tokens(other)).float(), corpus.valid & other.valid


def overlap(components: Components, of: str) -> tuple[Tensor, Tensor]:
    """``Σ min(P, Q)`` of the corpus and another teacher, (Q,), and where it is known."""
    rows, p, q, p_beyond, q_beyond, known = _on_explicit_tokens(components, of)
    shared = torch.minimum(p_beyond, q_beyond).index_add(0, rows, torch.minimum(p, q))
    return shared.clamp(0, 1), known


def js_divergence(components: Components, of: str) -> tuple[Tensor, Tensor]:
    """Jensen–Shannon divergence of P and Q over ln 2, 0 to 1, (Q,), and where it is known."""
    rows, p, q, p_beyond, q_beyond, known = _on_explicit_tokens(components, of)
    beyond = _js_terms(p_beyond, q_beyond)
    return (beyond.index_add(0, rows, _js_terms(p, q)) / math.log(2)).clamp(0, 1), known


def _of_the_corpus(values: Callable[[Components], Tensor]) -> Callable[[Components, str], tuple[Tensor, Tensor]]:
    return lambda components, of: (values(components), _said(components, "corpus").valid)


def carried(name: str) -> Callable[[Components, str], tuple[Tensor, Tensor]]:
    """The measure that a batch carries by this name."""

    def values(components: Components) -> Tensor:
        if name not in components.evidence:
            raise ConfigError(f"the policy asks for {name!r}: give evidence with {name!r}, one number per position")
        return components.evidence[name]

    return _of_the_corpus(values)


MEASURES: dict[str, Callable[[Components, str], tuple[Tensor, Tensor]]] = {
    "match_len": _of_the_corpus(lambda components: components.corpus.match_len),  # type: ignore[union-attr]
    "count": _of_the_corpus(lambda components: components.corpus.context_count),  # type: ignore[union-attr]
    **{name: carried(name) for name in CARRIED},
    "entropy": entropy,
    "label_probability": label_probability,
    "top1_agreement": top1_agreement,
    "overlap": overlap,
    "js_divergence": js_divergence,
}
"""Functions of a batch and a teacher's name: the measure of every position, and where it is known, both (Q,)."""


def top_tokens(targets: Targets) -> Tensor:
    """The most probable token of each position, (Q,) int64; exact.

    Notes
    -----
    The candidates of a sparse target are its pairs and, of all other tokens, the one with most base: the first in
    the base's order that has no pair. O(entries log entries + V log V).
    """
    if isinstance(targets, DenseTargets):
        return targets.top_tokens()
    targets = _flat(targets)
    rows, tokens = targets.rows(), targets.token_ids.long()
    order = targets.base.argsort(descending=True, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(order.shape[0], device=order.device)
    # Places ascend within a position, so the i-th equals i just as long as no place before it is missing.
    keys = (rows * targets.vocab_size + place[tokens]).sort().values
    within = torch.arange(keys.shape[0], device=keys.device) - targets.offsets[:-1][rows]
    missing = torch.zeros_like(targets.offsets[1:]).index_add(0, rows, (keys % targets.vocab_size == within).long())
    has_other = missing < targets.vocab_size
    other = order[missing.clamp_max(targets.vocab_size - 1)]
    best = torch.where(has_other, targets.rest * targets.base[other], -1)
    whole = targets.probs + targets.rest[rows] * targets.base[tokens]
    best_pair = torch.full_like(best, -1).scatter_reduce(0, rows, whole, "amax")
    # Of the pairs as good as the best one the lowest token, whatever order they stand in.
    is_best = whole >= best_pair[rows]
    lowest = torch.full_like(other, targets.vocab_size).scatter_reduce(
        0, rows, torch.where(is_best, tokens, targets.vocab_size), "amin"
    )
    return torch.where(best_pair >= best, lowest, other)


def probabilities_at(targets: Targets, positions: Tensor, tokens: Tensor) -> Tensor:
    """Probabilities of some tokens at some positions, all three (entries,); 0 for a token it doesn't know."""
    inside = tokens < targets.vocab_size
    tokens = torch.where(inside, tokens, 0)
    if isinstance(targets, DenseTargets):
        found = targets.probabilities_at(positions, tokens)
    else:
        targets = _flat(targets)
        keys, order = (targets.rows() * targets.vocab_size + targets.token_ids).sort()
        asked = positions * targets.vocab_size + tokens
        found = targets.rest[positions] * targets.base[tokens]
        if keys.shape[0]:
            at = torch.searchsorted(keys, asked).clamp_max(keys.shape[0] - 1)
            found = found + torch.where(keys[at] == asked, targets.probs[order[at]], 0)
    return torch.where(inside, found, 0)


def _said(components: Components, of: str) -> Targets:
    targets = components.targets_of(of)
    if targets is None:
        raise ConfigError(f"the policy asks about {of!r}, which this batch doesn't have: give it, or another policy")
    return targets


def _flat(targets: Targets) -> SoftTargets:
    if not isinstance(targets, SoftTargets):
        raise ConfigError("the policy compares the tokens of teachers, which needs flat targets: leave the mixed form")
    return targets


def _on_explicit_tokens(components: Components, of: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Rows of the corpus' pairs, P and Q on them, (entries,) each; P and Q beyond, and where both are known, (Q,)."""
    corpus, other = components.corpus, _said(components, of)
    if corpus is None:
        raise ConfigError("the policy compares the corpus with another teacher: give corpus")
    corpus = _flat(corpus)
    rows, tokens = corpus.rows(), corpus.token_ids.long()
    p = (corpus.probs + corpus.rest[rows] * corpus.base[tokens]).clamp_min(0)
    q = probabilities_at(other, rows, tokens).clamp_min(0).to(p.dtype)
    ones = torch.ones_like(corpus.rest)
    beyond = [(ones.index_add(0, rows, part, alpha=-1)).clamp_min(0) for part in (p, q)]
    return rows, p, q, beyond[0], beyond[1], corpus.valid & other.valid


def _js_terms(p: Tensor, q: Tensor) -> Tensor:
    """Terms of the divergence: its sum over tokens is the Jensen–Shannon divergence, in nats."""
    middle = (p + q) / 2
    return torch.special.entr(middle) - (torch.special.entr(p) + torch.special.entr(q)) / 2
