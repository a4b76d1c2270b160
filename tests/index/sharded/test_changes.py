"""Shards appended, removed and merged: what is left answers as an index that was built of it."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import corpus_index.shard_changes as changes
import numpy as np
import pytest
from corpus_index import (
    CorpusError,
    CorpusIndex,
    IndexExistsError,
    IndexFormatError,
    IndexWriteError,
    QueryError,
    ShardedIndex,
    append_documents,
    build_index,
    files,
    find_documents,
    merge_shards,
    open_index,
    remove_documents,
    verify_index,
)
from corpus_index.sharded import sharded_index
from corpus_index.sharded.shard_writer import cut_documents
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ...faults import run_faults
from ..conftest import corpora


def build(
    path: Path, documents: list[list[int]], vocab_size: int, end: int | None = None, **options: Any
) -> CorpusIndex:
    return build_index(
        np.array([token for document in documents for token in document], np.int64),
        path,
        doc_starts=np.cumsum([0, *map(len, documents)]),
        vocab_size=vocab_size,
        end_of_document=end,
        overwrite=True,
        workers=1,
        **options,
    )


def documents_token(documents: list[list[int]]) -> int:
    """Some token."""
    return next(document[-1] for document in documents if document)


def check_same(actual: CorpusIndex, expected: CorpusIndex) -> None:
    """All that is asked for in the issue's words: counts, types, positions, targets, documents and their names."""
    assert np.asarray(actual.tokens).tolist() == np.asarray(expected.tokens).tolist()
    assert actual.doc_starts.tolist() == expected.doc_starts.tolist()
    assert actual.document_names is not None
    assert expected.document_names is not None
    assert [one.name for one in actual.document_names] == [one.name for one in expected.document_names]
    rows = np.asarray(expected.tokens)[None, :].astype(np.int64)
    following = np.append(rows[0, 1:], -1)[None]
    for size in (1, 2, 3):
        assert np.sort(actual.positions(rows[0, :size])).tolist() == expected.positions(rows[0, :size]).tolist()
    assert actual.match(rows).match_len.tolist() == expected.match(rows).match_len.tolist()
    for estimator in ("witten-bell", {"name": "kneser-ney", "max_order": 3, "discounts": 0.7}):
        for options in ({}, {"leave_out": "self"}, {"leave_out": "document", "positions": [0]}):
            asked: dict[str, Any] = {"estimator": estimator, **options}
            np.testing.assert_allclose(
                actual.next_probabilities(rows, following, **asked),
                expected.next_probabilities(rows, following, **asked),
                rtol=1e-12,
            )


@settings(max_examples=max(4, settings().max_examples // 3))
@given(
    corpus=corpora(),
    gone=st.sets(st.integers(0, 5)),
    size=st.integers(1, 30),
)
def test_append_remove_and_merge_equal_a_build(
    tmp_path_factory: pytest.TempPathFactory, corpus: dict[str, Any], gone: set[int], size: int
) -> None:
    folder = tmp_path_factory.mktemp("changes")
    documents, end = corpus["documents"], corpus["end_of_document"]
    vocab_size = corpus["vocab_size"]
    names = [f"{number}.txt" for number in range(len(documents))]
    first = next(number for number, document in enumerate(documents) if document) + 1
    build(folder / "index", documents[:first], vocab_size, end, document_names=names[:first]).close()
    rest = documents[first:]
    if any(rest):
        append_documents(
            folder / "index",
            np.array([token for document in rest for token in document], np.int64),
            doc_starts=np.cumsum([0, *map(len, rest)]),
            document_names=names[first:],
            shard_tokens=size,
            workers=1,
        ).close()
    else:
        documents = documents[:first]
    with (
        open_index(folder / "index") as index,
        build(folder / "whole", documents, vocab_size, end, document_names=names[: len(documents)]) as whole,
    ):
        check_same(index, whole)
    gone = {number for number in gone if number < len(documents)}
    left = [number for number in range(len(documents)) if number not in gone]
    assume(gone and any(documents[number] for number in left))
    with (
        remove_documents(folder / "index", sorted(gone), workers=1) as index,
        build(
            folder / "whole",
            [documents[number] for number in left],
            vocab_size,
            end,
            document_names=[names[number] for number in left],
        ) as whole,
    ):
        check_same(index, whole)
        assert isinstance(index, ShardedIndex)
        said = index.history[-1]
        assert said["what"] == "remove"
        assert [one["number"] for one in said["removed"]] == sorted(gone)
        assert [one["name"] for one in said["removed"]] == [names[number] for number in sorted(gone)]
        before = len(index.shards)
        with merge_shards(folder / "index", shard_tokens=size, workers=1) as merged:
            check_same(merged, whole)
            assert len(changes.shards_of(merged)) <= before
    with merge_shards(folder / "index", workers=1) as merged:
        assert type(merged) is CorpusIndex
        assert [one["what"] for one in changes.history_of(merged)][-1] in ("remove", "merge")
        verify_index(folder / "index", full=True)
    append_documents(folder / "index", np.array([documents_token(documents)]), document_names=["more"]).close()
    with open_index(folder / "index") as index:
        assert changes.history_of(index)[-1]["what"] == "append"
        assert "history" not in index.metadata


def test_readers_keep_what_they_opened(tmp_path: Path) -> None:
    build(tmp_path / "index", [[1, 2, 3], [1, 2]], 4, document_names=["a", "b"]).close()
    with open_index(tmp_path / "index") as reader:
        append_documents(tmp_path / "index", np.array([1, 2]), document_names=["c"]).close()
        assert reader.count([1, 2]) == 2
        with open_index(tmp_path / "index") as second:
            assert second.count([1, 2]) == 3
            remove_documents(tmp_path / "index", [0]).close()
            assert second.count([1, 2]) == 3
            assert second.next_tokens([1]).counts.tolist() == [3]
        assert reader.count([1, 2]) == 2
    with open_index(tmp_path / "index") as index:
        assert index.count([1, 2]) == 2
        assert [one["what"] for one in index.history] == ["build", "append", "remove"]  # type: ignore[attr-defined]


def test_two_writers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "index", [[1, 2, 3]], 4).close()
    lock = files.lock_file(tmp_path / ".index.changing")
    assert lock is not None
    with lock, pytest.raises(IndexWriteError, match="is being changed by another process"):
        append_documents(tmp_path / "index", np.array([1, 2]))
    build_part = changes.build_part

    def meanwhile(*arguments: Any, **options: Any) -> CorpusIndex:
        build(tmp_path / "index", [[3, 3, 3]], 4).close()
        return build_part(*arguments, **options)

    monkeypatch.setattr(changes, "build_part", meanwhile)
    with pytest.raises(IndexWriteError, match="was replaced while it was being changed"):
        append_documents(tmp_path / "index", np.array([1, 2]))
    with open_index(tmp_path / "index") as index:
        assert index.tokens.tolist() == [3, 3, 3]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["index"]


def test_what_cannot_be_changed_is_said(tmp_path: Path) -> None:
    build(tmp_path / "index", [[1, 2], [3]], 4, document_names=["a", "b"]).close()
    with pytest.raises(QueryError, match="there is no document 2"):
        remove_documents(tmp_path / "index", [2])
    with pytest.raises(QueryError, match="name at least one"):
        remove_documents(tmp_path / "index", [])
    with pytest.raises(CorpusError, match=r"nothing of .* would be left"):
        remove_documents(tmp_path / "index", [0, 1])
    with pytest.raises(CorpusError, match="token id 4"):
        append_documents(tmp_path / "index", np.array([4]), document_names=["c"])
    with pytest.raises(CorpusError, match="give each new document a name"):
        append_documents(tmp_path / "index", np.array([3]))
    with open_index(tmp_path / "index") as index:
        assert find_documents(index, ["b"]).tolist() == [1]
        with pytest.raises(QueryError, match="is called 'c'"):
            find_documents(index, ["b", "c"])


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any), most=st.integers(1, 20))
def test_cuts(sizes: list[int], most: int) -> None:
    starts = np.cumsum([0, *sizes])
    parts = cut_documents(starts, most)
    assert [first for first, _ in parts] == [0, *(end for _, end in parts[:-1])]
    assert parts[-1][1] == len(sizes)
    for first, end in parts:
        tokens = sum(sizes[first:end])
        assert tokens > 0
        assert tokens <= most or sum(size > 0 for size in sizes[first:end]) == 1


SCRIPT = """
import os
from pathlib import Path
import numpy as np
from corpus_index import append_documents, build_index, open_index, remove_documents
OLD = [1, 2, 3, 1, 2]
def build(folder):
    options = dict(doc_starts=[0, 3, 5], vocab_size=4, shard_tokens=3, overwrite=True, workers=1)
    build_index(np.array(OLD), folder / "index", **options).close()
def found(folder):
    with open_index(folder / "index") as index:
        return np.asarray(index.tokens).tolist()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "new"),
    [
        ('append_documents(folder / "index", np.array([2, 2]), workers=1)', [1, 2, 3, 1, 2, 2, 2]),
        ('remove_documents(folder / "index", [0], workers=1)', [1, 2]),
    ],
)
def test_a_change_is_made_or_not_after_any_fault_and_the_next_mends(
    tmp_path: Path, change: str, new: list[int]
) -> None:
    count = run_faults(
        tmp_path / "work",
        SCRIPT
        + textwrap.dedent(f"""
        def prepare(folder):
            build(folder)
        def operate(folder):
            {change}.close()
        def check(folder, finished):
            now = found(folder)
            assert now in ([{new}] if finished else [OLD, {new}]), now
            build(folder)
            operate(folder)
            assert found(folder) == {new}
            assert os.listdir(folder) == ["index"], os.listdir(folder)
        """),
        arguments="sizes=(3000,), step=2",
    )
    assert count > 20


def test_shards_and_single_indexes_replace_each_other_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "index"
    build(path, [[1, 2, 3], [1, 2]], 4, shard_tokens=3).close()
    with open_index(path) as shards:
        assert len(shards.shards) == 2  # type: ignore[attr-defined]
        note = shards.shards[0].path / "diary"  # type: ignore[attr-defined]
    note.write_text("words")
    with pytest.raises(IndexExistsError, match="holds 'diary'"):
        build(path, [[1, 2]], 4)
    note.unlink()
    build(path, [[1, 2]], 4).close()
    with open_index(path) as index:
        assert type(index) is CorpusIndex
    build(path, [[1, 2, 3], [1, 2]], 4, shard_tokens=3).close()
    with pytest.raises(IndexFormatError, match="holds the shards of an index"):
        CorpusIndex.open(path)
    for damaged in (path / "manifest.json", next(path.glob("shard-*")) / "tokens.bin"):
        content = damaged.read_bytes()
        damaged.write_bytes(content[:-1])
        with pytest.raises(IndexFormatError):
            open_index(path)
        with pytest.raises(IndexFormatError):
            verify_index(path)
        damaged.write_bytes(content)
    open_index(path).close()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["index"]


def test_shards_that_an_index_of_one_piece_replaces_while_they_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "index", [[1, 2, 3], [1, 2]], 4, shard_tokens=3).close()
    entries_of = sharded_index.entries_of

    def replaced(manifest: dict[str, Any]) -> Any:
        monkeypatch.setattr(sharded_index, "entries_of", entries_of)
        build(tmp_path / "index", [[1, 2]], 4).close()
        return entries_of(manifest)

    monkeypatch.setattr(sharded_index, "entries_of", replaced)
    with open_index(tmp_path / "index") as index:
        assert type(index) is CorpusIndex


def test_names_and_metadata_that_an_append_can_not_keep(tmp_path: Path) -> None:
    path = tmp_path / "index"
    build_index(np.array([1, 2, 3, 1]), path, doc_starts=[0, 2, 4], shard_tokens=2).close()
    with pytest.raises(CorpusError, match="have no names"):
        append_documents(path, np.array([1, 2]), document_names=["z"])
    refused: list[Any] = [{"x": object()}, {1: 2, "a": 3}]
    for metadata in refused:
        with pytest.raises(CorpusError, match="isn't what JSON can hold"):
            append_documents(path, np.array([1, 2]), metadata=metadata)
        with pytest.raises(CorpusError, match="isn't what JSON can hold"):
            build_index(np.array([1]), tmp_path / "other", metadata=metadata)


@pytest.mark.parametrize("change", [append_documents, remove_documents])
def test_an_index_that_was_changed_since_it_was_read(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "index"
    with build_index(np.array([1, 2, 3, 1]), path, doc_starts=[0, 2, 4]) as index:
        read = index.fingerprint
    with append_documents(path, np.array([1, 2]), fingerprint=read) as index:
        now = index.fingerprint
    with pytest.raises(IndexWriteError, match="was changed by another process since it was read"):
        change(path, np.array([0]), fingerprint=read)
    change(path, np.array([0]), fingerprint=now).close()
