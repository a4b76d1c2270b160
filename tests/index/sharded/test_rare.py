"""What is asked of shards now and then: fits, explanations, near-duplicates, ARPA files, draws, measures, recall."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from corpus_index import draw_tokens, fit_recall, make_estimator, measure, near_duplicates, write_arpa
from corpus_index.core.duplicates import shared_across_documents
from corpus_index.estimators.counts_of_counts import counts_of_counts, kenlm_shift
from corpus_index.estimators.held_out_evidence import Evidence, leave_documents_out
from hypothesis import given
from hypothesis import strategies as st

from ..conftest import corpora, draw_rows
from .conftest import Both, cut_places
from .test_union import following_of


@given(corpus=corpora(), cuts=cut_places, order=st.integers(0, 5), left=st.booleans())
def test_counts_of_counts(make_sharded: Both, corpus: dict[str, Any], cuts: list[int], order: int, left: bool) -> None:
    index, shards = make_sharded(corpus, cuts)
    for most in (4, 6):
        expected = counts_of_counts(index, order, left=left, most=most)
        assert counts_of_counts(shards, order, left=left, most=most).tolist() == expected.tolist()
    assert kenlm_shift(shards, order).tolist() == kenlm_shift(index, order).tolist()


@given(corpus=corpora(), cuts=cut_places, order=st.sampled_from([0, 1, 3, 24]))
def test_evidence(make_sharded: Both, corpus: dict[str, Any], cuts: list[int], order: int) -> None:
    index, shards = make_sharded(corpus, cuts)
    expected = leave_documents_out(index, order, positions=40, walked=30)
    actual = leave_documents_out(shards, order, positions=40, walked=30)
    for name in Evidence._fields:
        assert np.asarray(getattr(actual, name)).tolist() == np.asarray(getattr(expected, name)).tolist(), name


@pytest.mark.parametrize("name", ["modified-kneser-ney", "katz", "auto", "pitman-yor", "jelinek-mercer", "dirichlet"])
def test_fits(make_sharded: Both, name: str) -> None:
    rng = np.random.default_rng(0)
    documents = [rng.choice(6, size=30, p=[0.4, 0.2, 0.2, 0.1, 0.05, 0.05]).tolist() for _ in range(20)]
    corpus = {"documents": documents, "vocab_size": 7, "end_of_document": None, "light": 4, "deepest": None}
    index, shards = make_sharded(corpus, [4, 5, 11])
    assert len(shards.shards) == 4
    expected, actual = (one.fitted(name, 3) for one in (index, shards))
    for part in ("discounts", "strengths", "ratios", "facts"):
        assert getattr(actual, part) == getattr(expected, part)


@pytest.mark.parametrize("name", ["witten-bell", "modified-kneser-ney", "pitman-yor", "katz", "add-k"])
@given(data=st.data(), corpus=corpora(), cuts=cut_places, order=st.sampled_from([None, 0, 1, 3]), starts=st.booleans())
def test_explain(
    make_sharded: Both,
    data: st.DataObject,
    name: str,
    corpus: dict[str, Any],
    cuts: list[int],
    order: int | None,
    starts: bool,
) -> None:
    index, shards = make_sharded(corpus, cuts)
    estimator = make_estimator(
        name, order, **({"discounts": ((0.5, 1.0, 1.5),)} if name == "modified-kneser-ney" else {})
    )
    if name == "pitman-yor":
        estimator = make_estimator(name, order, discounts=((0.5, 0.5, 0.5),), strengths=((0.2,),))
    if name == "katz":
        estimator = make_estimator(name, order, ratios=((0.5, 0.7),))
    context = draw_rows(data, corpus, 1)[0][: data.draw(st.integers(0, 6))]
    expected, actual = (
        one.explain(context, estimator=estimator, starts_document=starts, top=4) for one in (index, shards)
    )
    assert actual.orders == expected.orders
    assert actual.probs.tolist() == pytest.approx(expected.probs.tolist())
    np.testing.assert_allclose(actual.contributions.sum(axis=0), expected.contributions.sum(axis=0), atol=1e-12)


@given(corpus=corpora(), cuts=cut_places)
def test_near_duplicates(make_sharded: Both, corpus: dict[str, Any], cuts: list[int]) -> None:
    index, shards = make_sharded(corpus, cuts)
    assert shared_across_documents(shards)[0].tolist() == shared_across_documents(index)[0].tolist()
    expected = near_duplicates(index, [1, 2, 3, 7], top_length=2)
    actual = near_duplicates(shards, [1, 2, 3, 7], top_length=2)
    for name in ("lengths", "positions", "tokens", "histogram", "documents"):
        assert getattr(actual, name).tolist() == getattr(expected, name).tolist(), name
    partner, shared = shared_across_documents(shards)[1], shared_across_documents(shards)[0]
    starts, tokens = shards.doc_starts, np.asarray(shards.tokens).tolist()
    for position in np.flatnonzero(shared).tolist():
        passage = tokens[position - int(shared[position]) : position]
        other = tokens[starts[partner[position]] : starts[partner[position] + 1]]
        assert any(other[at : at + len(passage)] == passage for at in range(len(other) - len(passage) + 1))
        assert partner[position] != shards.document_of([position])[0]


@given(corpus=corpora(), cuts=cut_places, order=st.integers(0, 3))
def test_arpa(make_sharded: Both, corpus: dict[str, Any], cuts: list[int], order: int) -> None:
    index, shards = make_sharded(corpus, cuts)
    texts = []
    for one in (index, shards):
        file = io.BytesIO()
        listed = write_arpa(one, make_estimator("modified-kneser-ney", order), file)
        texts.append((listed, file.getvalue()))
    assert texts[0] == texts[1]


@given(data=st.data(), corpus=corpora(), cuts=cut_places)
def test_draws_measures_and_scores(
    make_sharded: Both, data: st.DataObject, corpus: dict[str, Any], cuts: list[int]
) -> None:
    index, shards = make_sharded(corpus, cuts)
    rows = draw_rows(data, corpus, 2)
    expected, actual = (measure(one, rows, max_order=3) for one in (index, shards))
    np.testing.assert_allclose(actual.entropy, expected.entropy, atol=1e-5)
    np.testing.assert_allclose(actual.top_prob, expected.top_prob, atol=1e-6)
    scores = [one.backoff_scores(rows, following_of(rows), leave_out="self") for one in (index, shards)]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-12)
    if shards.vocab_size > 10:
        return  # too many tokens for shares of a few hundred draws
    drawn = draw_tokens(shards, np.repeat(rows[:1], 400, axis=0), np.random.default_rng(0), max_order=2)
    p = shards.smoothed_targets(rows[:1], max_order=2, top_k=shards.vocab_size, only_last=True).dense()[0]
    shares = np.bincount(drawn.token_ids, minlength=p.size) / 400
    np.testing.assert_allclose(shares, p, atol=0.15)
    sampled = shards.sampled_targets(rows, draws=300, seed=0).dense()
    np.testing.assert_allclose(sampled, shards.smoothed_targets(rows, top_k=shards.vocab_size).dense(), atol=0.15)


def test_recall(make_sharded: Both) -> None:
    rng = np.random.default_rng(0)
    corpus = {
        "documents": [rng.integers(0, 5, 40).tolist() for _ in range(6)],
        "vocab_size": 5,
        "end_of_document": None,
        "light": 4,
        "deepest": None,
    }
    index, shards = make_sharded(corpus, [2, 3])
    expected, actual = (fit_recall(one, "witten-bell", 3) for one in (index, shards))
    np.testing.assert_allclose(actual.weights, expected.weights, rtol=1e-9)
    rows = np.array(corpus["documents"])[:2]
    np.testing.assert_allclose(
        actual.next_probabilities(shards, rows, following_of(rows)),
        expected.next_probabilities(index, rows, following_of(rows)),
        rtol=1e-9,
    )
    assert actual.smoothed_targets(shards, rows).rest.shape == (rows.size,)
