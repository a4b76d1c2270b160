"""Arrays in pieces against one array."""

from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import IndexFormatError, build_index, open_index
from corpus_index.names import DocumentNames, names_between, numbered_names, pack_names
from corpus_index.sharded import pieces
from corpus_index.sharded.pieces import Pieces
from hypothesis import given
from hypothesis import strategies as st


@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    start=st.integers(-12, 12),
    stop=st.integers(-12, 12),
    step=st.sampled_from([1, 2, -1]),
    eager=st.sampled_from([0, 100]),
    data=st.data(),
)
def test_it_reads_like_one_array(
    sizes: list[int], start: int, stop: int, step: int, eager: int, data: st.DataObject
) -> None:
    whole = np.arange(sum(sizes), dtype=np.uint16) * 3
    cuts = np.cumsum([0, *sizes])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_EAGER", eager)
        parts = Pieces([whole[a:b] for a, b in pairwise(cuts)], np.uint16)
        assert len(parts) == parts.size == whole.size
        assert np.asarray(parts).tolist() == parts.tolist() == whole.tolist() == list(parts)
        cut = parts[start:stop:step]
        assert np.asarray(cut).tolist() == whole[start:stop:step].tolist()
        assert cut.astype(np.int64).dtype == np.int64
        if whole.size:
            places = data.draw(st.lists(st.integers(-whole.size, whole.size - 1), max_size=6))
            assert parts[np.array(places, np.int64)].tolist() == whole[np.array(places, np.int64)].tolist()
            assert parts[places[0] if places else 0] == whole[places[0] if places else 0]
            assert parts[np.arange(whole.size) % 2 == 0].tolist() == whole[::2].tolist()
        with pytest.raises(IndexError, match="outside"):
            parts[whole.size]


def test_numbers_are_added() -> None:
    parts = Pieces([np.array([0, 1], np.uint32), np.array([1, 0], np.uint32)], np.int64, [0, 2**40])
    assert parts[:].tolist() == [0, 1, 2**40 + 1, 2**40]
    assert parts[np.array([2])].tolist() == [2**40 + 1]


def test_tokens_are_pickled_as_paths(tmp_path: Path) -> None:
    tokens, starts = np.arange(200, dtype=np.uint16) % 7, np.arange(0, 201, 20)
    options: dict[str, Any] = {"doc_starts": starts, "vocab_size": 7, "shard_tokens": 60, "overwrite": True}
    with build_index(tokens, tmp_path / "index", **options) as index:
        content = pickle.dumps(index.tokens)
        assert len(content) < 2_000
        assert pickle.loads(content)[:].tolist() == tokens.tolist()
        again = pickle.loads(pickle.dumps(index))
        assert again.count([1, 2]) == index.count([1, 2])
    build_index((tokens + 1) % 7, tmp_path / "index", **options).close()
    with pytest.raises((IndexFormatError, FileNotFoundError)):
        pickle.loads(content)


def test_windows_are_cut_of_shards(tmp_path: Path) -> None:
    windows = pytest.importorskip("corpus_teacher.data.windows")
    tokens = np.arange(200, dtype=np.uint16) % 7
    options: dict[str, Any] = {"doc_starts": np.arange(0, 201, 20), "vocab_size": 7, "shard_tokens": 60}
    with build_index(tokens, tmp_path / "index", **options) as index:
        cut = windows.TokenWindows(index.tokens, 30, seed=1, doc_starts=index.doc_starts)
        expected = windows.TokenWindows(tokens, 30, seed=1, doc_starts=index.doc_starts)
        for made in (cut, pickle.loads(pickle.dumps(cut))):
            for number in range(len(expected)):
                assert made[number]["input_ids"].tolist() == expected[number]["input_ids"].tolist()
                assert made[number]["position"] == expected[number]["position"]
                assert made[number]["starts_document"] == expected[number]["starts_document"]


@given(first=st.integers(0, 7), size=st.integers(0, 7))
def test_names_between(first: int, size: int) -> None:
    ruled = DocumentNames(numbered_names([(3, "a "), (0, "b "), (5, "c ")]))
    kept = DocumentNames(pack_names([f"{number}.txt" for number in range(8)]))
    end = min(8, first + size)
    for names in (ruled, kept):
        part = DocumentNames(names_between(names, first, end))
        assert [one.name for one in part] == [names[number].name for number in range(first, end)]


def test_a_manifest_that_lies_is_refused(tmp_path: Path) -> None:
    import json

    from corpus_index.manifest import seal

    options: dict[str, Any] = {"doc_starts": [0, 3, 6], "vocab_size": 4, "shard_tokens": 3}
    build_index(np.array([1, 2, 3, 1, 2, 3]), tmp_path / "index", **options).close()
    path = tmp_path / "index" / "manifest.json"
    good = json.loads(path.read_text())
    lies: list[tuple[str, Any]] = [
        ("vocab_size", 0),
        ("shards", []),
        ("history", {}),
        ("metadata", {"end_of_document": 9}),
        ("version", 3),
        ("shards", [{**good["shards"][0], "name": "../elsewhere"}]),
        ("shards", [good["shards"][0], {**good["shards"][1], "first_position": 4}]),
        ("shards", [good["shards"][0], {**good["shards"][1], "num_tokens": 0}]),
        ("shards", [good["shards"][0], {**good["shards"][1], "name": good["shards"][0]["name"], "num_tokens": 3}]),
    ]
    for field, value in lies:
        bad = {**good, field: value}
        bad["fingerprint"] = seal(bad)
        path.write_text(json.dumps(bad))
        with pytest.raises(IndexFormatError):
            open_index(tmp_path / "index")
    path.write_text(json.dumps({**good, "vocab_size": 5}))
    with pytest.raises(IndexFormatError, match="was changed after it was written"):
        open_index(tmp_path / "index")
    path.write_text(json.dumps(good))
    open_index(tmp_path / "index").close()
