"""Estimators as people name them: a name, a file that keeps a fitted one, a table of settings, or an object."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from corpus_index.core.checks import check_index, check_whole
from corpus_index.core.matching import Matcher
from corpus_index.errors import QueryError
from corpus_index.estimators.estimator import Estimator, load_estimator, make_estimator, nearest
from corpus_index.estimators.fits import kept_fit
from corpus_index.estimators.registry import ESTIMATORS, PARAMETERS, REGISTRY

EstimatorLike = str | os.PathLike[str] | Mapping[str, Any] | Estimator
"""What names an estimator; see `resolve_estimator`."""

KEYS = ("name", "max_order", *PARAMETERS)
"""Of a table that names an estimator."""

_BY_ORDER = {"discounts": 3, "strengths": 1, "ratios": 1}  # and how often one number stands in the line of an order

_remembered: WeakKeyDictionary[Matcher, dict[Any, Estimator]] = WeakKeyDictionary()


def resolve_estimator(spec: EstimatorLike, index: Matcher, max_order: int | None = None) -> Estimator:
    """The estimator that is meant; not fitted, unless it comes so.

    Parameters
    ----------
    spec : str, path, mapping or Estimator
        A name of `ESTIMATORS`; a file that `Estimator.save` (or `corpus-teacher teacher fit`) wrote; a table with
        "name" and, optionally, "max_order" ("none": no bound), "convention", "alpha", "k", "discounts", "strengths"
        and "ratios", the last three a number for all orders, or a list with a number or a list for each; or the object.
    index : Matcher
        What it is to be used on.
    max_order : int, optional
        Symbols of the longest context where the spec doesn't say; None: no bound. A file and an object always do.

    Raises
    ------
    QueryError
        If a name, a key or a value is wrong; it names the nearest right one.
    IndexFormatError
        If a file holds no estimator, or one that was fitted on another index.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from corpus_index import build_index
    >>> index = build_index(np.array([1, 2, 1, 2, 3]), tempfile.mkdtemp() + "/index")
    >>> resolve_estimator({"name": "absolute-discounting", "discounts": 0.7}, index, 4).discounts
    ((0.7, 0.7, 0.7),)
    """
    if isinstance(spec, Estimator):
        if spec.fingerprint not in (None, index.fingerprint):
            raise QueryError(f"the estimator {spec.name} was fitted on another index: fit it on {index.path}")
        return spec
    if isinstance(spec, Mapping):
        return _from_table(spec, max_order)
    if not isinstance(spec, (str, os.PathLike)):
        raise QueryError(f"estimator {spec!r} names no estimator: give a name, a file, a table or an Estimator")
    if names_a_file(spec):
        return load_estimator(spec, index)
    return make_estimator(str(spec), max_order)


def fitted(index: Matcher, spec: EstimatorLike, max_order: int | None = None) -> Estimator:
    """An estimator (see `resolve_estimator`), fitted on an index at its first use if need be.

    It is then remembered with the index, and kept beside it where its fit takes long; see `estimators.fits`.

    Raises
    ------
    QueryError
        If there is no such estimator, or it was fitted on another index.
    IndexFormatError
        If a file holds none, or one of another index.
    """
    check_index(index)
    check_whole(max_order, "max_order", 0, none="no bound")
    known = _remembered.setdefault(index, {})
    name = (spec, max_order) if isinstance(spec, str) and spec in ESTIMATORS else None
    if name in known:
        return known[name]
    made = resolve_estimator(spec, index, max_order)
    if made.is_fitted and name is None:
        return made
    if made not in known and made.is_fitted:
        known[made] = made.fit(index)  # remembers whose it is; reads no arrays
    elif made not in known:
        with index.following_arrays():
            known[made] = kept_fit(index, made)
    known[name or made] = known[made]
    return known[made]


def names_a_file(spec: object) -> bool:
    """Whether a spec is a file's name rather than an estimator's."""
    if isinstance(spec, str):
        return spec not in ESTIMATORS and (spec.endswith(".json") or os.sep in spec or Path(spec).is_file())
    return isinstance(spec, os.PathLike)


def _from_table(table: Mapping[str, Any], max_order: int | None) -> Estimator:
    for key in table:
        if key not in KEYS:
            raise QueryError(f"an estimator has no {key!r}: {nearest(key, KEYS)}")
    if "name" not in table:
        raise QueryError(f"the estimator {dict(table)!r} has no name: give one of {', '.join(ESTIMATORS)}")
    name = str(table["name"])
    for key in PARAMETERS:
        if key in table and name in REGISTRY and key not in REGISTRY[name].parameters:
            raise QueryError(f"{name} takes no {key}: it takes {', '.join(('max_order', *REGISTRY[name].parameters))}")
    parameters = {key: _value(key, value) for key, value in table.items() if key != "name"}
    bound = parameters.pop("max_order", max_order)
    return make_estimator(name, bound, **parameters)


def _value(key: str, value: Any) -> Any:
    """A setting as `make_estimator` takes it."""
    if key == "max_order":
        if value in ("none", None):
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise QueryError(f"max_order {value!r} must be a whole number, or 'none' for no bound")
        return value
    if key == "convention":
        return value
    if key in _BY_ORDER:
        lines = value if isinstance(value, (list, tuple)) else [value]
        return tuple(
            tuple(_number(key, one) for one in line)
            if isinstance(line, (list, tuple))
            else (_number(key, line),) * _BY_ORDER[key]
            for line in lines
        )
    return _number(key, value)


def _number(key: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < float("inf"):
        raise QueryError(f"{key} holds {value!r}: give numbers")
    return float(value)
