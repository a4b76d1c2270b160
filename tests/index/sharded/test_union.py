"""Shards against one index over the same documents: whole numbers exactly, probabilities to the last bit.

Where the two may differ in the last digits, the test says why.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import ESTIMATORS, CorpusIndex, QueryError, ShardedIndex, build_index, open_index
from corpus_index.core.chains import counts_of_chains
from corpus_index.sharded import sharded_index
from corpus_index.sharded.row_store import RowStore
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ..conftest import corpora, draw_rows
from .conftest import Both, cut_places

ORDERS = st.sampled_from([None, 0, 1, 3])


def following_of(rows: np.ndarray) -> np.ndarray:
    """The next tokens of rows, the last of one row unknown."""
    return np.append(rows[:, 1:], [[-1], [rows[1, 0]]], axis=1)


@given(data=st.data(), corpus=corpora(), cuts=cut_places, order=ORDERS, starts=st.booleans())
def test_counts(
    make_sharded: Both, data: st.DataObject, corpus: dict[str, Any], cuts: list[int], order: int | None, starts: bool
) -> None:
    index, shards = make_sharded(corpus, cuts)
    rows = draw_rows(data, corpus, 3)
    least = data.draw(st.integers(1, 3))
    for size in (0, 1, 2, 5):
        ngram = rows[0, :size]
        assert shards.count(ngram) == index.count(ngram)
        assert np.sort(shards.positions(ngram)).tolist() == index.positions(ngram).tolist()
        assert shards.positions(ngram, limit=2).size == min(2, index.count(ngram))
        expected = index.next_tokens(ngram, max_order=order, min_count=least, starts_document=starts)
        actual = shards.next_tokens(ngram, max_order=order, min_count=least, starts_document=starts)
        assert [np.asarray(part).tolist() for part in actual] == [np.asarray(part).tolist() for part in expected]
        votes, others = (
            one.documents_of(ngram, max_order=order, starts_document=starts, min_count=least) for one in (index, shards)
        )
        assert [np.asarray(part).tolist() for part in others] == [np.asarray(part).tolist() for part in votes]
    match = shards.match(rows, max_order=order, min_count=least, starts_document=starts)
    expected_match = index.match(rows, max_order=order, min_count=least, starts_document=starts)
    assert match.match_len.tolist() == expected_match.match_len.tolist()
    assert (match.hi - match.lo).tolist() == (expected_match.hi - expected_match.lo).tolist()
    batch = shards.next_tokens_batch(rows, max_order=order, min_count=least, starts_document=starts)
    expected_batch = index.next_tokens_batch(rows, max_order=order, min_count=least, starts_document=starts)
    for b, t in np.ndindex(rows.shape):
        for actual_part, expected_part in zip(batch.at(b, t), expected_batch.at(b, t), strict=True):
            assert np.asarray(actual_part).tolist() == np.asarray(expected_part).tolist()
    places = shards.array("order")[match.lo]
    for (b, t), place in np.ndenumerate(places):
        length = int(match.match_len[b, t])
        assert shards.tokens[int(place) - length : int(place)].tolist() == rows[b, t + 1 - length : t + 1].tolist()


@given(
    data=st.data(),
    corpus=corpora(),
    cuts=cut_places,
    order=ORDERS,
    leave_out=st.sampled_from([None, "self", "document"]),
    starts=st.booleans(),
)
def test_chains(
    make_sharded: Both,
    data: st.DataObject,
    corpus: dict[str, Any],
    cuts: list[int],
    order: int | None,
    leave_out: str | None,
    starts: bool,
) -> None:
    index, shards = make_sharded(corpus, cuts)
    rows = draw_rows(data, corpus, 2)
    assume(index.num_tokens > rows.shape[1])
    options: dict[str, Any] = {"max_order": order, "leave_out": leave_out, "starts_document": starts, "left": True}
    if leave_out == "document":
        options["positions"] = [data.draw(st.integers(0, index.num_tokens - rows.shape[1] - 1)), 0]
    expected, actual = (counts_of_chains(one, rows, following_of(rows), **options) for one in (index, shards))
    for name in ("offsets", "depths", "shallower", "occurrences", "from_start", "counts_occurrences", "alone"):
        assert getattr(actual, name).tolist() == getattr(expected, name).tolist(), name
    for node in range(expected.depths.size):
        tokens, counts, lefts = expected.continuations(node)
        found = actual.continuations(node)
        assert found[0].tolist() == index.ids_of(tokens).tolist()
        assert found[1].tolist() == counts.tolist()
        position = int(np.searchsorted(expected.offsets, node, side="right")) - 1
        top = node == expected.offsets[position]
        if not (expected.depths[node] == order or (top and expected.counts_occurrences[position])):
            assert found[2].tolist() == lefts.tolist()
            assert actual.lefts[node].tolist() == expected.lefts[node].tolist()


@pytest.mark.parametrize("leave_out", [None, "self", "document"])
@pytest.mark.parametrize("name", ESTIMATORS)
@settings(max_examples=max(4, settings().max_examples // 5))
@given(data=st.data(), corpus=corpora(), cuts=cut_places, order=ORDERS, starts=st.booleans())
def test_every_estimator(
    make_sharded: Both,
    data: st.DataObject,
    name: str,
    leave_out: str | None,
    corpus: dict[str, Any],
    cuts: list[int],
    order: int | None,
    starts: bool,
) -> None:
    index, shards = make_sharded(corpus, cuts)
    rows = draw_rows(data, corpus, 2)
    assume(index.num_tokens > rows.shape[1])
    documents = sum(map(bool, corpus["documents"]))
    assume(name != "mle" or leave_out != "document" or documents > 1)  # without its one document a corpus says nothing
    fitted = index.fitted(name, order)
    estimator = shards.fitted({key: getattr(fitted, key) for key in ("name", "max_order", *fitted.row.parameters)})
    options: dict[str, Any] = {"estimator": estimator, "leave_out": leave_out, "starts_document": starts}
    if leave_out == "document":
        options["positions"] = [data.draw(st.integers(0, index.num_tokens - rows.shape[1] - 1)), 0]
    following = following_of(rows)
    expected = index.next_probabilities(rows, following, **options | {"estimator": fitted})
    actual = shards.next_probabilities(rows, following, **options)
    if fitted.excludes or leave_out == "document":  # sums of a row's, or a document's, parts run in another order
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-300)
    else:
        assert actual.tolist() == pytest.approx(expected.tolist(), rel=0, abs=0, nan_ok=True)
    np.testing.assert_array_equal(shards.base_distribution(estimator), index.base_distribution(fitted))
    whole = {"top_k": index.vocab_size, "shortlist": None}
    targets = index.smoothed_targets(rows, following, **whole, **options | {"estimator": fitted})
    found = shards.smoothed_targets(rows, following, **whole, **options)
    for part in ("match_len", "context_count"):
        assert getattr(found, part).tolist() == getattr(targets, part).tolist()
    # float32: wide contexts are added to the pairs of others; in mixed form their coefficients are rounded too
    # and pairs of estimators with exclusion are differences to the rest, which may be large
    rounding = 1e-6 * max(1.0, float(targets.rest.max()))
    np.testing.assert_allclose(found.dense(), targets.dense(), atol=rounding)
    mixed = shards.mixed_targets(rows, following, **options)
    digits = 2.0**-24 * float(np.abs(mixed.coefficients).max(initial=0.0)) * int(targets.context_count.max(initial=0))
    np.testing.assert_allclose(mixed.dense(shards.row_table(estimator)), targets.dense(), atol=5 * rounding + digits)
    # rows of wide contexts are referred to, and listed in whole: nothing is cut
    listed = {"top_k": max(1, index.vocab_size - 1), "shortlist": index.vocab_size}
    asked = shards.smoothed_targets(rows, following, **listed, **options)
    near = np.abs(asked.dense() - targets.dense()).max(axis=1)
    assert (near <= 5 * rounding + digits + asked.cut_mass).all()
    # of tokens that are as likely as each other, which stay among the few is chance; and what is left out stands among
    # them where a row has it, though nothing of it be left
    if fitted.excludes or leave_out is not None:
        return
    few = {"top_k": 2, "shortlist": None}
    dense = targets.dense()
    pairs = np.sort(dense - targets.rest[:, None] * targets.base)
    clear = np.ones(len(dense), np.bool_)  # of tokens that tie, which stay is chance
    if index.vocab_size > 2:
        clear = (pairs[:, -2] - pairs[:, -3] > 1e-4) & (np.diff(np.sort(dense))[:, -2] > 1e-4)
    np.testing.assert_allclose(
        shards.smoothed_targets(rows, following, **few, **options).dense()[clear],
        index.smoothed_targets(rows, following, **few, **options | {"estimator": fitted}).dense()[clear],
        atol=rounding,
    )


@pytest.mark.parametrize("name", ["kneser-ney", "modified-kneser-ney", "pitman-yor", "auto"])
def test_contexts_that_always_stand_in_one_longer_context(make_sharded: Both, name: str) -> None:
    """9 precedes 1 wherever that occurs, which rows that begin at 1 don't know: to the last bit all the same."""
    rng = np.random.default_rng(0)
    texts = [rng.zipf(1.3, 200).clip(max=8) for _ in range(6)]
    documents = [np.insert(text, np.flatnonzero(text == 1), 9).tolist() for text in texts]
    corpus = {"documents": documents, "vocab_size": 10, "end_of_document": None, "light": 2, "deepest": None}
    index, shards = make_sharded(corpus, [2, 4])
    rows = np.array([[1, first] for first in range(1, 9) for _ in range(8)])
    following = np.array([[first, second] for first in range(1, 9) for second in range(1, 9)])
    fitted = index.fitted(name, 4)
    estimator = shards.fitted({key: getattr(fitted, key) for key in ("name", "max_order", *fitted.row.parameters)})
    expected = index.next_probabilities(rows, following, estimator=fitted)
    assert shards.next_probabilities(rows, following, estimator=estimator).tolist() == expected.tolist()


def test_open_index_opens_either_kind(make_sharded: Both) -> None:
    corpus = {"documents": [[1, 2], [1, 2, 3]], "vocab_size": 4, "end_of_document": None, "light": 2, "deepest": None}
    index, shards = make_sharded(corpus, [1])
    assert type(open_index(index.path)) is CorpusIndex
    opened = open_index(shards.path)
    assert type(opened) is ShardedIndex
    assert opened.fingerprint == shards.fingerprint
    assert [opened.document(number).name for number in (0, 1)] == ["document 0", "document 1"]
    assert opened.document(1).start == 2
    with pytest.raises(QueryError, match=r"documents are 0 \.\. 1"):
        opened.document(2)
    with pytest.raises(QueryError, match="each shard's own"):
        opened.array("next_tokens")


def test_threads_that_ask_first_share_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are numbered by what keeps them: two threads with one each would take rows of the other's numbers."""
    build_index(np.array([1, 2, 3, 1, 2]), tmp_path / "index", doc_starts=[0, 3, 5], shard_tokens=3).close()
    both = threading.Barrier(2)

    class Slow(RowStore):
        def __init__(self, *arguments: Any) -> None:
            both.wait(60)
            super().__init__(*arguments)

    monkeypatch.setattr(sharded_index, "RowStore", Slow)
    with ShardedIndex.open(tmp_path / "index") as index, ThreadPoolExecutor(2) as pool:
        one, other = pool.map(index.row_store, [False, False])
    assert one is other
