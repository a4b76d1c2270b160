"""The mixture with a row's own past against its naive twin, and what it is good for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import corpus_index.reference.estimators as naive
import numpy as np
import pytest
from corpus_index import CorpusIndex, QueryError, Recall, fit_recall
from corpus_index.targets.recall import LENGTHS, ORDERS
from hypothesis import given
from hypothesis import strategies as st

from ..conftest import corpora, draw_rows

Make = Callable[..., CorpusIndex]

WEIGHTS = np.random.default_rng(1).uniform(0.05, 0.9, ORDERS * LENGTHS * 2)


def weight_of(order: int, count: int, agree: bool) -> float:
    return float(
        WEIGHTS.reshape(ORDERS, LENGTHS, 2)[order, min(count.bit_length() - 1, LENGTHS - 1), 0 if agree else 1]
    )


@pytest.mark.parametrize("leave_out", [None, "self"])
@given(data=st.data(), corpus=corpora(), order=st.sampled_from([None, 2]))
def test_equals_its_naive_twin(
    make_index: Make, data: st.DataObject, corpus: dict[str, Any], order: int | None, leave_out: str | None
) -> None:
    corpus["vocab_size"] = min(corpus["vocab_size"], 6)
    index = make_index(**corpus)
    rows = draw_rows(data, corpus, 2)
    following = np.roll(rows, -1, axis=1)
    recall = Recall(index.fitted("witten-bell", order), WEIGHTS, 0.0)
    options: dict[str, Any] = {"leave_out": leave_out}
    scores = recall.next_probabilities(index, rows, following, **options)
    targets = recall.smoothed_targets(index, rows, following, top_k=index.vocab_size, shortlist=None, **options)
    plain = index.smoothed_targets(
        rows, following, estimator=recall.estimator, top_k=index.vocab_size, shortlist=None, **options
    )
    for q, (b, t) in enumerate(np.ndindex(rows.shape)):
        dense = []
        for one in (plain, targets):
            part = slice(one.offsets[q], one.offsets[q + 1])
            assert (np.diff(one.token_ids[part]) > 0).all()
            p = one.rest[q] * one.base.astype(np.float64)
            p[one.token_ids[part]] += one.probs[part]
            dense.append(p)
        past = rows[b, : t + 1].tolist()
        if index.end_of_document in past:
            past = past[len(past) - 1 - past[::-1].index(index.end_of_document) :]
        expected = naive.recall(dense[0].tolist(), past, weights=weight_of, orders=ORDERS)
        assert dense[1] == pytest.approx(expected, abs=1e-6)
        assert dense[1].sum() == pytest.approx(1, abs=1e-6)
        assert scores[q] == pytest.approx(expected[following[b, t]], abs=1e-6)


def test_texts_that_repeat_their_own_words(make_index: Make) -> None:
    """Each document has a phrase of its own, which no other holds: recall learns it, from the index alone."""
    rng = np.random.default_rng(0)

    def document() -> list[int]:
        phrase = rng.integers(10, 60, 4).tolist()
        return [token for _ in range(12) for token in [*rng.integers(0, 10, 5).tolist(), *phrase]]

    index = make_index([document() for _ in range(40)], vocab_size=60)
    recall = fit_recall(index, "witten-bell", 3)
    again = fit_recall(index, "witten-bell", 3)
    assert np.array_equal(recall.weights, again.weights)
    assert ((recall.weights >= 0) & (recall.weights < 1)).all()
    rows = np.array([document() for _ in range(20)])
    ids, following = rows[:, :-1], rows[:, 1:]
    with_past = -np.log(recall.next_probabilities(index, ids, following)).mean()
    without = -np.log(index.next_probabilities(ids, following, estimator=recall.estimator)).mean()
    assert with_past < without - 0.5
    assert with_past == pytest.approx(recall.nats, abs=0.1)  # what it promised


def test_what_is_refused(make_index: Make) -> None:
    index = make_index([[1, 2, 3, 1], [2]], vocab_size=5)
    with pytest.raises(QueryError, match="no two documents"):
        fit_recall(index)
    recall = Recall(index.fitted("witten-bell"), WEIGHTS, 0.0)
    with pytest.raises(QueryError, match=r"ids must be in 0 .. 4"):
        recall.smoothed_targets(index, [[1, 5]])
    with pytest.raises(QueryError, match="float64"):
        recall.smoothed_targets(index, [[0.5]])
    assert recall.smoothed_targets(index, [[1]]).rest.size == 1
