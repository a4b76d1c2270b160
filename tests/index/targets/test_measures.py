"""Entropy and likeliest token against distributions that are written out over the vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import corpus_index.targets.measures as measures_module
import numpy as np
import pytest
from corpus_index import ESTIMATORS, CorpusIndex, measure
from hypothesis import given
from hypothesis import strategies as st

from ..conftest import corpora, draw_rows

Make = Callable[..., CorpusIndex]


@pytest.mark.parametrize("name", ESTIMATORS)
@given(data=st.data(), corpus=corpora(), order=st.sampled_from([None, 0, 1, 3]), starts=st.booleans())
def test_equals_the_written_out_ones(
    make_index: Make,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    data: st.DataObject,
    corpus: dict[str, Any],
    order: int | None,
    starts: bool,
) -> None:
    monkeypatch.setattr(measures_module, "_POSITIONS", 9)
    corpus["vocab_size"] = min(corpus["vocab_size"], 6)
    index = make_index(**corpus)
    rows = draw_rows(data, corpus, 3)
    options: dict[str, Any] = {"estimator": index.fitted(name, order), "starts_document": starts}
    dense = np.stack(
        [index.next_probabilities(rows, np.full_like(rows, w), **options) for w in range(index.vocab_size)], axis=1
    )
    actual = measure(index, rows, **options)
    logs = np.log(dense, out=np.zeros_like(dense), where=dense > 0)
    found = index.smoothed_targets(rows, **options)
    mixed = index.mixed_targets(rows, **options)  # float32, whose large terms cancel: digits are lost in proportion
    worst = float(np.abs(mixed.coefficients).max(initial=max(1.0, np.abs(found.rest).max())))
    assert actual.entropy == pytest.approx(-(dense * logs).sum(axis=1), abs=1e-5 * worst)
    assert actual.top_prob == pytest.approx(dense.max(axis=1), abs=1e-6 * worst)
    assert dense[np.arange(len(dense)), actual.top_token] == pytest.approx(dense.max(axis=1), abs=1e-6 * worst)
    assert np.array_equal(actual.match_len, found.match_len)
    assert np.array_equal(actual.context_count, found.context_count)


def test_the_smaller_of_equal_tokens(make_index: Make) -> None:
    index = make_index([[3, 1], [3, 2]], vocab_size=6)
    answer = measure(index, [[3, 5]])
    assert answer.top_token.tolist() == [1, 3]
    assert measure(index, [[0, 5]], max_order=0).top_token.tolist() == [3, 3]
