"""The estimators, one row each: all that the rest of the package has to know to treat them alike.

A new one is a formula in `_kernels/rules.py`, a row here, a twin in `reference/estimators.py`, and a fit in
`fitting.py` if it has one. Every field of a row must be given, and a row that contradicts itself is an error at import.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from corpus_index._kernels import rules
from corpus_index.core.matching import Matcher
from corpus_index.errors import QueryError
from corpus_index.estimators import fitting
from corpus_index.estimators.counts_of_counts import (
    absolute_discount,
    counts_of_counts,
    kenlm_shift,
    modified_discounts,
)
from corpus_index.estimators.good_turing import fit_ratios
from corpus_index.estimators.held_out_evidence import compile_ahead

PARAMETERS = ("discounts", "strengths", "convention", "alpha", "k", "ratios")
"""All parameters that any estimator takes, beside its name and max_order."""

FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where counts of counts give none (KenLM's --discount_fallback)."""

_FIT_ORDERS = 8  # without a bound, discounts are fitted up to here, and the last one goes on
_SHOWN = 12  # bit lengths of counts whose weights are shown


class Settings(Protocol):
    """The parameters of an estimator, as rows read them; see `Estimator`."""

    @property
    def max_order(self) -> int | None: ...  # noqa: D102
    @property
    def convention(self) -> str: ...  # noqa: D102
    @property
    def discounts(self) -> tuple[tuple[float, float, float], ...]: ...  # noqa: D102
    @property
    def strengths(self) -> tuple[tuple[float, ...], ...]: ...  # noqa: D102
    @property
    def ratios(self) -> tuple[tuple[float, ...], ...]: ...  # noqa: D102


Fit = Callable[[Matcher, Settings], dict[str, Any]]
"""The parameters that an index's counts give, and "facts" about the fit."""

Summary = tuple[list[str], list[list[float]]]
"""Column heads, and a line for each order: its number, then the columns."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is known of one estimator.

    Attributes
    ----------
    name : str
    rule : int
        The kernel's number for the formula.
    left : bool
        Whether lower orders count distinct left extensions.
    excludes : bool
        Whether the longest context that has seen a token settles its probability; see `targets.exclusion`.
    base : {"counts", "unigrams", "uniform", "left"}
        What the empty context says; see `Estimator.base`.
    parameters : tuple of str
        Of `PARAMETERS`, those that it takes.
    fitted : str or None
        The parameter whose presence shows that it is fitted; None where there is nothing to fit.
    fit : callable or None
        How; see `Fit`.
    check : callable
        Raises QueryError for parameters that give no probabilities, beyond what all have in common.
    summary : callable
        What was fitted, in few columns, for people; see `Summary`.
    twin : str
        The naive function in `reference.estimators`.
    """

    name: str
    rule: int
    left: bool
    excludes: bool
    base: str
    parameters: tuple[str, ...]
    fitted: str | None
    fit: Fit | None
    check: Callable[[Settings], None]
    summary: Callable[[Settings], Summary]
    twin: str

    def __post_init__(self) -> None:
        unknown = set(self.parameters) - set(PARAMETERS)
        if unknown or self.base not in ("counts", "unigrams", "uniform", "left") or (self.base == "left") != self.left:
            raise TypeError(f"the row of {self.name} contradicts itself: {unknown or self.base}")
        if (self.fit is None) != (self.fitted is None) or (self.fitted and self.fitted not in self.parameters):
            raise TypeError(f"the row of {self.name} must name the parameter that its fit sets, among its parameters")


# fits


def _fit_discounts(three: bool, left: bool) -> Fit:
    """Discounts of each order from its counts of counts: one an order, or the three of Chen & Goodman."""

    def fit(index: Matcher, settings: Settings) -> dict[str, Any]:
        highest, kenlm = _highest(settings), settings.convention == "kenlm"
        counts = counts_of_counts(index, highest, left=left)
        if kenlm and left:
            counts += kenlm_shift(index, highest)
        found = [modified_discounts(row, kenlm) if three else absolute_discount(row) for row in counts.tolist()]
        fallback = FALLBACK if three else (0.5, 0.5, 0.5)
        return {
            "discounts": tuple(one or fallback for one in found),
            "facts": {
                "fallback_orders": [order for order, one in enumerate(found) if one is None],
                "counts_of_counts": counts.tolist(),
            },
        }

    return fit


def _fit_katz(index: Matcher, settings: Settings) -> dict[str, Any]:
    ratios, facts = fit_ratios(index, _highest(settings))
    return {"ratios": ratios, "facts": facts}


def _fit_jelinek_mercer(index: Matcher, settings: Settings) -> dict[str, Any]:
    strengths, facts = fitting.fit_jelinek_mercer(index, settings.max_order)
    return {"discounts": (), "strengths": strengths, "facts": facts}


def _fit_dirichlet(index: Matcher, settings: Settings) -> dict[str, Any]:
    strengths, facts = fitting.fit_dirichlet(index, settings.max_order)
    return {"discounts": (), "strengths": strengths, "facts": facts}


def _fit_pitman_yor(index: Matcher, settings: Settings) -> dict[str, Any]:
    compile_ahead(index)
    root = absolute_discount(_root_counts_of_counts(index, settings)) or (0.5, 0.5, 0.5)
    discounts, strengths, facts = fitting.fit_pitman_yor(index, settings.max_order, root)
    return {"discounts": discounts, "strengths": strengths, "facts": facts}


def _fit_auto(index: Matcher, settings: Settings) -> dict[str, Any]:
    compile_ahead(index)
    root = modified_discounts(_root_counts_of_counts(index, settings), False) or FALLBACK
    strengths, facts = fitting.fit_auto(index, settings.max_order, root)
    return {"discounts": (root,), "strengths": strengths, "facts": facts}


def _highest(settings: Settings) -> int:
    return _FIT_ORDERS if settings.max_order is None else settings.max_order


def _root_counts_of_counts(index: Matcher, settings: Settings) -> list[int]:
    """n_1 to n_4 of the empty context."""
    counts = index.symbol_counts if settings.max_order == 0 else index.left_counts
    found: list[int] = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    return found


# checks


def _anything(settings: Settings) -> None:
    pass


def _check_weights(settings: Settings) -> None:
    values = _values(settings)
    if not all(0 <= value < 1 for value in values):
        raise QueryError(f"strengths of jelinek-mercer must be at least 0 and below 1, not {max(values, key=abs)}")


def _check_masses(settings: Settings) -> None:
    values = _values(settings)
    if not all(value > 0 for value in values[len(settings.strengths) > 1 :]):
        raise QueryError(f"strengths of dirichlet must be above 0, not {min(values)}")


def _check_thetas(settings: Settings) -> None:
    values = _values(settings)
    if not all(value >= 0 for value in values):
        raise QueryError(f"strengths of pitman-yor must be 0 or more, not {min(values)}")


def _check_table(settings: Settings) -> None:
    if bool(settings.strengths) != bool(settings.discounts):
        raise QueryError("auto has discounts or strengths without the other: give both, or fit it")
    if settings.strengths:
        fitting.check_table(settings.strengths)


def _values(settings: Settings) -> list[float]:
    return [value for row in settings.strengths for value in row]


# summaries; λ(c): the weight of an order whose context counts c


def _nothing(settings: Settings) -> Summary:
    return [], []


def _show_discounts(settings: Settings) -> Summary:
    return (["D1", "D2", "D3+"], _numbered(settings.discounts, 0)) if settings.discounts else ([], [])


def _show_ratios(settings: Settings) -> Summary:
    return [f"d{count}" for count in range(1, 6)], _numbered(settings.ratios, 0)


def _show_weights(settings: Settings) -> Summary:
    columns = range(0, min(_SHOWN, len(settings.strengths[0])), 2)
    lines = [[line[column] for column in columns] for line in settings.strengths[1:]]
    return [f"λ({2**column})" for column in columns], _numbered(lines, 1)


def _show_masses(settings: Settings) -> Summary:
    return ["mass"], _numbered(settings.strengths[1:], 1)


def _show_pitman_yor(settings: Settings) -> Summary:
    last = len(settings.strengths) - 1
    lines = [[cuts[0], settings.strengths[min(order, last)][0]] for order, cuts in enumerate(settings.discounts)]
    return ["D", "θ"], _numbered(lines, 0)


def _show_table(settings: Settings) -> Summary:
    orders, counts, shares = (int(size) for size in settings.strengths[0][:3])
    table = np.array(settings.strengths[1:]).reshape(orders, counts, shares, 4)[:, :, shares // 2]
    columns = range(0, min(_SHOWN, counts), 2)
    return [f"λ({2**column})" for column in columns], _numbered(table[:, list(columns), 0].tolist(), 1)


def _numbered(lines: Any, first: int) -> list[list[float]]:
    return [[order, *line] for order, line in enumerate(lines, first)]


REGISTRY: dict[str, Row] = {
    row.name: row
    for row in (
        Row(
            name="mle",
            rule=rules.MAXIMUM,
            left=False,
            excludes=False,
            base="counts",
            parameters=(),
            fitted=None,
            fit=None,
            check=_anything,
            summary=_nothing,
            twin="mle",
        ),
        Row(
            name="jelinek-mercer",
            rule=rules.JELINEK_MERCER,
            left=False,
            excludes=False,
            base="unigrams",
            parameters=("strengths",),
            fitted="strengths",
            fit=_fit_jelinek_mercer,
            check=_check_weights,
            summary=_show_weights,
            twin="jelinek_mercer",
        ),
        Row(
            name="dirichlet",
            rule=rules.DIRICHLET,
            left=False,
            excludes=False,
            base="unigrams",
            parameters=("strengths",),
            fitted="strengths",
            fit=_fit_dirichlet,
            check=_check_masses,
            summary=_show_masses,
            twin="dirichlet",
        ),
        Row(
            name="witten-bell",
            rule=rules.WITTEN_BELL,
            left=False,
            excludes=False,
            base="unigrams",
            parameters=(),
            fitted=None,
            fit=None,
            check=_anything,
            summary=_nothing,
            twin="witten_bell",
        ),
        Row(
            name="absolute-discounting",
            rule=rules.DISCOUNT,
            left=False,
            excludes=False,
            base="unigrams",
            parameters=("discounts",),
            fitted="discounts",
            fit=_fit_discounts(three=False, left=False),
            check=_anything,
            summary=_show_discounts,
            twin="absolute_discounting",
        ),
        Row(
            name="kneser-ney",
            rule=rules.DISCOUNT,
            left=True,
            excludes=False,
            base="left",
            parameters=("discounts", "convention"),
            fitted="discounts",
            fit=_fit_discounts(three=False, left=True),
            check=_anything,
            summary=_show_discounts,
            twin="kneser_ney",
        ),
        Row(
            name="modified-kneser-ney",
            rule=rules.DISCOUNT,
            left=True,
            excludes=False,
            base="left",
            parameters=("discounts", "convention"),
            fitted="discounts",
            fit=_fit_discounts(three=True, left=True),
            check=_anything,
            summary=_show_discounts,
            twin="modified_kneser_ney",
        ),
        Row(
            name="pitman-yor",
            rule=rules.PITMAN_YOR,
            left=True,
            excludes=False,
            base="left",
            parameters=("discounts", "strengths"),
            fitted="discounts",
            fit=_fit_pitman_yor,
            check=_check_thetas,
            summary=_show_pitman_yor,
            twin="pitman_yor",
        ),
        Row(
            name="auto",
            rule=rules.AUTO,
            left=True,
            excludes=False,
            base="left",
            parameters=("discounts", "strengths"),
            fitted="discounts",
            fit=_fit_auto,
            check=_check_table,
            summary=_show_table,
            twin="auto",
        ),
        Row(
            name="add-k",
            rule=rules.ADD_K,
            left=False,
            excludes=True,
            base="uniform",
            parameters=("k",),
            fitted=None,
            fit=None,
            check=_anything,
            summary=_nothing,
            twin="add_k",
        ),
        Row(
            name="katz",
            rule=rules.KATZ,
            left=False,
            excludes=True,
            base="unigrams",
            parameters=("ratios",),
            fitted="ratios",
            fit=_fit_katz,
            check=_anything,
            summary=_show_ratios,
            twin="katz",
        ),
        Row(
            name="stupid-backoff",
            rule=rules.STUPID_BACKOFF,
            left=False,
            excludes=True,
            base="unigrams",
            parameters=("alpha",),
            fitted=None,
            fit=None,
            check=_anything,
            summary=_nothing,
            twin="stupid_backoff",
        ),
        Row(
            name="ppm-c",
            rule=rules.PPM_C,
            left=False,
            excludes=True,
            base="unigrams",
            parameters=(),
            fitted=None,
            fit=None,
            check=_anything,
            summary=_nothing,
            twin="ppm_c",
        ),
    )
}
"""By name."""

ESTIMATORS = tuple(REGISTRY)
"""Names that `make_estimator` knows."""
