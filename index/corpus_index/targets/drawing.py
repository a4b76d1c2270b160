"""Tokens drawn from the distributions of an estimator, for text from the corpus teacher."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import drawing
from corpus_index.core.checks import as_array, check_generator, check_number, check_share, check_whole
from corpus_index.core.matching import Matcher
from corpus_index.errors import QueryError
from corpus_index.estimators.resolving import EstimatorLike
from corpus_index.targets.request import request_of
from corpus_index.targets.types import SparseTargets


class Drawn(NamedTuple):
    """A token for each row of a batch, with its evidence.

    Attributes
    ----------
    token_ids : ndarray of shape (B,), int64
    match_len : ndarray of shape (B,), int32
        Tokens of the longest context that counted.
    context_count : ndarray of shape (B,), int64
        Its occurrences.
    """

    token_ids: np.ndarray
    match_len: np.ndarray
    context_count: np.ndarray


class SortedBase(NamedTuple):
    """A base distribution, tempered and sorted once for many draws; see `sorted_base`."""

    base: np.ndarray
    power: float
    powered: np.ndarray
    order: np.ndarray
    place: np.ndarray
    cumulative: np.ndarray


def draw_tokens(
    index: Matcher,
    input_ids: ArrayLike,
    generator: np.random.Generator,
    *,
    estimator: EstimatorLike = "witten-bell",
    max_order: int | None = None,
    starts_document: bool | ArrayLike = False,
) -> Drawn:
    """Draw the token after each row from the estimator's exact distribution, which is never written out.

    Parameters
    ----------
    index : CorpusIndex
    input_ids : array_like of shape (B, T), integer
        Token ids below V.
    generator : numpy Generator
        The only source of chance: two numbers a row.
    estimator, max_order, starts_document
        As in `corpus_index.targets.interpolated.smoothed_targets`.

    Raises
    ------
    QueryError
        If an id is out of range, or an option is wrong; or for an estimator with exclusion, which is no mixture.

    Notes
    -----
    Time of mixed targets, and O(entries of one row) for a draw that falls on it.
    """
    check_generator(generator)
    input_ids = as_array(input_ids, "input_ids")
    if input_ids.shape[-1:] == (0,):
        raise QueryError("input_ids have no token, after which one could be drawn: give rows of at least one")
    request = request_of(
        index,
        input_ids,
        estimator=estimator,
        max_order=max_order,
        starts_document=starts_document,
        only_last=True,
    )
    if request.estimator.excludes:
        raise QueryError(f"estimator {request.estimator.name!r} is no mixture: draw from its smoothed_targets")
    size = request.labels.size
    chances = generator.random((2, size))
    symbols, match_len, context_count = np.empty(size, np.int64), np.empty(size, np.int32), np.empty(size, np.int64)
    cumulative = np.cumsum(request.base_distribution, dtype=np.float64)
    for part, begin, end in request.chunks():
        drawing.draw_exactly(request.heavy, part, 1.0, chances[0, begin:end], symbols[begin:end])
        match_len[begin:end], context_count[begin:end] = part.match_len, part.context_count
    from_base = symbols < 0
    tokens = index.ids_of(np.maximum(symbols, 0)).astype(np.int64)
    places = np.searchsorted(cumulative, chances[1, from_base] * cumulative[-1], side="right")
    tokens[from_base] = np.minimum(places, cumulative.size - 1)
    return Drawn(tokens, match_len, request.counted(context_count))


def sorted_base(base: np.ndarray, power: float = 1.0) -> SortedBase:
    """Make a base distribution (V,) ready for `draw_from`; power: 1 / temperature.

    Raises
    ------
    QueryError
        If base isn't a row of numbers, or power isn't a number.
    """
    check_number(power, "power")
    base = as_array(base, "base")
    if base.ndim != 1 or base.dtype.kind not in "uif":
        raise QueryError(f"base must be one row of probabilities, not {base.dtype} of shape {base.shape}")
    plain = base.astype(np.float64)
    powered = plain**power
    order = np.argsort(-powered, kind="stable")
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size)
    return SortedBase(plain, power, powered, order, place, np.append(0.0, np.cumsum(powered[order])))


def draw_from(
    targets: SparseTargets,
    base: SortedBase,
    generator: np.random.Generator,
    *,
    top_k: int | None = None,
    top_p: float | None = None,
) -> np.ndarray:
    """Draw a token from each target, tempered by the base's power, and cut.

    Parameters
    ----------
    targets : SparseTargets
        Of Q positions, made without leaving anything out.
    base : SortedBase
        Of the targets' base.
    generator : numpy Generator
    top_k : int, optional
        Only that many of the likeliest tokens; all that tie with the last stay.
    top_p : float, optional
        Then only the smallest set of the likeliest that holds this share of what is left; ties stay.

    Returns
    -------
    ndarray of shape (Q,), int64

    Notes
    -----
    O(K log K + how far the cut reaches into the base) time a position.
    """
    check_generator(generator)
    check_whole(top_k, "top_k", 1, none="all")
    if top_p is not None:
        check_share(top_p, "top_p")
    vocab_size, size = base.order.size, targets.rest.size
    tokens = np.empty(size, np.int64)
    room = int(np.diff(targets.offsets).max(initial=0))
    drawing.draw_cut(
        targets.offsets,
        targets.token_ids,
        targets.probs,
        targets.rest,
        *(base.base, base.powered, base.order, base.place, base.cumulative, base.power),
        vocab_size if top_k is None else top_k,
        1.0 if top_p is None else top_p,
        generator.random(size),
        np.zeros(vocab_size, np.bool_),
        *(np.empty(room), np.empty(room)),
        tokens,
    )
    return tokens
