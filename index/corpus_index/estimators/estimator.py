"""Estimators as objects: a name, its parameters, how they are fitted on an index, and how they are kept.

An estimator is small: a few numbers an order. `make_estimator` makes one by name, `fit` sets its parameters from the
counts of an index, `save` writes them as JSON with the fingerprint of that index, `load_estimator` reads them back and
refuses another index's.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from corpus_index._kernels.exclusion_sums import CLASSES
from corpus_index.core.checks import check_index, check_number, check_share, check_whole
from corpus_index.core.matching import Matcher
from corpus_index.errors import IndexFormatError, QueryError
from corpus_index.estimators import kept
from corpus_index.estimators.counts_of_counts import MOST_ORDERS
from corpus_index.estimators.registry import ESTIMATORS, PARAMETERS, REGISTRY, Row, Summary
from corpus_index.manifest import as_folder


class Counted(Protocol):
    """What a base distribution is made of: an index, or the sums of several (`weighing.Root`)."""

    @property
    def symbol_counts(self) -> np.ndarray: ...  # noqa: D102
    @property
    def left_counts(self) -> np.ndarray: ...  # noqa: D102
    @property
    def num_tokens(self) -> int: ...  # noqa: D102
    @property
    def vocab_size(self) -> int: ...  # noqa: D102


@dataclass(frozen=True)
class Estimator:
    """How counts become probabilities.

    Attributes
    ----------
    name : str
        One of `ESTIMATORS`.
    max_order : int or None
        Symbols of the longest context that counts; None for no bound.
    discounts : tuple of (D1, D2, D3) an order
        Taken from counts of one, two, three and more; the last entry goes on for higher orders.
    strengths : tuple of tuples an order
        jelinek-mercer: the weight of the order by the bit length of the context's count. dirichlet: its mass.
        pitman-yor: its strength θ. auto: a table, see `fitting.fit_auto`; discounts holds those of order 0 alone.
    fingerprint : str or None
        Of the index that it was fitted on.
    convention : {"plain", "kenlm"}
        kenlm: the uniform distribution below the unigrams is over the tokens of the corpus and one unknown word,
        whose share the ids that the corpus lacks divide evenly; discounts are fitted as KenLM fits them.
    alpha : float
        stupid-backoff: what a shorter context's scores are worth, in (0, 1].
    k : float
        add-k: what every token counts on top, above 0; 1 is Laplace's.
    ratios : tuple of (d_1, …, d_5) an order
        katz: how much of a count of 1, …, 5 is kept; see `good_turing`. The last entry goes on for higher orders.
    """

    name: str
    max_order: int | None = None
    discounts: tuple[tuple[float, float, float], ...] = ()
    strengths: tuple[tuple[float, ...], ...] = ()
    fingerprint: str | None = None
    convention: str = "plain"
    alpha: float = 0.4
    k: float = 0.01
    ratios: tuple[tuple[float, ...], ...] = ()
    facts: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def row(self) -> Row:
        """What all estimators of this name have in common."""
        return REGISTRY[self.name]

    @property
    def rule(self) -> int:
        """The kernel's number for the formula."""
        return self.row.rule

    @property
    def uses_left_counts(self) -> bool:
        """Whether lower orders count distinct left extensions."""
        return self.row.left

    @property
    def excludes(self) -> bool:
        """Whether the longest context that has seen a token settles its probability; see `targets.exclusion`."""
        return self.row.excludes

    @property
    def is_fitted(self) -> bool:
        """Whether all parameters are there."""
        return self.row.fitted is None or bool(getattr(self, self.row.fitted))

    def fit(self, index: Matcher) -> Estimator:
        """A copy with the parameters that the counts of an index give; itself where there is nothing to fit.

        Notes
        -----
        Discounts are D = n1 / (n1 + 2 n2) (Ney, Essen & Kneser 1994), or the three of Chen & Goodman (1998), of each
        order's own counts of counts; with convention="kenlm", of KenLM's (`counts_of_counts`). katz: Good–Turing, see
        `good_turing`. O(N) an order. The others are fitted on leave-document-out evidence: see `fitting`.
        """
        check_index(index)
        found = {} if self.row.fit is None else self.row.fit(index, self)
        return replace(self, **found, fingerprint=index.fingerprint)

    def summary(self) -> Summary:
        """What was fitted, for people: column heads, and a line for each order, its number first."""
        return self.row.summary(self) if self.is_fitted else ([], [])

    def base(self, index: Counted) -> np.ndarray:
        """The distribution of the empty context: shape (S + 1,), float64, over the index's symbols and an unseen token.

        Estimators that use left counts: the unigrams' left extensions, discounted, over the uniform distribution. mle:
        c(w) / N. add-k: uniform, as its smoothing is; (c(w) + k) / (N + k V) with max_order 0. Others:
        (c(w) + T / V) / (N + T).
        """
        counts = index.symbol_counts
        distinct, total = int((counts > 0).sum()), index.num_tokens
        if self.row.base == "counts":
            return np.append(counts / total, 0.0)
        if self.row.base == "uniform":
            counts, total = (counts, total) if self.max_order == 0 else (np.zeros(counts.size), 0)
            return np.append(counts + self.k, self.k) / (total + self.k * index.vocab_size)
        if not self.uses_left_counts:
            return np.append(counts + distinct / index.vocab_size, distinct / index.vocab_size) / (total + distinct)
        counts, cuts, uniform = self.root(index)
        total = int(counts.sum())
        rest = float(cuts.sum()) / total * uniform
        unseen = max(1, index.vocab_size - distinct) if self.convention == "kenlm" else 1
        seen = np.append(index.symbol_counts > 0, False)
        return np.where(seen, np.append((counts - cuts) / total, 0.0) + rest, rest / unseen)

    def root(self, index: Counted) -> tuple[np.ndarray, np.ndarray, float]:
        """Kneser–Ney's counts of the empty context and their cuts, by symbol, and the uniform probability below."""
        counts = index.symbol_counts
        words = index.vocab_size
        if self.convention == "kenlm":
            words = min(words, int((counts > 0).sum()) + 1)
        if self.max_order != 0:
            counts = index.left_counts
        return counts, np.array([0.0, *self.discounts[0]])[np.minimum(counts, 3)], 1.0 / words

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write the estimator as JSON, whole or not at all.

        Raises
        ------
        IndexExistsError
            If a file stands there, and overwrite is False.
        IndexWriteError
            If it can't be written; a file that stood there stays.
        """
        content = {
            "name": self.name,
            "max_order": self.max_order,
            "discounts": self.discounts,
            "strengths": self.strengths,
            "fingerprint": self.fingerprint,
            "convention": self.convention,
            "alpha": self.alpha,
            "k": self.k,
            "ratios": self.ratios,
            "facts": self.facts,
        }
        kept.write_fields(path, content, overwrite=overwrite)


def make_estimator(name: str, max_order: int | None = None, **parameters: Any) -> Estimator:
    """An estimator by name, not yet fitted.

    Parameters
    ----------
    name : str
        One of `ESTIMATORS`.
    max_order : int, optional
        Symbols of the longest context that counts.
    **parameters
        discounts, strengths, convention, alpha, k, ratios: see `Estimator`.

    Raises
    ------
    QueryError
        If there is no such estimator, or a parameter doesn't fit it.
    """
    if not isinstance(name, str) or name not in REGISTRY:
        raise QueryError(f"there is no estimator {name!r}: {nearest(name, ESTIMATORS)}")
    check_whole(max_order, "max_order", 0, none="no bound")
    for key in parameters:
        if key not in PARAMETERS:
            raise QueryError(f"an estimator has no {key!r}: {nearest(key, PARAMETERS)}")
    estimator = Estimator(name, max_order, **parameters)
    if estimator.convention not in ("plain", "kenlm"):
        raise QueryError(f"convention {estimator.convention!r} is unknown: choose 'plain' or 'kenlm'")
    if estimator.uses_left_counts and max_order is not None and max_order > MOST_ORDERS:
        raise QueryError(f"{name} takes a max_order up to {MOST_ORDERS}, not {max_order}")
    _check_ranges(estimator)
    if name == "pitman-yor" and not estimator.strengths:
        estimator = replace(estimator, strengths=((0.0,),))
    return estimator


def nearest(word: object, known: Collection[str]) -> str:
    """What to write instead: the nearest known word, or any of them."""
    close = difflib.get_close_matches(str(word), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(known)}"


def _check_ranges(estimator: Estimator) -> None:
    """Refuse parameters that give no probabilities."""
    check_share(estimator.alpha, "alpha")
    check_number(estimator.k, "k")
    for key in ("discounts", "strengths", "ratios"):
        _check_rows(getattr(estimator, key), key)
    if not 0 < estimator.k < float("inf"):
        raise QueryError(f"k {estimator.k} must be above 0")
    for row in estimator.ratios:
        if not row or len(row) > CLASSES or not all(0 < ratio <= 1 for ratio in row):
            raise QueryError(f"ratios {row} must be 1 to {CLASSES} numbers above 0 and at most 1 for each order")
    for row in estimator.discounts:
        if len(row) != 3 or not all(0 <= cut <= count for cut, count in zip(row, (1, 2, 3), strict=True)):
            raise QueryError(f"discounts {row} must be three numbers 0 ≤ D_i ≤ i for each order")
    if len({len(row) for row in estimator.strengths} or {1}) != 1 or () in estimator.strengths:
        raise QueryError("strengths must be rows of numbers of one length, one for each order")
    estimator.row.check(estimator)


def _check_rows(rows: object, name: str) -> None:
    """Refuse what isn't rows of numbers."""
    if not isinstance(rows, (tuple, list)) or not all(isinstance(row, (tuple, list)) for row in rows):
        raise QueryError(f"{name} {rows!r} must be rows of numbers, one for each order")
    for row in rows:
        for value in row:
            check_number(value, f"a number of {name},")


def load_estimator(path: str | os.PathLike[str], index: Matcher) -> Estimator:
    """Read an estimator that was fitted on this index.

    Raises
    ------
    IndexFormatError
        If the file is damaged or not an estimator, or was fitted on another index.
    """
    check_index(index)
    as_folder(path, "an estimator: give the file that `teacher fit` wrote")
    content = kept.read_fields(path)
    try:
        set_later = {key: content.pop(key) for key in ("fingerprint", "facts")}
        estimator = replace(make_estimator(**content), **set_later)
    except (ValueError, TypeError, KeyError) as error:
        raise IndexFormatError(f"{path} is not an estimator ({error}): fit one again") from error
    if estimator.fingerprint != index.fingerprint:
        raise IndexFormatError(f"{path} was fitted on another index than {index.path}: fit it again")
    return estimator
