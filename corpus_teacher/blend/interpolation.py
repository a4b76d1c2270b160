"""Counts at inference: how much of the next token's probability is the student's, by what is known of the position.

The mixture is ``p(w) = λ · student(w) + (1 − λ) · corpus(w)``, with one weight λ for each bucket of evidence: how long
the matched context is, how often it occurs, how unsure the corpus is. The weights are those that make a tuning text
likeliest, found by expectation maximisation (Jelinek and Mercer 1980). Naively, of one bucket: repeat
``λ = mean(λ · p / (λ · p + (1 − λ) · q))``, p and q being what student and corpus gave to the tokens that came.

A bucket of few tokens is drawn to a coarser one, as if `prior` more tokens of the coarser one's weight stood in it:
buckets of the first measure to all of the text, those of the first two to those of the first, and so on. numpy only;
O(N · rounds) for N tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus_teacher.errors import ConfigError, TargetError
from corpus_teacher.settings import check_known, is_number

Floats = npt.NDArray[np.float64]

EDGES: Mapping[str, tuple[float, ...]] = MappingProxyType({
    "match_len": (1, 2, 3, 4, 5),
    "entropy": (1, 2, 3, 4, 5, 6),
    "count": (2, 3, 5, 9, 17, 65, 257),
})  # fmt: skip
"""Measures and where their buckets begin, apart from the first one; the coarsest measure first. Tokens of the matched
context, entropy of the corpus' distribution in nats, occurrences of the context."""

_ROUNDS, _PRIOR = 60, 20.0


@dataclass(frozen=True)
class Buckets:
    """A grid of evidence.

    Parameters
    ----------
    edges : mapping of str to sequence of float
        Of each measure ("match_len", "entropy", "count") where its second, third … bucket begins, ascending.

    Raises
    ------
    ConfigError
        An unknown measure, or edges that don't ascend.

    Examples
    --------
    >>> buckets = Buckets({"match_len": (1, 3)})
    >>> buckets.of({"match_len": [0, 1, 2, 9]}).tolist(), buckets.labels("match_len")
    ([0, 1, 1, 2], ['below 1', '1 to below 3', '3 and more'])
    """

    edges: Mapping[str, Sequence[float]]

    def __post_init__(self) -> None:
        if not isinstance(self.edges, Mapping):
            raise ConfigError(f"edges is {self.edges!r}: give a table of measures, each with a list of numbers")
        made = {}
        for name, edges in self.edges.items():
            check_known(name, EDGES, "a measure of edges")
            numbers = isinstance(edges, (list, tuple)) and all(is_number(one) for one in edges)
            if not numbers or list(edges) != sorted(set(edges)):
                raise ConfigError(f"edges.{name} is {edges!r}: give ascending numbers")
            made[name] = tuple(float(one) for one in edges)
        object.__setattr__(self, "edges", made)

    @property
    def shape(self) -> tuple[int, ...]:
        """Buckets of each measure."""
        return tuple(len(edges) + 1 for edges in self.edges.values())

    @property
    def size(self) -> int:
        """Buckets in all: 1 without a measure."""
        return int(np.prod(self.shape, dtype=np.int64))

    def of(self, evidence: Mapping[str, npt.ArrayLike]) -> npt.NDArray[np.int64]:
        """The bucket of each position, (N,) int64 below `size`; the last measure's number runs fastest.

        Raises
        ------
        TargetError
            A measure that isn't given, or arrays of different lengths.
        """
        number, length = np.zeros((), np.int64), None
        for name, edges in self.edges.items():
            if name not in evidence:
                raise TargetError(f"the weights ask for {name!r}: give evidence with {name!r}, one number per position")
            values = np.asarray(evidence[name]).reshape(-1)
            if length not in (None, values.size):
                raise TargetError(f"evidence has {length} and {values.size} positions: give both of one batch")
            length = values.size
            number = number * (len(edges) + 1) + np.searchsorted(edges, values, side="right")
        return np.asarray(number, np.int64)

    def labels(self, measure: str) -> list[str]:
        """What the buckets of a measure are called."""
        edges = [f"{edge:g}" for edge in self.edges[measure]]
        if not edges:
            return ["all"]
        inner = [f"{low} to below {high}" for low, high in pairwise(edges)]
        return [f"below {edges[0]}", *inner, f"{edges[-1]} and more"]


@dataclass(frozen=True, eq=False)
class MixtureWeights:
    """The student's weight λ by bucket; what `fit_weights` makes.

    Parameters
    ----------
    buckets : Buckets
    weights : ndarray of shape (buckets.size,), float64
        λ of each bucket, 0 to 1.
    tokens : ndarray of shape (buckets.size,), int64
        Tokens that each was fitted on.

    Examples
    --------
    >>> weights = MixtureWeights.constant(0.75)
    >>> weights({"match_len": [0, 3]}).tolist()
    [0.75, 0.75]
    """

    buckets: Buckets
    weights: Floats
    tokens: npt.NDArray[np.int64]

    @classmethod
    def constant(cls, weight: float) -> MixtureWeights:
        """The same weight everywhere."""
        return cls(Buckets({}), np.array([float(weight)]), np.zeros(1, np.int64))

    def __call__(self, evidence: Mapping[str, npt.ArrayLike]) -> Floats:
        """λ of every position, (N,) float64; evidence has one number per position for each measure."""
        if not self.buckets.edges:
            sizes = [np.asarray(values).size for values in evidence.values()]
            return np.full(sizes[0] if sizes else 1, self.weights[0])
        return np.asarray(self.weights[self.buckets.of(evidence)], np.float64)

    def to_dict(self) -> dict[str, Any]:
        """What a JSON file or a TOML table holds of it."""
        return {
            "edges": {name: list(edges) for name, edges in self.buckets.edges.items()},
            "weights": self.weights.tolist(),
            "tokens": self.tokens.tolist(),
        }

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> MixtureWeights:
        """The weights of such a table.

        Raises
        ------
        ConfigError
            A key that is missing, another number of weights than buckets, or a weight outside [0, 1].
        """
        for key in ("edges", "weights"):
            if not isinstance(table, Mapping) or key not in table:
                raise ConfigError(f"the mixture's weights have no {key}: give what MixtureWeights.to_dict makes")
        buckets = Buckets(table["edges"])
        try:
            weights = np.asarray(table["weights"], np.float64)
            tokens = np.asarray(table.get("tokens", np.zeros(buckets.size)), np.int64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigError("the mixture's weights hold something that isn't a number: fit them again") from error
        if weights.shape != (buckets.size,) or tokens.shape != (buckets.size,):
            raise ConfigError(f"there are {weights.size} weights for {buckets.size} buckets: fit them again")
        if not ((weights >= 0) & (weights <= 1)).all():
            raise ConfigError("a weight of the mixture lies outside 0 to 1: fit them again")
        return cls(buckets, weights, tokens)


def fit_weights(
    student: npt.ArrayLike,
    corpus: npt.ArrayLike,
    evidence: Mapping[str, npt.ArrayLike] | None = None,
    *,
    edges: Mapping[str, Sequence[float]] | None = None,
    prior: float = _PRIOR,
    rounds: int = _ROUNDS,
) -> MixtureWeights:
    """The weights of student and corpus that make a tuning text likeliest, bucket by bucket.

    Parameters
    ----------
    student, corpus : array_like of shape (N,)
        The probability that each gave to the token that came, on text that neither has read: held out of the training
        and of the index, or in the index with its documents left out and read by the student for the first time.
    evidence : mapping of str to array_like of shape (N,), optional
        The measures that `edges` asks for: "match_len", "entropy" (nats), "count".
    edges : mapping, optional
        As in `Buckets`; by default `EDGES`, of the measures that evidence has.
    prior : float
        Tokens by which a bucket is drawn to the coarser one's weight.
    rounds : int
        Of expectation maximisation.

    Returns
    -------
    MixtureWeights

    Raises
    ------
    TargetError
        No token, another number of probabilities, one that is negative or not finite, or evidence that is missing.
    ConfigError
        A prior below 0, or edges that don't ascend.

    Notes
    -----
    A token that both give no probability has no say. One round never lowers the likelihood of the text times the prior.

    Examples
    --------
    >>> fitted = fit_weights([0.5, 0.5, 0.1], [0.1, 0.1, 0.1], {"match_len": [0, 0, 2]}, edges={"match_len": (1,)})
    >>> [round(one, 2) for one in fitted({"match_len": [0, 2]}).tolist()]
    [1.0, 1.0]
    """
    p, q = (_probabilities(one, name) for one, name in ((student, "student"), (corpus, "corpus")))
    if p.size != q.size or not p.size:
        raise TargetError(f"the student has {p.size} probabilities and the corpus {q.size}: give both of one text")
    if not is_number(prior) or prior < 0:
        raise ConfigError(f"prior is {prior!r}: give a number of tokens, 0 or more")
    evidence = evidence or {}
    if edges is None:
        edges = {name: EDGES[name] for name in EDGES if name in evidence}
    buckets = Buckets(edges)
    known = (p > 0) | (q > 0)
    weights = np.array([0.5])
    for depth in range(len(buckets.edges) + 1):
        some = Buckets(dict(list(buckets.edges.items())[:depth]))
        number = some.of(evidence)
        if some.edges and number.size != p.size:
            raise TargetError(f"evidence has {number.size} positions and the text {p.size}: give both of one text")
        number = np.broadcast_to(number, p.shape)
        coarser = np.repeat(weights, some.size // weights.size)
        tokens = np.bincount(number[known], minlength=some.size)
        weights = _fitted(p[known], q[known], number[known], tokens, coarser, prior if depth else 0.0, rounds)
    return MixtureWeights(buckets, weights, tokens.astype(np.int64))


def mixed_probabilities(student: npt.ArrayLike, corpus: npt.ArrayLike, weight: npt.ArrayLike) -> Floats:
    """``λ · student + (1 − λ) · corpus``, any shapes that go together.

    >>> mixed_probabilities([0.5], [0.25], 0.5).tolist()
    [0.375]
    """
    own = np.asarray(weight, np.float64)
    return np.asarray(own * np.asarray(student, np.float64) + (1 - own) * np.asarray(corpus, np.float64))


def _fitted(
    p: Floats,
    q: Floats,
    number: npt.NDArray[np.int64],
    tokens: npt.NDArray[np.int64],
    coarser: Floats,
    prior: float,
    rounds: int,
) -> Floats:
    """Expectation maximisation of all buckets of one depth at once, from the coarser weights."""
    weights = coarser.copy()
    total = tokens + prior
    for _ in range(rounds):
        own = weights[number] * p
        whole = own + (1 - weights[number]) * q
        share = np.divide(own, whole, out=np.full(p.size, 0.5), where=whole > 0)
        credited = np.bincount(number, share, minlength=weights.size) + prior * coarser
        weights = np.divide(credited, total, out=coarser.copy(), where=total > 0)
    return weights


def _probabilities(said: npt.ArrayLike, name: str) -> Floats:
    made = np.asarray(said, np.float64).reshape(-1)
    if not np.isfinite(made).all() or (made < 0).any():
        raise TargetError(f"{name} has a probability that is negative or not finite: leave unknown tokens out")
    return made
