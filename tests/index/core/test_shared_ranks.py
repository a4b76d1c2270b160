"""The ranks of positions: one file in the index's folder for all processes, or private where that can't be."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import corpus_index.core.derived as derived
import numpy as np
import pytest
from corpus_index import CorpusIndex, IndexFormatError, build_index
from corpus_index.manifest import RANKS_FILE

TOKENS = np.array([1, 2, 1, 2, 3, 1, 2, 1, 4, 2, 1, 2], np.uint16)
STARTS = np.array([0, 5, 12])


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(derived, "_SHARED_FROM", 1)
    build_index(TOKENS, tmp_path / "index", doc_starts=STARTS).close()
    return tmp_path / "index"


def _targets(index: CorpusIndex) -> list[Any]:
    options = {"leave_out": "document", "positions": np.array([0, 5]), "max_order": 3}
    rows = np.array([[1, 2, 1], [1, 2, 1]])
    return [part.tolist() for part in index.smoothed_targets(rows, [[2, 1, 2], [2, 1, 4]], **options)]


def _is_mapped(array: np.ndarray) -> bool:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(getattr(base, "obj", base), mmap.mmap)


def test_they_are_mapped_from_one_file_and_right(path: Path) -> None:
    with CorpusIndex.open(path) as index:
        ranks = index.position_ranks()
        assert _is_mapped(ranks)
        assert not ranks.flags.writeable
        assert np.array_equal(index.array("order")[ranks], np.arange(TOKENS.size))
        shared = _targets(index)
    before = (path / RANKS_FILE).stat()
    with CorpusIndex.open(path) as index:
        assert _targets(index) == shared
    assert (path / RANKS_FILE).stat().st_mtime_ns == before.st_mtime_ns
    with pytest.MonkeyPatch.context() as patch, CorpusIndex.open(path) as index:
        patch.setattr(derived, "_SHARED_FROM", 10**9)
        assert not _is_mapped(index.position_ranks())
        assert _targets(index) == shared


def test_a_folder_that_cant_be_written_gets_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def refused(*_: Any, **__: Any) -> Iterator[None]:
        raise PermissionError(13, "Permission denied")
        yield

    monkeypatch.setattr("corpus_index.files.whole_file", refused)
    with CorpusIndex.open(path) as index:
        ranks = index.position_ranks()
        assert not _is_mapped(ranks)
        assert np.array_equal(index.array("order")[ranks], np.arange(TOKENS.size))
    assert not (path / RANKS_FILE).exists()


def test_another_indexs_are_made_anew(path: Path, tmp_path: Path) -> None:
    build_index(TOKENS[::-1].copy(), tmp_path / "other", doc_starts=STARTS).close()
    with CorpusIndex.open(tmp_path / "other") as index:
        index.position_ranks()
    (tmp_path / "other" / RANKS_FILE).rename(path / RANKS_FILE)
    with CorpusIndex.open(path) as index:
        assert np.array_equal(index.array("order")[index.position_ranks()], np.arange(TOKENS.size))


def test_an_index_with_the_file_can_be_replaced(path: Path) -> None:
    with CorpusIndex.open(path) as index:
        index.position_ranks()
    build_index(TOKENS[:4], path, overwrite=True).close()
    assert not (path / RANKS_FILE).exists()


def test_ranks_outside_of_the_corpus_are_refused(path: Path) -> None:
    with CorpusIndex.open(path) as index:
        index.position_ranks()
    content = bytearray((path / RANKS_FILE).read_bytes())
    content[-2:] = b"\xff\xff"
    (path / RANKS_FILE).write_bytes(content)
    with CorpusIndex.open(path) as index, pytest.raises(IndexFormatError, match=RANKS_FILE):
        _targets(index)
