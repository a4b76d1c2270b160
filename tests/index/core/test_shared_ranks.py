"""What documents are left out with: files in the index's folder for all processes, or private where that can't be."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import corpus_index.core.derived as derived
import numpy as np
import pytest
from corpus_index import CorpusIndex, IndexFormatError, build_index, make_estimator
from corpus_index.manifest import LOSSES_FILE, RANKS_FILE
from corpus_index.reference.engine import ReferenceIndex
from hypothesis import given
from hypothesis import strategies as st

from ..conftest import corpora

Both = Callable[..., tuple[CorpusIndex, ReferenceIndex]]

TOKENS = np.array([1, 2, 1, 2, 3, 1, 2, 1, 4, 2, 1, 2], np.uint16)
STARTS = np.array([0, 5, 12])


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(derived, "_SHARED_FROM", 1)
    build_index(TOKENS, tmp_path / "index", doc_starts=STARTS).close()
    return tmp_path / "index"


def _targets(index: CorpusIndex) -> list[Any]:
    options: dict[str, Any] = {"leave_out": "document", "positions": np.array([0, 5]), "max_order": 3}
    options["estimator"] = make_estimator("kneser-ney", 3, discounts=((0.5, 0.5, 0.5),))
    rows = np.array([[1, 2, 1], [1, 2, 1]])
    return [part.tolist() for part in index.smoothed_targets(rows, [[2, 1, 2], [2, 1, 4]], **options)]


def _is_mapped(array: np.ndarray) -> bool:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(getattr(base, "obj", base), mmap.mmap)


def _is_right(index: CorpusIndex) -> bool:
    ranks, following = index.sorted_ranks()
    by_position = index.position_ranks()
    parts = [np.sort(by_position[lo:hi]) for lo, hi in pairwise(STARTS)]
    return bool(
        np.array_equal(ranks, np.concatenate(parts)) and np.array_equal(following, index.array("next_tokens")[ranks])
    )


def test_they_are_mapped_from_one_file_and_right(path: Path) -> None:
    with CorpusIndex.open(path) as index:
        for array in (*index.sorted_ranks(), index.lost_from()):
            assert _is_mapped(array)
            assert not array.flags.writeable
        assert _is_right(index)
        shared = _targets(index)
    before = [(path / name).stat() for name in (RANKS_FILE, LOSSES_FILE)]
    with CorpusIndex.open(path) as index:
        assert _targets(index) == shared
    assert [(path / name).stat().st_mtime_ns for name in (RANKS_FILE, LOSSES_FILE)] == [x.st_mtime_ns for x in before]
    with pytest.MonkeyPatch.context() as patch, CorpusIndex.open(path) as index:
        patch.setattr(derived, "_SHARED_FROM", 10**9)
        assert not _is_mapped(index.sorted_ranks()[0])
        assert not index.lost_from().flags.writeable
        assert _targets(index) == shared


def test_a_folder_that_cant_be_written_gets_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def refused(*_: Any, **__: Any) -> Iterator[None]:
        raise PermissionError(13, "Permission denied")
        yield

    monkeypatch.setattr("corpus_index.files.whole_file", refused)
    with CorpusIndex.open(path) as index:
        assert not _is_mapped(index.sorted_ranks()[0])
        assert _is_right(index)
        _targets(index)
    assert not (path / RANKS_FILE).exists()
    assert not (path / LOSSES_FILE).exists()


def test_a_full_disk_leaves_no_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    before = sorted(path.iterdir())
    with CorpusIndex.open(path) as index:
        assert _is_right(index)
    assert sorted(path.iterdir()) == before


def test_another_indexs_are_made_anew(path: Path, tmp_path: Path) -> None:
    build_index(TOKENS[::-1].copy(), tmp_path / "other", doc_starts=STARTS).close()
    with CorpusIndex.open(tmp_path / "other") as index:
        index.sorted_ranks()
    (tmp_path / "other" / RANKS_FILE).rename(path / RANKS_FILE)
    with CorpusIndex.open(path) as index:
        assert _is_right(index)


def test_an_index_with_the_files_can_be_replaced(path: Path) -> None:
    with CorpusIndex.open(path) as index:
        _targets(index)
    (path / ".position-ranks").write_bytes(b"of an earlier version")
    build_index(TOKENS[:4], path, overwrite=True).close()
    assert not any((path / name).exists() for name in (RANKS_FILE, LOSSES_FILE, ".position-ranks"))


def test_ranks_outside_of_the_corpus_are_refused(path: Path) -> None:
    with CorpusIndex.open(path) as index:
        index.sorted_ranks()
    content = bytearray((path / RANKS_FILE).read_bytes())
    end = len(content) - 2 * TOKENS.size  # of the ranks
    content[end - 2 : end] = b"\xff\xff"
    (path / RANKS_FILE).write_bytes(content)
    with CorpusIndex.open(path) as index, pytest.raises(IndexFormatError, match=RANKS_FILE):
        _targets(index)


@given(corpora(), st.data())
def test_losses_equal_what_runs_lose(make_both: Both, corpus: dict[str, Any], data: st.DataObject) -> None:
    """lost_from tells of each node's runs what looking at them tells."""
    index, _ = make_both(corpus)
    document = data.draw(st.integers(0, index.num_documents - 1))
    depth = data.draw(st.integers(0, 4))
    begin, end = index.doc_starts[document : document + 2].tolist()
    order, common = index.array("order").astype(np.int64), index.array("common").astype(np.int64)
    next_tokens = index.array("next_tokens")
    nodes = np.cumsum(np.append(0, common[1:] < depth)) if order.size else np.zeros(0)
    runs = np.cumsum(np.append(0, common[1:] <= depth)) if order.size else np.zeros(0)
    own = (order >= begin) & (order < end)
    expected: dict[tuple[int, int], int] = {}
    for run in np.unique(runs).tolist():
        for token in np.unique(next_tokens[runs == run]).tolist():
            here = (runs == run) & (next_tokens == token)
            if own[here].all():
                key = int(nodes[here][0]), token
                expected[key] = expected.get(key, 0) + 1
    ranks, following = (part[begin:end] for part in index.sorted_ranks())
    found: dict[tuple[int, int], int] = {}
    for rank, token, lost_from in zip(ranks, following.tolist(), index.lost_from()[begin:end].tolist(), strict=True):
        if lost_from <= depth:
            key = int(nodes[rank]), token
            found[key] = found.get(key, 0) + 1
    assert found == expected


def test_the_ranks_of_a_stretch(path: Path) -> None:
    with CorpusIndex.open(path) as index:
        by_position = np.argsort(index.array("order"))
        for begin, end in ((0, 5), (5, 12), (6, 9), (2, 8), (0, 12), (3, 3)):
            assert index.stretch_ranks(begin, end).tolist() == sorted(by_position[begin:end].tolist())
