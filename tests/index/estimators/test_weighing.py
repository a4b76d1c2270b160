"""The rules over counts of chains against the fused kernels, for every estimator and way of leaving out.

Both do the same sums of the same whole numbers in float64, in another order: so probabilities agree to a few units in
the last place of float64, and targets, which are kept in float32, to one of float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from corpus_index import ESTIMATORS, CorpusIndex
from corpus_index.core.chains import ChainCounts, counts_of_chains
from corpus_index.estimators.weighing import distributions, label_probabilities, root_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ..conftest import corpora, draw_rows

Make = Callable[..., CorpusIndex]


def over_vocabulary(index: CorpusIndex, by_symbol: np.ndarray) -> np.ndarray:
    """Distributions over V from those over symbols and one unseen token."""
    out = np.repeat(by_symbol[:, -1:], index.vocab_size, axis=1)
    out[:, index.ids_of(np.arange(index.num_symbols))] = by_symbol[:, :-1]
    return out


@pytest.mark.parametrize("leave_out", [None, "self", "document"])
@pytest.mark.parametrize("name", ESTIMATORS)
@settings(max_examples=max(4, settings().max_examples // 2))
@given(data=st.data(), corpus=corpora(), order=st.sampled_from([None, 0, 1, 3]), starts=st.booleans())
def test_equal_the_fused_kernels(
    make_index: Make,
    data: st.DataObject,
    name: str,
    leave_out: str | None,
    corpus: dict[str, Any],
    order: int | None,
    starts: bool,
) -> None:
    corpus["vocab_size"] = min(corpus["vocab_size"], 6)
    index = make_index(**corpus)
    rows = draw_rows(data, corpus, 2)
    if index.num_tokens < rows.shape[1] + 1:
        return
    documents = sum(map(bool, corpus["documents"]))
    assume(name != "mle" or leave_out != "document" or documents > 1)  # without its one document a corpus says nothing
    following = np.append(rows[:, 1:], [[-1], [rows[1, 0]]], axis=1)
    estimator = index.fitted(name, order)
    options: dict[str, Any] = {"leave_out": leave_out, "starts_document": starts}
    if leave_out == "document":
        options["positions"] = [data.draw(st.integers(0, index.num_tokens - rows.shape[1] - 1)), 0]
    left = estimator.uses_left_counts
    chains = counts_of_chains(index, rows, following, max_order=estimator.max_order, left=left, **options)
    root = root_of(index, left)
    fused = index.next_probabilities(rows, following, estimator=estimator, **options)
    np.testing.assert_allclose(label_probabilities(estimator, chains, root), fused, rtol=1e-9, atol=1e-13)
    targets = index.smoothed_targets(rows, following, estimator=estimator, top_k=index.vocab_size, **options)
    weighed = over_vocabulary(index, distributions(estimator, chains, root))
    np.testing.assert_allclose(weighed.sum(axis=1), 1, atol=1e-9)
    np.testing.assert_allclose(weighed, targets.dense(), atol=2e-6)


def test_the_rules_read_nothing_but_the_chain(make_index: Make) -> None:
    """Witten–Bell after a context with counts of 2 and 1, by hand; and with counts that no index made."""
    index = make_index([[0, 1, 0, 1, 0, 2]], 3)
    made = counts_of_chains(index, [[0]], [[1]])
    assert isinstance(made, ChainCounts)
    assert made.occurrences.tolist() == [[2, 3, 1, 1, 0], [2, 6, 1, 1, 1]]
    estimator = index.fitted("witten-bell")
    base = (2 + 3 / 3) / (6 + 3)
    assert label_probabilities(estimator, made, root_of(index, False)).tolist() == pytest.approx([(2 + 2 * base) / 5])
    other = made._replace(occurrences=np.array([[4, 6, 0, 1, 1], [2, 6, 1, 1, 1]]))
    assert label_probabilities(estimator, other, root_of(index, False))[0] == pytest.approx((4 + 2 * base) / 8)
