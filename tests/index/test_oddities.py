"""Slips of callers: each is one of our errors, in a sentence with the value; and answers at the edges of options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpus_index
import numpy as np
import pytest
from corpus_index import ESTIMATORS, CorpusError, CorpusIndex, QueryError
from corpus_index.reference import ReferenceIndex

Make = Callable[..., CorpusIndex]
DOCUMENTS = [[1, 2, 3, 1, 2], [2, 3, 1, 0], [1, 2, 2, 3]]
ROWS, LABELS = [[1, 2], [2, 3]], [[2, 3], [3, 1]]


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda i: i.match([[1]], max_order=2.5), "max_order 2.5 must be a whole number"),
        (lambda i: i.match([[1]], max_order=2**63), "max_order 9223372036854775808 is too large"),
        (lambda i: i.match([[1]], max_order=True), "max_order True must be a whole number"),
        (lambda i: i.match([[1]], min_count=2**63), "min_count 9223372036854775808 is too large"),
        (lambda i: i.match([[1]], min_count=1.0), "min_count 1.0 must be a whole number"),
        (lambda i: i.match([[1], [1, 2]]), "input_ids must be an array, with rows of one length"),
        (lambda i: i.match([[1], [2]], starts_document=[True] * 3), "one for each of 2 rows, not of shape"),
        (lambda i: i.match([[1], [2]], starts_document=0.5), "starts_document must be True or False, not float64"),
        (lambda i: i.count([[1], [1, 2]]), "a context must be an array"),
        (lambda i: i.count([1.0]), "token ids must be integers, not float64"),
        (lambda i: i.positions([1], limit=1.5), "limit 1.5 must be a whole number"),
        (lambda i: i.smoothed_targets(ROWS, top_k=1.5), "top_k 1.5 must be a whole number"),
        (lambda i: i.smoothed_targets(ROWS, top_k=None), "top_k None must be a whole number"),
        (lambda i: i.smoothed_targets(ROWS, shortlist=0.5), "shortlist 0.5 must be a whole number"),
        (lambda i: i.smoothed_targets(ROWS, [[1.0, 2.0]] * 2), "next_ids must be integers, not float64"),
        (lambda i: i.smoothed_targets(ROWS, [[1, 2], [3]]), "next_ids must be an array"),
        (lambda i: i.smoothed_targets(ROWS, max_order=2.5), "max_order 2.5 must be a whole number"),
        (lambda i: i.sampled_targets(ROWS, draws=1.5, seed=0), "draws 1.5 must be a whole number"),
        (lambda i: i.sampled_targets(ROWS, draws=1, seed=1.5), "seed 1.5 must be a whole number"),
        (lambda i: i.sampled_targets(ROWS, draws=1, seed=-1), "seed -1 must be 0 or more"),
        (lambda i: i.sampled_targets(ROWS, draws=10**9, seed=0), "draws at 4 positions are too many at once"),
        (lambda i: i.sampled_targets(ROWS, draws=10**9, seed=0, estimator="katz"), "too many at once"),
        (lambda i: i.explain([1], top=1.5), "top 1.5 must be a whole number"),
        (lambda i: i.fitted("mle", 2**63), "max_order 9223372036854775808 is too large"),
        (lambda i: i.fitted({"name": "mle", "max_order": 1.5}), "max_order 1.5 must be a whole number"),
        (lambda i: corpus_index.make_estimator("mle", beta=1), "an estimator has no 'beta'"),
        (lambda i: corpus_index.near_duplicates(i, [2.5]), "length 2.5 must be a whole number"),
        (lambda i: corpus_index.near_duplicates(i, 5), "lengths 5 must be a list of whole numbers"),
        (lambda i: corpus_index.near_duplicates(i, top=1.5), "top 1.5 must be a whole number"),
        (lambda i: corpus_index.measure(i, [[1], [1, 2]]), "input_ids must be an array"),
        (lambda i: corpus_index.measure(i, ROWS, starts_document=[1.0, 0.0]), "starts_document must be True or False"),
    ],
)
def test_a_slip_is_one_sentence(make_index: Make, ask: Callable[[CorpusIndex], Any], sentence: str) -> None:
    with pytest.raises(QueryError, match=sentence) as caught:
        ask(make_index(DOCUMENTS, 4))
    assert "\n" not in str(caught.value)


def test_a_shortlist_longer_than_the_vocabulary_is_whole_rows(make_index: Make) -> None:
    index = make_index(DOCUMENTS, 4)
    whole = index.smoothed_targets(ROWS, top_k=4, shortlist=None)
    for shortlist in (4, 64, 2**40):
        for actual, expected in zip(index.smoothed_targets(ROWS, top_k=4, shortlist=shortlist), whole, strict=True):
            np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("leave_out", [None, "self", "document"])
def test_top_k_above_the_shortlist_does_what_it_says(make_index: Make, name: str, leave_out: str | None) -> None:
    """Every second token is 0, which 149 others follow: top_k = V is exact, and 120 are more than a list of 64."""
    rng = np.random.default_rng(3)
    documents = [[part for token in rng.integers(1, 150, 400).tolist() for part in (0, token)] for _ in range(4)]
    index = make_index(documents, 160, light=8)
    row, following = np.array([documents[2][:30]]), np.array([documents[2][1:31]])
    options: dict[str, Any] = {"estimator": index.fitted(name, 1), "leave_out": leave_out, "starts_document": True}
    if leave_out == "document":
        options["positions"] = index.doc_starts[2:3]
    exact = index.smoothed_targets(row, following, top_k=160, **options)
    assert exact.cut_mass.max() <= 1e-6
    mixed = index.mixed_targets(row, following, **options).dense(index.row_table(options["estimator"]))
    np.testing.assert_allclose(exact.dense(), mixed, atol=2e-6)
    some = index.smoothed_targets(row, following, top_k=120, **options)
    few = index.smoothed_targets(row, following, top_k=64, **options)
    assert (some.cut_mass <= few.cut_mass + 1e-6).all()
    assert np.diff(some.offsets).max() > 100
    assert some.cut_mass.sum() < 0.7 * few.cut_mass.sum()


@pytest.mark.parametrize("vocab_size", [10, 151_936])
@pytest.mark.parametrize("end", [9, 8])
def test_the_end_token_starts_a_context_anew_in_every_layout(make_index: Make, vocab_size: int, end: int) -> None:
    """Also where the corpus doesn't hold it, and the index keeps an alphabet of what it does."""
    documents = [[7, 5, 5, 7, 5], [7, 5]]
    index = make_index(documents, vocab_size, end_of_document=end)
    reference = ReferenceIndex(documents, vocab_size, end)
    for context in ([5, end], [5, end, 7], [end], [5, 6, 7], [end, 7, 5], [6, end, 6]):
        answer = index.next_tokens(context)
        expected, match_len = reference.next_tokens(context)
        assert dict(zip(answer.token_ids.tolist(), answer.counts.tolist(), strict=True)) == expected
        assert answer.match_len == match_len
    targets = index.smoothed_targets([[5, end, 7, 5]], estimator="witten-bell")
    started = index.smoothed_targets([[7, 5]], estimator="witten-bell", starts_document=True)
    assert targets.match_len[2:].tolist() == started.match_len.tolist()
    assert targets.rest[2:].tolist() == started.rest.tolist()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: corpus_index.make_estimator(["mle"]), "there is no estimator"),
        (lambda: corpus_index.make_estimator("stupid-backoff", alpha="x"), "alpha 'x' must be a number"),
        (lambda: corpus_index.make_estimator("stupid-backoff", alpha=float("nan")), "alpha nan must be a number"),
        (lambda: corpus_index.make_estimator("add-k", k=None), "k None must be a number"),
        (lambda: corpus_index.make_estimator("jelinek-mercer", strengths=3), "strengths 3 must be rows of numbers"),
        (lambda: corpus_index.make_estimator("jelinek-mercer", strengths="x"), "strengths 'x' must be rows of numbers"),
        (lambda: corpus_index.make_estimator("jelinek-mercer", strengths=((0.1,), (0.1, 0.2))), "of one length"),
        (lambda: corpus_index.make_estimator("kneser-ney", discounts=(("a", "b", "c"),)), "must be a number"),
        (lambda: corpus_index.make_estimator("auto", discounts=((0.5, 0.5, 0.5),)), "without the other"),
    ],
)
def test_a_slip_in_a_parameter_is_one_sentence(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(QueryError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tokens": [[1], [2, 3]]}, "tokens must be a 1-D array of integers"),
        ({"tokens": [1.5]}, "tokens must be a 1-D array of integers"),
        ({"vocab_size": 1.5}, "vocab_size 1.5 must be a whole number"),
        ({"vocab_size": "x"}, "vocab_size 'x' must be a whole number"),
        ({"end_of_document": 0.0}, "end_of_document 0.0 must be a whole number"),
        ({"doc_starts": [[0], [1, 2]]}, "doc_starts must be a 1-D integer array"),
        ({"doc_starts": [0.0, 3.0]}, "doc_starts must be a 1-D integer array"),
        ({"workers": 1.5}, "workers 1.5 must be a whole number"),
        ({"shard_tokens": True}, "shard_tokens True must be a whole number"),
        ({"metadata": 5}, "metadata is 5: give a mapping"),
        ({"metadata": {"a": object()}}, "the metadata isn't what JSON can hold"),
        ({"document_names": 5}, "document_names is 5: give a list of names"),
    ],
)
def test_a_slip_in_a_build_is_one_sentence(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    given = {"tokens": [1, 2, 3], **options}
    with pytest.raises(CorpusError, match=sentence):
        corpus_index.build_index(given.pop("tokens"), tmp_path / "index", **given)
    assert not list(tmp_path.iterdir())


def test_numbers_of_documents_and_shares_are_checked(make_index: Make) -> None:
    index = make_index(DOCUMENTS, 4)
    for ask, sentence in (
        (lambda: index.document(1.5), "document 1.5 must be a whole number"),
        (lambda: index.documents_of([1], limit=1.5), "limit 1.5 must be a whole number"),
        (lambda: index.smoothed_targets(ROWS, top_p="x"), "top_p 'x' must be a number"),
        (lambda: index.smoothed_targets(ROWS, top_p=1.5), "top_p 1.5 must be above 0 and at most 1"),
    ):
        with pytest.raises(QueryError, match=sentence):
            ask()


def test_a_message_never_holds_a_whole_input() -> None:
    with pytest.raises(QueryError) as caught:
        corpus_index.make_estimator("x" * 100_000)
    assert len(str(caught.value)) < 3_100
    assert " … " in str(caught.value)


@pytest.mark.parametrize("path", [5, None, "a\0b", "\ud800", ["x"]])
def test_what_is_no_path_is_one_sentence(path: Any) -> None:
    for use in (corpus_index.open_index, CorpusIndex.open, corpus_index.ShardedIndex.open, corpus_index.verify_index):
        with pytest.raises(corpus_index.IndexFormatError, match="can't be the path of an index"):
            use(path)
