"""Shards from which documents were removed: whatever is asked of shards, against one index without the documents.

The tests are those of shards; here `make_sharded` builds shards with more documents, and removes these. Then, bit for
bit: shards with masks against shards that were built of what is left.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import (
    ESTIMATORS,
    CorpusIndex,
    IndexFormatError,
    QueryError,
    ShardedIndex,
    build_index,
    merge_shards,
    near_duplicates,
    open_index,
    remove_documents,
    verify_index,
)
from corpus_index import build as build_module
from corpus_index.build import build_part
from corpus_index.corpus import check_corpus
from corpus_index.estimators.counts_of_counts import counts_of_counts
from corpus_index.estimators.held_out_evidence import leave_documents_out
from corpus_index.sharded.masked_shard import MaskedShard
from corpus_index.sharded.places import KeptArray, Places
from corpus_index.sharded.shard_writer import event, shard_writer
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ..conftest import corpora, draw_rows
from .conftest import Both, cut_places
from .test_elsewhere import Elsewhere
from .test_rare import test_near_duplicates
from .test_union import following_of, test_chains, test_counts

__all__ = ["test_chains", "test_counts", "test_near_duplicates"]

Built = Callable[[ShardedIndex], ShardedIndex]


@pytest.fixture
def make_sharded(make_masked: Both) -> Both:
    """As that of other modules, from which documents were removed."""
    return make_masked


@pytest.fixture
def built_anew(tmp_path: Path) -> Built:
    """Shards that were built of what the shards of an index have left."""

    def make(index: ShardedIndex) -> ShardedIndex:
        checked = check_corpus(
            np.asarray(index.tokens), index.doc_starts, index.vocab_size, index.end_of_document, most=None
        )
        with shard_writer(tmp_path / "anew", overwrite=True) as writer:
            for first, end in pairwise(index.first_documents.tolist()):
                writer.add(lambda path, a=first, b=end: build_part(checked, a, b, path, workers=1))
            writer.finish(checked.vocab_size, index.metadata, [event("build")])
        return ShardedIndex.open(tmp_path / "anew")

    return make


def check_equal(actual: Any, expected: Any) -> None:
    """All arrays of two answers are the same, bit for bit."""
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("leave_out", [None, "self", "document"])
@settings(max_examples=max(3, settings().max_examples // 10))
@given(data=st.data(), corpus=corpora(), cuts=cut_places, order=st.sampled_from([None, 0, 1, 3]), starts=st.booleans())
def test_every_estimator_to_the_last_bit(
    make_masked: Both,
    built_anew: Built,
    data: st.DataObject,
    leave_out: str | None,
    corpus: dict[str, Any],
    cuts: list[int],
    order: int | None,
    starts: bool,
) -> None:
    _, masked = make_masked(corpus, cuts)
    anew = built_anew(masked)
    fitter = ShardedIndex.open(anew.path)  # which keeps rows that it meets on the way, numbered as they come
    rows = draw_rows(data, corpus, 2)
    assume(anew.num_tokens > rows.shape[1])
    following = following_of(rows)
    place = data.draw(st.integers(0, anew.num_tokens - rows.shape[1] - 1))
    for name in ESTIMATORS:
        if name == "mle" and leave_out == "document" and sum(map(bool, corpus["documents"])) < 2:
            continue  # without its one document a corpus says nothing
        fitted = fitter.fitted(name, order)
        made = {key: getattr(fitted, key) for key in ("name", "max_order", *fitted.row.parameters)}
        options: dict[str, Any] = {"estimator": made, "leave_out": leave_out, "starts_document": starts}
        if leave_out == "document":
            options["positions"] = [place, 0]
        for question in ("smoothed_targets", "mixed_targets", "mixed_targets", "next_probabilities"):
            answers = [getattr(one, question)(rows, following, **options) for one in (masked, anew)]
            check_equal(*([answer] if isinstance(answer, np.ndarray) else answer for answer in answers))


@given(corpus=corpora(), cuts=cut_places, order=st.sampled_from([0, 1, 3]))
@settings(max_examples=max(3, settings().max_examples // 5))
def test_fits_see_the_same_evidence(
    make_masked: Both, built_anew: Built, corpus: dict[str, Any], cuts: list[int], order: int
) -> None:
    _, masked = make_masked(corpus, cuts)
    anew = built_anew(masked)
    check_equal(*(leave_documents_out(one, order, positions=40, walked=30) for one in (masked, anew)))
    for left in (False, True):
        check_equal(*([counts_of_counts(one, order, left=left)] for one in (masked, anew)))


@given(corpus=corpora(), cuts=cut_places, data=st.data())
def test_what_it_says_of_itself(
    make_masked: Both, built_anew: Built, corpus: dict[str, Any], cuts: list[int], data: st.DataObject
) -> None:
    index, masked = make_masked(corpus, cuts)
    anew = built_anew(masked)
    check_equal(
        [np.asarray(masked.tokens), masked.doc_starts, masked.symbol_counts, masked.left_counts, *masked.root_pairs],
        [np.asarray(anew.tokens), anew.doc_starts, anew.symbol_counts, anew.left_counts, *anew.root_pairs],
    )
    assert (masked.num_starts, masked.num_documents) == (anew.num_starts, anew.num_documents)
    names = [f"document {number}" for number in range(index.num_documents)]
    assert [name.name for name in masked.document_names] == names
    assert [masked.document(number).name for number in range(index.num_documents)] == names
    assert [masked.document(number).start for number in range(index.num_documents)] == index.doc_starts[:-1].tolist()
    for mine, other in zip(masked.shards, anew.shards, strict=True):
        np.testing.assert_array_equal(np.asarray(mine.array("common")), np.asarray(other.array("common")))
        for name, shift in (("next_tokens", 0), ("endings", 32)):  # ranks of equal contexts stand in any order
            tokens = [
                one.ids_of((np.asarray(one.array(name)).astype(np.uint64) >> np.uint64(shift)).astype(np.int64))
                for one in (mine, other)
            ]
            np.testing.assert_array_equal(*map(np.sort, tokens))
        begin = data.draw(st.integers(0, other.num_tokens - 1))
        end = data.draw(st.integers(begin, other.num_tokens))
        places = np.asarray(mine.array("order"))[mine.stretch_ranks(begin, end)]
        assert np.sort(places).tolist() == list(range(begin, end))
    check_equal(near_duplicates(masked, [1, 3])[:4], near_duplicates(anew, [1, 3])[:4])


@given(
    runs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=6),
    more=st.integers(1, 9),
    data=st.data(),
)
def test_places(runs: list[tuple[int, int]], more: int, data: st.DataObject) -> None:
    begins, sizes, end = [], [], 0
    for gap, size in runs:
        begins.append(end + gap)
        sizes.append(size)
        end += gap + size
    stays = np.ones(end + more, np.bool_)
    for begin, size in zip(begins, sizes, strict=True):
        stays[begin : begin + size] = False
    kept = np.flatnonzero(stays)
    runs_of_one = np.flatnonzero(~stays).astype(np.uint32)
    values = np.arange(stays.size) * 3
    for places in (Places(np.array(begins, np.int64), np.array(sizes, np.int64)), Places(runs_of_one)):
        assert places.among_all(np.arange(kept.size)).tolist() == kept.tolist()
        before = np.append(0, np.cumsum(stays))
        assert places.among_kept(np.arange(stays.size + 1)).tolist() == before.tolist()
        array = pickle.loads(pickle.dumps(KeptArray(values, places, kept.size)))
        assert array.tolist() == list(array) == values[kept].tolist()
        first, stop = data.draw(st.integers(0, kept.size)), data.draw(st.integers(0, kept.size))
        step = data.draw(st.sampled_from([1, 2, -1]))
        assert array[first:stop:step].tolist() == values[kept][first:stop:step].tolist()
        assert array[-1] == values[kept][-1]
        with pytest.raises(IndexError):
            array[kept.size]


def test_a_mask_is_a_file_beside_shards_that_stay(tmp_path: Path) -> None:
    path = tmp_path / "index"
    documents = [[1, 2, 3], [1, 2], [2, 3, 3], [1]]
    build_index(
        np.concatenate(documents), path, doc_starts=np.cumsum([0, *map(len, documents)]), shard_tokens=5
    ).close()
    with open_index(path) as index:
        before = [shard.fingerprint for shard in index.shards]  # type: ignore[attr-defined]
    with remove_documents(path, [1]) as index:
        assert isinstance(index, ShardedIndex)
        assert [entry.fingerprint for entry in index.entries] == before
        assert [entry.mask is not None for entry in index.entries] == [True, False]
        assert index.count([1, 2]) == 1
        assert isinstance(index.shards[0], MaskedShard)
        assert isinstance(pickle.loads(pickle.dumps(index.shards[0])), MaskedShard)
        assert pickle.loads(pickle.dumps(index)).count([1, 2]) == 1
        tokens = pickle.loads(pickle.dumps(index.tokens))
        assert np.asarray(tokens).tolist() == [1, 2, 3, 2, 3, 3, 1]
        assert len(pickle.dumps(index.tokens)) < 2_000
        with pytest.raises(QueryError, match="merge the index"):
            index.shards[0].array("near")
        with pytest.raises(QueryError, match="ask next_tokens_batch"):
            index.shards[0].rows_of(index.shards[0].match([1]))
    assert any("1 removed documents" in line for line in verify_index(path))
    with remove_documents(path, [2, 1]) as index:  # of the second shard all
        assert len(index.shards) == 1  # type: ignore[attr-defined]
        assert np.asarray(index.tokens).tolist() == [1, 2, 3, 1] or np.asarray(index.tokens).tolist() == [1, 2, 3]
    [mask] = path.glob("mask-*.bin")
    content = mask.read_bytes()
    for damaged, sentence in ((content[:-1], "which its manifest denies"), (content[::-1], "was changed after")):
        mask.write_bytes(damaged)
        with pytest.raises(IndexFormatError, match=sentence):
            open_index(path)
    mask.write_bytes(content[::-1])
    with pytest.raises(IndexFormatError, match="is not a mask of"):
        open_index(path, check="never")
    mask.unlink()
    with pytest.raises(IndexFormatError, match="can't be read"):
        open_index(path)
    mask.write_bytes(content)
    with merge_shards(path) as index:
        assert type(index) is CorpusIndex
        assert index.count([1, 2]) == 1
    assert not list(path.glob("mask-*"))


def test_merging_drops_masks_of_shards_that_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "index"
    build_index(np.array([1, 2, 3, 1, 2, 1, 1]), path, doc_starts=[0, 3, 5, 7], shard_tokens=5).close()
    remove_documents(path, [0]).close()
    with merge_shards(path, shard_tokens=2) as index:
        assert isinstance(index, ShardedIndex)
        assert all(entry.mask is None for entry in index.entries)
        assert np.asarray(index.tokens).tolist() == [1, 2, 1, 1]


def test_wide_contexts_lose_what_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built_anew: Built) -> None:
    """A corpus large enough for stored rows, deep repeats, and matches beyond 255 symbols."""
    monkeypatch.setattr(build_module, "_LIGHT", 20)
    rng = np.random.default_rng(1)
    documents = [rng.choice(5, size=int(rng.integers(0, 400)), p=[0.5, 0.3, 0.1, 0.05, 0.05]) for _ in range(40)]
    documents += [np.zeros(600, np.int64), np.zeros(300, np.int64), documents[3], documents[3][:200]]
    build_index(
        np.concatenate(documents), tmp_path / "index", doc_starts=np.cumsum([0, *map(len, documents)]), workers=1
    ).close()
    gone = [1, 2, 5, 6, 7, 20, 41, 42]
    rows = np.stack([np.zeros(350, np.int64), np.concatenate(documents)[-350:]])
    with remove_documents(tmp_path / "index", gone) as masked, built_anew(masked) as anew:  # type: ignore[arg-type]
        for options in ({}, {"max_order": 4}, {"leave_out": "document", "positions": [0, 700]}):
            for estimator in ("witten-bell", "modified-kneser-ney"):
                asked: dict[str, Any] = {"estimator": estimator, **options}
                answers = [one.mixed_targets(rows, following_of(rows), **asked) for one in (masked, anew)]
                check_equal(*answers)
        assert masked.next_tokens([0] * 500).match_len == anew.next_tokens([0] * 500).match_len > 255


def test_masked_shards_that_are_open_elsewhere(make_masked: Both) -> None:
    rng = np.random.default_rng(2)
    documents = [rng.integers(0, 4, int(rng.integers(0, 30))).tolist() for _ in range(9)]
    corpus = {"documents": documents, "vocab_size": 5, "end_of_document": None, "light": 3, "deepest": None}
    _, masked = make_masked(corpus, [3, 5])
    assert all(entry.mask is not None for entry in masked.entries)
    there = Elsewhere(masked)
    check_equal(
        [there.tokens[:], there.doc_starts, there.positions([1, 2]), there.symbol_counts, *there.documents_of([1])],
        [
            masked.tokens[:],
            masked.doc_starts,
            masked.positions([1, 2]),
            masked.symbol_counts,
            *masked.documents_of([1]),
        ],
    )
    assert [there.document(number) for number in range(9)] == [masked.document(number) for number in range(9)]
    check_equal(near_duplicates(there, [1, 3]), near_duplicates(masked, [1, 3]))
    rows = rng.integers(0, 5, (2, 12))
    for estimator in ("witten-bell", "kneser-ney", "katz"):
        asked: dict[str, Any] = {"estimator": estimator, "leave_out": "document", "positions": [0, 20]}
        check_equal(*(one.smoothed_targets(rows, following_of(rows), **asked) for one in (there, masked)))
