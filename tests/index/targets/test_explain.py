"""What each order adds: the parts sum to the target, for every estimator, and are what is worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from corpus_index import ESTIMATORS, CorpusIndex, OrderShare, QueryError, make_estimator
from corpus_index.reference.engine import ReferenceIndex
from hypothesis import given
from hypothesis import strategies as st

from ..conftest import corpora, draw_rows

Both = Callable[..., tuple[CorpusIndex, ReferenceIndex]]
Make = Callable[..., CorpusIndex]


def target(index: CorpusIndex, row: list[int], **options: Any) -> np.ndarray:
    """The smoothed distribution after a row, over V."""
    found = index.smoothed_targets([row], only_last=True, top_k=index.vocab_size, shortlist=None, **options)
    probs = float(found.rest[0]) * found.base.astype(np.float64)
    probs[found.token_ids] += found.probs
    return probs


@pytest.mark.parametrize("name", ESTIMATORS)
@given(data=st.data(), corpus=corpora(), order=st.sampled_from([None, 0, 1, 3]), starts=st.booleans())
def test_parts_sum_to_the_target(
    make_both: Both, name: str, data: st.DataObject, corpus: dict[str, Any], order: int | None, starts: bool
) -> None:
    corpus["vocab_size"] = min(corpus["vocab_size"], 6)
    index, _ = make_both(corpus)
    row = draw_rows(data, corpus, 1)[0].tolist()
    estimator = make_estimator(name, order).fit(index)
    answer = index.explain(row, estimator=estimator, starts_document=starts, top=index.vocab_size)
    assert answer.contributions.sum(1) == pytest.approx(answer.probs)
    assert (np.diff(answer.probs) <= 0).all()
    expected = target(index, row, estimator=estimator, starts_document=starts)
    assert answer.probs == pytest.approx(expected[answer.token_ids], abs=1e-6)
    assert [one.order for one in answer.orders] == list(range(len(answer.orders)))
    reaching = 1.0
    for place in range(len(answer.orders) - 1, -1, -1):
        one = answer.orders[place]
        assert one.kept + one.passed == pytest.approx(1)
        assert answer.contributions[:, place].sum() == pytest.approx(reaching * one.kept, abs=1e-7)
        reaching *= one.passed
    assert reaching == pytest.approx(0, abs=1e-7)


def test_witten_bell_by_hand(make_index: Make) -> None:
    # after 2: 1 and 3, once each, of five tokens; the base is (c + 3/4) / (5 + 3)
    index = make_index([[1, 2, 1, 2, 3]], vocab_size=4)
    answer = index.explain([2], max_order=1, top=4)
    assert answer.token_ids.tolist() == [1, 3, 2, 0]
    assert answer.contributions[:, 0] == pytest.approx(np.array([2.75, 1.75, 2.75, 0.75]) / 8 / 2)
    assert answer.contributions[:, 1] == pytest.approx([0.25, 0.25, 0, 0])
    assert answer.orders == [OrderShare(0, 5, 3, 1.0, 0.0), OrderShare(1, 2, 2, 0.5, 0.5)]


def test_a_token_has_its_probability_from_one_order(make_index: Make) -> None:
    index = make_index([[1, 2, 1, 2, 3, 2, 2, 2]], vocab_size=5)
    for name in ("katz", "ppm-c", "stupid-backoff"):
        answer = index.explain([1, 2], estimator=name, top=5)
        assert len(answer.orders) == 3
        assert ((answer.contributions > 0).sum(1) == 1).all()


def test_the_empty_context(make_index: Make) -> None:
    index = make_index([[1, 2], [1, 3]], vocab_size=4)
    base = index.explain([], top=1)
    assert (base.token_ids.tolist(), len(base.orders)) == ([1], 1)
    started = index.explain([], starts_document=True, top=1)
    assert started.probs[0] > base.probs[0]
    assert (started.orders[1].count, started.orders[1].distinct) == (2, 1)


def test_a_match_longer_than_shared_lengths_are_stored(make_index: Make) -> None:
    rng = np.random.default_rng(0)
    repeated = rng.integers(0, 3, 300).tolist()
    index = make_index([[3, *repeated, 1], [4, *repeated, 2, 0]], vocab_size=6)
    for name in ("witten-bell", "katz"):
        answer = index.explain(repeated, estimator=name, top=6)
        assert len(answer.orders) == 301
        expected = target(index, repeated, estimator=name)
        assert answer.probs == pytest.approx(expected[answer.token_ids], abs=1e-6)
    fitted = replace(make_estimator("kneser-ney", None, discounts=((0.5, 0.5, 0.5),)))
    answer = index.explain(repeated, estimator=fitted, top=6)
    assert answer.probs == pytest.approx(target(index, repeated, estimator=fitted)[answer.token_ids], abs=1e-6)


def test_bad_options(make_index: Make) -> None:
    index = make_index([[1, 2]], vocab_size=4)
    with pytest.raises(QueryError, match="top 0 must be at least 1"):
        index.explain([1], top=0)
    with pytest.raises(QueryError, match="token id 4 is outside"):
        index.explain([4])
