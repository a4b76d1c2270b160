"""Scorers against the naive twins and `next_probabilities`, pieces and lanes of any length, what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import corpus_index.reference.estimators as naive
import corpus_index.targets.scorer as scorer_module
import numpy as np
import pytest
from corpus_index import CorpusIndex, QueryError, make_estimator
from corpus_index.reference.engine import ReferenceIndex
from hypothesis import given
from hypothesis import strategies as st

from ..conftest import corpora, draw_rows

Both = Callable[..., tuple[CorpusIndex, ReferenceIndex]]
Make = Callable[..., CorpusIndex]

ONE = [0.3, 0.7, 0.45]
THREE = [(0.3, 1.1, 1.2), (0.7, 0.9, 1.9), (0.2, 0.4, 0.6)]
CASES: dict[str, tuple[dict[str, Any], Callable[..., list[float]], dict[str, Any]]] = {
    "kneser-ney": ({"discounts": tuple((cut,) * 3 for cut in ONE)}, naive.kneser_ney, {"discounts": ONE}),
    "modified-kneser-ney": (
        {"discounts": tuple(THREE), "convention": "kenlm"},
        naive.modified_kneser_ney,
        {"discounts": THREE, "convention": "kenlm"},
    ),
}


@pytest.mark.parametrize("name", CASES)
@given(data=st.data(), corpus=corpora(), order=st.sampled_from([1, 2, 4, 6]))
def test_equals_its_naive_twin(
    make_both: Both,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    data: st.DataObject,
    corpus: dict[str, Any],
    order: int,
) -> None:
    for constant in ("_PIECE", "LANES", "_TOGETHER"):
        monkeypatch.setattr(scorer_module, constant, data.draw(st.sampled_from([1, 3, 32])))
    corpus["vocab_size"] = min(corpus["vocab_size"], 6)
    parameters, twin, twin_parameters = CASES[name]
    index, reference = make_both(corpus)
    rows = draw_rows(data, corpus)
    starts = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    estimator = make_estimator(name, order, **parameters)
    actual = index.scorer(estimator).probabilities(rows, starts_document=starts)
    for row, start, found in zip(rows.tolist(), starts, actual, strict=True):
        for t, token in enumerate(row):
            known = reference.known_symbols(row[:t], start)
            expected = twin(reference, known, max_order=order, **twin_parameters)
            assert found[t] == pytest.approx(expected[token], rel=2e-6)


@given(data=st.data(), corpus=corpora())
def test_one_text_is_as_its_parts(make_index: Make, data: st.DataObject, corpus: dict[str, Any]) -> None:
    index = make_index(**corpus)
    rows = draw_rows(data, corpus, 2)
    scorer = index.scorer("modified-kneser-ney", 3)
    together = scorer.probabilities(rows)
    assert np.array_equal(together, np.stack([scorer.probabilities(row) for row in rows]))
    asked = index.next_probabilities(rows[:, :-1], rows[:, 1:], estimator="modified-kneser-ney", max_order=3)
    assert together[:, 1:].reshape(-1) == pytest.approx(asked, rel=2e-6)


@given(data=st.data(), corpus=corpora(), lengths=st.lists(st.sampled_from([0, 1, 2, 7]), min_size=0, max_size=6))
def test_documents_are_as_each_alone(
    make_index: Make, data: st.DataObject, corpus: dict[str, Any], lengths: list[int]
) -> None:
    scorer = make_index(**corpus).scorer("kneser-ney", 2)
    last = corpus["vocab_size"] - 1
    documents = [data.draw(st.lists(st.integers(0, last), min_size=size, max_size=size)) for size in lengths]
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int64)
    together = scorer.document_probabilities(np.array([*chain(*documents)], np.int64), offsets)
    alone = (scorer.probabilities(one, starts_document=True).tolist() for one in documents if one)
    assert together.tolist() == [*chain(*alone)]


@pytest.mark.parametrize(
    ("ids", "offsets", "message"),
    [
        ([0, 1], [0, 1], "ascend from 0 to the 2 tokens"),
        ([0, 1], [0, 2, 1], "ascend"),
        ([0, 1], [1, 2], "ascend"),
        ([0, 1], [0.0, 2.0], "of integers"),
        ([0, 1], [], "of integers"),
        ([[0, 1]], [0, 2], "one dimension"),
    ],
)
def test_offsets_that_are_none(make_index: Make, ids: list[int], offsets: list[int], message: str) -> None:
    scorer = make_index([[0, 1, 1]], 2).scorer("kneser-ney", 1)
    with pytest.raises(QueryError, match=message):
        scorer.document_probabilities(ids, offsets)


def test_a_long_text_is_cut_into_pieces(make_index: Make) -> None:
    rng = np.random.default_rng(3)
    documents = [rng.integers(0, 30, 200).tolist() for _ in range(40)]
    index = make_index(documents, 30, light=128)
    text = np.concatenate([documents[3], rng.integers(0, 30, 3000), documents[9]])
    found = index.scorer("modified-kneser-ney", 4).probabilities(text, starts_document=True)
    asked = index.next_probabilities(
        text[:-1], text[1:], estimator="modified-kneser-ney", max_order=4, starts_document=True
    )
    assert found[1:] == pytest.approx(asked, rel=2e-6)


def test_an_n_gram_that_only_ends_documents(make_both: Both) -> None:
    index, reference = make_both(
        {"documents": [[1, 2, 3], [2, 2, 3], [3, 1, 1]], "vocab_size": 5, "end_of_document": None}
    )
    found = index.scorer(make_estimator("kneser-ney", 2, discounts=((0.5,) * 3,))).probabilities([[1, 2, 3], [1, 1, 4]])
    for row, probs in zip([[1, 2, 3], [1, 1, 4]], found, strict=True):
        for t, token in enumerate(row):
            known = reference.known_symbols(row[:t], False)
            expected = naive.kneser_ney(reference, known, discounts=[0.5], max_order=2)
            assert probs[t] == pytest.approx(expected[token], rel=1e-6)


def test_what_it_says_of_itself(make_index: Make) -> None:
    scorer = make_index([[1, 2, 1, 2, 3]], 5).scorer("kneser-ney", 1)
    assert repr(scorer) == f"<Scorer kneser-ney 1: {sum(scorer.ngrams)} n-grams>"
    assert len(scorer.ngrams) == 2
    assert scorer.size_bytes > 4 * sum(scorer.ngrams)
    assert scorer.probabilities(np.empty((0, 3), np.int64)).shape == (0, 3)
    assert scorer.probabilities([2]).shape == (1,)


@pytest.mark.parametrize(
    ("estimator", "order", "message"),
    [
        ("witten-bell", 4, "a scorer can't hold witten-bell"),
        ("modified-kneser-ney", None, "a scorer needs a max_order of at least 1, not None"),
        ("modified-kneser-ney", 0, "a scorer needs a max_order of at least 1, not 0"),
    ],
)
def test_refuses(make_index: Make, estimator: str, order: int | None, message: str) -> None:
    index = make_index([[1, 2, 1, 2, 3]], 5)
    with pytest.raises(QueryError, match=message):
        index.scorer(estimator, order)  # type: ignore[arg-type]


def test_refuses_tokens_beyond_the_vocabulary(make_index: Make, tmp_path: Path) -> None:
    scorer = make_index([[1, 2, 1, 2, 3]], 5).scorer("kneser-ney", 1)
    with pytest.raises(QueryError, match="token id 5 is outside"):
        scorer.probabilities([1, 5])
