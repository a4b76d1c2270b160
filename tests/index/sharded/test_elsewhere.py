"""Shards that are open elsewhere answer as shards that are open here, to the last bit.

The host of these tests is this process; but all that goes to a shard, and comes from it, is pickled on its way.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import (
    ESTIMATORS,
    CorpusIndex,
    QueryError,
    ShardedIndex,
    build_index,
    near_duplicates,
    open_index,
    write_arpa,
)
from corpus_index.core.chains import counts_of_chains
from corpus_index.estimators.counts_of_counts import counts_of_counts, kenlm_shift
from corpus_index.estimators.held_out_evidence import leave_documents_out
from corpus_index.sharded.asking import ask_all
from corpus_index.sharded.shard_elsewhere import ArrayElsewhere, ShardElsewhere, facts_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ..conftest import corpora, draw_rows
from .conftest import Both, cut_places
from .test_union import ORDERS, following_of


class PicklingHost:
    """Asks shards of this process by pickle; it counts the rounds."""

    def __init__(self, shards: Sequence[CorpusIndex]) -> None:
        self.shards, self.rounds = list(shards), 0

    def __reduce__(self) -> Any:
        return PicklingHost, (self.shards,)

    def ask(
        self, function: Callable[..., Any], numbers: Sequence[int], arguments: Sequence[tuple[Any, ...]]
    ) -> list[Any]:
        self.rounds += 1
        sent = [travelled((function, given)) for given in arguments]
        return [
            travelled(asked(self.shards[number], *given)) for number, (asked, given) in zip(numbers, sent, strict=True)
        ]


def travelled(thing: Any) -> Any:
    """What arrives: arrays that can't be written to."""
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(content, buffers=[bytes(one.raw()) for one in buffers])


class Elsewhere(ShardedIndex):
    """A sharded index whose shards are behind a `PicklingHost`."""

    def __init__(self, local: ShardedIndex) -> None:
        self.path, self.host = local.path, PicklingHost(local.shards)
        facts = self.host.ask(facts_of, range(len(local.shards)), [()] * len(local.shards))
        self.take_over(local._manifest, [ShardElsewhere(self.host, number, one) for number, one in enumerate(facts)])


def same(actual: Any, expected: Any) -> None:
    """That two answers are equal to the last bit."""
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("leave_out", [None, "self", "document"])
@pytest.mark.parametrize("name", ESTIMATORS)
@settings(max_examples=max(4, settings().max_examples // 8))
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
    parameters = {key: getattr(fitted, key) for key in ("name", "max_order", *fitted.row.parameters)}
    options: dict[str, Any] = {"leave_out": leave_out, "starts_document": starts}
    if leave_out == "document":
        options["positions"] = [data.draw(st.integers(0, index.num_tokens - rows.shape[1] - 1)), 0]
    following = following_of(rows)
    answers = []
    for one in (shards, Elsewhere(shards)):
        given_options = options | {"estimator": one.fitted(parameters)}
        targets = one.smoothed_targets(rows, following, top_k=max(1, index.vocab_size - 1), **given_options)
        mixed = one.mixed_targets(rows, following, **given_options)
        answers.append((one.next_probabilities(rows, following, **given_options), *targets, *mixed))
    same(*answers)


@given(data=st.data(), corpus=corpora(), cuts=cut_places, order=ORDERS, starts=st.booleans())
def test_questions(
    make_sharded: Both, data: st.DataObject, corpus: dict[str, Any], cuts: list[int], order: int | None, starts: bool
) -> None:
    _, shards = make_sharded(corpus, cuts)
    elsewhere = Elsewhere(shards)
    rows = draw_rows(data, corpus, 3)
    least = data.draw(st.integers(1, 3))
    options: dict[str, Any] = {"max_order": order, "min_count": least, "starts_document": starts}
    for size in (0, 1, 2, 5):
        ngram = rows[0, :size]
        assert elsewhere.count(ngram) == shards.count(ngram)
        same(elsewhere.positions(ngram), shards.positions(ngram))
        same(elsewhere.positions(ngram, limit=2), shards.positions(ngram, limit=2))
        same(elsewhere.next_tokens(ngram, **options), shards.next_tokens(ngram, **options))
        same(elsewhere.documents_of(ngram, **options), shards.documents_of(ngram, **options))
    same(elsewhere.match(rows, **options), shards.match(rows, **options))
    found, expected = (one.next_tokens_batch(rows, **options) for one in (elsewhere, shards))
    same(found[0], expected[0])
    same(found[1:], expected[1:])
    left: dict[str, Any] = {"max_order": order, "starts_document": starts, "left": True}
    same(*(counts_of_chains(one, rows[:2], following_of(rows[:2]), **left) for one in (elsewhere, shards)))
    same(*(one.array("order")[:] for one in (elsewhere, shards)))
    same(elsewhere.tokens, shards.tokens)
    assert [elsewhere.document(number) for number in range(shards.num_documents)] == [
        shards.document(number) for number in range(shards.num_documents)
    ]
    assert list(elsewhere.document_names) == list(shards.document_names)
    for one, other in zip(elsewhere.shards, shards.shards, strict=True):
        same(one.next_tokens(rows[0, :2]), other.next_tokens(rows[0, :2]))
        same(one.documents_of(rows[0, :1]), other.documents_of(rows[0, :1]))
        same(one.match(rows), other.match(rows))
        same(one.rows_of(one.match(rows))[1:], other.rows_of(other.match(rows))[1:])
        same(one.next_tokens_batch(rows)[1:], other.next_tokens_batch(rows)[1:])
        same(one.ids_of(np.arange(one.num_symbols)), other.ids_of(np.arange(other.num_symbols)))
        same(one.symbols_of(rows), other.symbols_of(rows))


@given(corpus=corpora(), cuts=cut_places, left=st.booleans())
def test_rare_questions(make_sharded: Both, corpus: dict[str, Any], cuts: list[int], left: bool) -> None:
    _, shards = make_sharded(corpus, cuts)
    elsewhere = Elsewhere(shards)
    same(counts_of_counts(elsewhere, 3, left=left), counts_of_counts(shards, 3, left=left))
    same(kenlm_shift(elsewhere, 2), kenlm_shift(shards, 2))
    same(*(leave_documents_out(one, 3, positions=40, walked=30) for one in (elsewhere, shards)))
    same(*(near_duplicates(one, (1, 2, 3), top_length=2) for one in (elsewhere, shards)))


def test_fits_and_files(make_sharded: Both, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    documents = [rng.integers(0, 3, 40).tolist() for _ in range(6)]
    corpus = {"documents": documents, "vocab_size": 4, "end_of_document": None, "light": 2, "deepest": None}
    _, shards = make_sharded(corpus, [2, 4])
    elsewhere = Elsewhere(shards)
    for name in ("modified-kneser-ney", "jelinek-mercer", "katz", "auto"):
        one, other = (index.fitted(name, 3) for index in (elsewhere, shards))
        assert one == other
    for number, one in enumerate((elsewhere, shards)):
        write_arpa(one, one.fitted("modified-kneser-ney", 2), tmp_path / f"{number}.arpa")
    assert (tmp_path / "0.arpa").read_bytes() == (tmp_path / "1.arpa").read_bytes()
    explained = [index.explain([1, 2], estimator="witten-bell", max_order=3) for index in (elsewhere, shards)]
    assert repr(explained[0]) == repr(explained[1])


def test_all_shards_are_asked_in_one_round(make_sharded: Both) -> None:
    documents = [[1, 2, 1, 2, 3], [1, 2, 3], [2, 1, 2]]
    corpus = {"documents": documents, "vocab_size": 4, "end_of_document": None, "light": 2, "deepest": None}
    _, shards = make_sharded(corpus, [1, 2])
    elsewhere = Elsewhere(shards)
    before = elsewhere.host.rounds
    assert elsewhere.count([1, 2]) == 4
    assert elsewhere.host.rounds == before + 1
    elsewhere.match(np.array([[1, 2, 1]]))
    assert elsewhere.host.rounds == before + 2


def test_arrays_are_read_by_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.array([5, 1, 2, 1, 2, 3, 0, 3])
    build_index(tokens, tmp_path / "shards", doc_starts=[0, 5, 8], vocab_size=2**20, shard_tokens=5).close()
    shards = open_index(tmp_path / "shards")
    assert isinstance(shards, ShardedIndex)
    elsewhere = Elsewhere(shards)
    shard, here = elsewhere.shards[0], shards.shards[0]
    array, expected = shard.array("order"), np.asarray(here.array("order"))
    assert isinstance(array, ArrayElsewhere)
    assert (len(array), array.shape, array.dtype, array.nbytes) == (5, (5,), expected.dtype, 20)
    for key in (0, -1, slice(1, 3), slice(None, None, -2), np.array([[4, 0], [-1, 2]]), np.arange(5) > 2, slice(3, 1)):
        np.testing.assert_array_equal(array[key], expected[key])
    np.testing.assert_array_equal(shard.array("symbols")[:, 0], here.array("symbols")[:, 0])
    with pytest.raises(IndexError, match=r"outside of 0 \.\. 4"):
        array[5]
    with pytest.raises(QueryError, match="no array 'ranks'"):
        shard.array("ranks")
    with pytest.raises(QueryError, match="open elsewhere"):
        shard.kernel_arrays()
    monkeypatch.setattr("corpus_index.sharded.shard_elsewhere._EAGER", 2)
    cut = array[1:4]
    assert isinstance(cut, ArrayElsewhere)
    np.testing.assert_array_equal(cut, expected[1:4])
    assert cut.tolist() == list(cut) == expected[1:4].tolist()
    same(elsewhere.tokens, tokens)
    assert elsewhere.count([1, 2]) == 2
    assert pickle.loads(pickle.dumps(shard)).count([1, 2]) == 2


def test_what_a_shard_raises_is_raised_here(make_sharded: Both) -> None:
    corpus = {"documents": [[1, 2], [1, 3]], "vocab_size": 4, "end_of_document": None, "light": 2, "deepest": None}
    _, shards = make_sharded(corpus, [1])
    elsewhere = Elsewhere(shards)
    with pytest.raises(QueryError, match="token id 9 is outside"):
        elsewhere.count([9])
    assert ask_all(CorpusIndex.count, [], []) == []
