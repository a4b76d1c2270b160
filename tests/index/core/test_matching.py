"""The index against the oracle, on corpora and queries where the absent is as common as the present."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import corpus_index.core.derived as tables_module
import numpy as np
import pytest
from corpus_index import CorpusIndex, IndexFormatError, Match, QueryError, build_index
from corpus_index.reference.engine import ReferenceIndex
from hypothesis import given
from hypothesis import strategies as st

from ..conftest import corpora, draw_rows

Both = Callable[..., tuple[CorpusIndex, ReferenceIndex]]
Make = Callable[..., CorpusIndex]


@given(st.data(), corpora(), st.integers(1, 3), st.sampled_from([None, 0, 1, 2, 5]))
def test_match(make_both: Both, data: st.DataObject, corpus: dict[str, Any], min_count: int, order: int | None) -> None:
    index, reference = make_both(corpus)
    rows = draw_rows(data, corpus)
    starts = np.array(data.draw(st.lists(st.booleans(), min_size=3, max_size=3)))
    match = index.match(rows, min_count=min_count, max_order=order, starts_document=starts)
    for b, row in enumerate(rows.tolist()):
        expected = reference.match(row, min_count=min_count, max_order=order, starts_document=bool(starts[b]))
        actual = list(zip(*(part[b].tolist() for part in match), strict=True))
        assert actual == expected


@given(st.data(), corpora(), st.integers(1, 3), st.sampled_from([None, 0, 1, 2, 5]))
def test_next_tokens(
    make_both: Both, data: st.DataObject, corpus: dict[str, Any], min_count: int, order: int | None
) -> None:
    index, reference = make_both(corpus)
    rows = draw_rows(data, corpus)
    options: dict[str, Any] = {"min_count": min_count, "max_order": order, "starts_document": data.draw(st.booleans())}
    batch = index.next_tokens_batch(rows, **options)
    for b, row in enumerate(rows.tolist()):
        for t in range(len(row)):
            expected, match_len = reference.next_tokens(row[: t + 1], **options)
            actual = batch.at(b, t)
            assert dict(zip(actual.token_ids.tolist(), actual.counts.tolist(), strict=True)) == expected
            assert (actual.match_len, actual.context_count) == (match_len, sum(expected.values()))
            assert actual.token_ids.tolist() == sorted(expected)
        alone = index.next_tokens(row, **options)
        assert alone.token_ids.tolist() == actual.token_ids.tolist()
        assert alone.counts.tolist() == actual.counts.tolist()


@given(st.data(), corpora())
def test_count_and_positions(make_both: Both, data: st.DataObject, corpus: dict[str, Any]) -> None:
    index, reference = make_both(corpus)
    for ngram in [*draw_rows(data, corpus, 6).tolist(), [], [0]]:
        ngram = ngram[: data.draw(st.integers(0, 5))]
        expected = reference.positions(ngram)
        assert index.count(ngram) == len(expected)
        assert index.positions(ngram).tolist() == expected
        limit = data.draw(st.integers(0, 4))
        some = index.positions(ngram, limit=limit).tolist()
        assert len(some) == min(limit, len(expected))
        assert set(some) <= set(expected)


@given(st.data(), corpora())
def test_counts_sum_up(make_both: Both, data: st.DataObject, corpus: dict[str, Any]) -> None:
    """An n-gram's occurrences are its continuations and those at the end of a document."""
    index, _ = make_both(corpus)
    ngram = draw_rows(data, corpus, 1)[0][:3].tolist()
    if corpus["end_of_document"] in ngram:
        return
    followed = sum(index.count([*ngram, token]) for token in range(min(corpus["vocab_size"], 6)))
    ended = sum(document[len(document) - len(ngram) :] == ngram for document in corpus["documents"] if document)
    assert index.count(ngram) == followed + ended


@given(st.data(), corpora())
def test_renaming_tokens_commutes(make_index: Make, data: st.DataObject, corpus: dict[str, Any]) -> None:
    rows = draw_rows(data, corpus)
    plain = make_index(**corpus).match(rows)
    new = np.arange(corpus["vocab_size"] + 7)[::-1] * 3
    renamed = make_index(
        [new[document].tolist() if document else [] for document in corpus["documents"]],
        vocab_size=int(new.max()) + 1,
        end_of_document=None if corpus["end_of_document"] is None else int(new[corpus["end_of_document"]]),
    ).match(new[rows])
    assert np.array_equal(plain.match_len, renamed.match_len)
    assert np.array_equal(plain.hi - plain.lo, renamed.hi - renamed.lo)


@given(st.data(), corpora())
def test_workers_and_threads_change_nothing(make_index: Make, data: st.DataObject, corpus: dict[str, Any]) -> None:
    rows = np.tile(draw_rows(data, corpus), (20, 1))
    one = make_index(**corpus, workers=1)
    fingerprint, whole = one.fingerprint, one.match(rows)
    many = make_index(**corpus, workers=3)
    assert many.fingerprint == fingerprint
    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(many.match, [rows[:31], rows[31:]]))
    for part, first, second in zip(whole, *halves, strict=True):
        assert np.array_equal(part, np.concatenate([first, second]))


def test_matches_longer_than_common_tells(make_both: Both) -> None:
    """Shared lengths are stored up to 255; longer ones are looked up in the text."""
    rng = np.random.default_rng(0)
    part = rng.integers(0, 3, 400).tolist()
    documents = [part, [3, *part, 1], [2, *part, 2, *part[:300], 0], [1] * 600, [2, *[1] * 300, 0]]
    corpus = {"documents": documents, "vocab_size": 4, "end_of_document": None, "light": 2}
    index, reference = make_both(corpus)
    rows = [[*part[1:], 2, 2], [*part[:299], 0, 0, 0], [1] * 401, [*part[50:400], *([1] * 51)]]
    length = min(map(len, rows))
    for options in ({}, {"min_count": 2}, {"min_count": 3}, {"max_order": 300}, {"min_count": 3, "max_order": 270}):
        match = index.match([row[:length] for row in rows], **options)
        for b, row in enumerate(rows):
            for t in [250, 256, 257, 298, 299, 300, 301, length - 1]:
                symbols = reference.longest_match(row[: t + 1], **options)
                actual = (int(match.match_len[b, t]), int(match.hi[b, t] - match.lo[b, t]))
                assert actual == (len(symbols), reference.continuations(symbols).total()), (options, b, t)


@pytest.mark.parametrize("vocab_size", [65_535, 65_536, 65_537, 2**31])
def test_large_vocabularies(make_both: Both, vocab_size: int) -> None:
    last = vocab_size - 1
    documents = [[last, 5, last, 5, 7], [last - 1, last]]
    corpus = {"documents": documents, "vocab_size": vocab_size, "end_of_document": None, "light": 2}
    index, reference = make_both(corpus)
    assert index.tokens.tolist() == [last, 5, last, 5, 7, last - 1, last]
    for context in ([last], [5, last], [last - 1], [6], [last, 5], [last, 6]):
        actual = index.next_tokens(context)
        expected = reference.next_tokens(context)
        assert (dict(zip(actual.token_ids.tolist(), actual.counts.tolist(), strict=True)), actual.match_len) == expected
        assert index.count(context) == reference.count(context)


def test_document_of(make_index: Make) -> None:
    index = make_index([[], [1, 2], [], [3], []], vocab_size=4)
    assert index.document_of([0, 1, 2]).tolist() == [1, 1, 3]
    assert index.num_documents == 5
    assert index.doc_starts.tolist() == [0, 0, 2, 2, 3, 3]
    with pytest.raises(QueryError, match="position 3 is outside"):
        index.document_of(3)


@given(data=st.data(), corpus=corpora())
def test_document_ranks(
    make_index: Make, monkeypatch: pytest.MonkeyPatch, data: st.DataObject, corpus: dict[str, Any]
) -> None:
    """order is their inverse, however the documents are cut into pieces that step together."""
    monkeypatch.setattr(tables_module, "_SAMPLE_SHIFT", data.draw(st.integers(0, 4)))
    monkeypatch.setattr(tables_module, "LANES", data.draw(st.integers(1, 3)))
    index = make_index(**corpus)
    numbers = data.draw(st.lists(st.integers(0, index.num_documents - 1), max_size=6))
    offsets, ranks = index.document_ranks(numbers)
    starts = index.doc_starts
    expected = [np.arange(starts[number], starts[number + 1]) for number in numbers]
    assert np.diff(offsets).tolist() == [places.size for places in expected]
    assert index.array("order")[ranks].tolist() == [place for places in expected for place in places.tolist()]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda index: index.match([[0, 4]]), "token id 4 is outside of the index's vocabulary 0 .. 3"),
        (lambda index: index.next_tokens([-1]), "token id -1 is outside"),
        (lambda index: index.count([1.5]), "must be integers, not float64"),
        (lambda index: index.match(np.zeros((1, 1, 1), int)), r"shape \(B, T\)"),
        (lambda index: index.next_tokens([[1]]), "one sequence"),
        (lambda index: index.match([1], min_count=0), "min_count 0"),
        (lambda index: index.match([1], max_order=-1), "max_order -1"),
        (lambda index: index.positions([1], limit=-2), "limit -2"),
        (lambda index: index.array("nothing"), "no array 'nothing'"),
    ],
)
def test_bad_queries(make_index: Make, call: Callable[[CorpusIndex], object], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        call(make_index([[1, 2, 3]], vocab_size=4))


def test_empty_batches(make_index: Make) -> None:
    index = make_index([[1, 2, 3]], vocab_size=4)
    assert index.match(np.empty((0, 5), int)).lo.shape == (0, 5)
    assert index.match(np.empty((2, 0), int)).match_len.shape == (2, 0)
    assert index.next_tokens_batch(np.empty((2, 0), int)).rows.shape == (2, 0)


def test_closed(make_index: Make) -> None:
    with make_index([[1, 2, 3]], vocab_size=4) as index:
        assert index.count([1]) == 1
    with pytest.raises(QueryError, match="is closed"):
        index.match([1])
    with pytest.raises(QueryError, match="is closed"):
        index.count([1])


def _match_in_worker(index: CorpusIndex) -> Match:
    return index.match([1, 2, 1])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pickles_as_its_path(make_index: Make, method: str) -> None:
    index = make_index([[1, 2, 1, 2, 3]], vocab_size=4)
    with multiprocessing.get_context(method).Pool(1) as pool:
        answer = pool.apply(_match_in_worker, (index,))
    assert all(np.array_equal(a, b) for a, b in zip(answer, index.match([1, 2, 1]), strict=True))


def test_a_pickle_notices_another_index_at_its_path(make_index: Make) -> None:
    index = make_index([[1, 2, 1, 2, 3]], vocab_size=4)
    pickled = pickle.dumps(index)
    build_index([1, 2], index.path, vocab_size=4, overwrite=True)
    with pytest.raises(IndexFormatError, match="was replaced"):
        pickle.loads(pickled)


def test_the_oracle_would_notice(make_both: Both) -> None:
    """A test of the tests: with the shared lengths gone, the comparison above fails."""
    corpus = {"documents": [[0, 1, 0, 1, 1, 0, 1]], "vocab_size": 2, "end_of_document": None, "light": 2}
    index, reference = make_both(corpus)
    arrays = index.kernel_arrays()
    wrong = np.zeros_like(arrays.nodes.common)
    index._index = arrays._replace(nodes=arrays.nodes._replace(common=wrong))
    rows = [[1, 1, 1, 0, 0, 1], [0, 0, 0, 1, 1, 1], [1, 0, 0, 1, 0, 1]]
    actual = [tuple(part[b, t] for part in index.match(rows)) for b in range(3) for t in range(6)]
    expected = [answer for row in rows for answer in reference.match(row)]
    assert actual != expected
