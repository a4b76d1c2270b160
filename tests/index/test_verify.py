"""Verification finds what checksums can't: arrays that contradict each other under an honest seal."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import CorpusIndex, IndexFormatError, build_index, verify_index
from corpus_index.store import file_sha256, seal
from hypothesis import given
from hypothesis import strategies as st

DOCUMENTS = [[1, 2, 1, 2, 3, 1, 2], [], [2, 1, 2, 3, 3, 1], [1, 2, 3]]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("corpus_index.build._LIGHT", 2)
    monkeypatch.setattr("corpus_index.build._ROW_BYTES_PER_TOKEN", 1e9)
    tokens = np.array([token for document in DOCUMENTS for token in document], np.uint16)
    build_index(tokens, tmp_path / "index", doc_starts=np.cumsum([0, *map(len, DOCUMENTS)]))
    return tmp_path / "index"


@pytest.mark.parametrize("full", [False, True])
def test_a_good_index_passes(path: Path, full: bool) -> None:
    assert len(verify_index(path, full=full)) == 9


def rewrite(path: Path, **arrays: np.ndarray) -> None:
    """Put other arrays in place under an honest seal."""
    manifest = json.loads((path / "manifest.json").read_text())
    for name, array in arrays.items():
        entry = manifest["arrays"][name]
        array = array.astype(entry["dtype"])
        array.tofile(path / f"{name}.bin")
        entry.pop("crc32", None)
        entry.update(sha256=file_sha256(path / f"{name}.bin"), bytes=array.nbytes, shape=list(array.shape))
    reseal(path, manifest)


def reseal(path: Path, manifest: dict[str, Any]) -> None:
    manifest["fingerprint"] = seal(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with CorpusIndex.open(path) as index:
        return {name: index.array(name).copy() for name in json.loads((path / "manifest.json").read_text())["arrays"]}


@pytest.mark.parametrize(
    ("name", "place", "message"),
    [
        ("doc_starts", 1, "doc_starts"),
        ("doc_directory", 0, "doc_directory doesn't lead"),
        ("tokens", 2, "occurs"),
        ("order", 5, "order"),
        ("next_tokens", 4, "the continuation of rank 4 is wrong"),
        ("common", 6, "rank 6 is out of order"),
        ("minima", 0, "minima"),
        ("near", 3, "leads astray"),
        ("occurrence_directory", 1, "occurrence list of token"),
        ("symbols", 4, "first ranks of tokens|occurs|places of the occurrence lists"),
        ("endings", 1, "endings|occurs"),
        ("row_bounds", 0, "stored row"),
        ("row_directory", 1, "row_directory doesn't lead"),
        ("row_offsets", 1, "stored row"),
        ("row_counts", 1, "stored row"),
        ("row_tokens", 0, "stored row"),
    ],
)
def test_a_contradiction_fails(path: Path, name: str, place: int, message: str) -> None:
    array = arrays_of(path)[name]
    flat = array.reshape(-1)
    flat[place] = flat[place] + 1 if flat[place] < 3 or name != "tokens" else 1
    rewrite(path, **{name: array})
    with pytest.raises(IndexFormatError, match=message):
        verify_index(path, full=True)


@pytest.mark.parametrize("full", [False, True])
def test_whatever_stands_in_an_array_the_answer_is_a_sentence(path: Path, full: bool) -> None:
    good, rng = arrays_of(path), np.random.default_rng(0)
    for name, array in good.items():
        for kind in range(24):
            bad = array.copy()
            flat = bad.reshape(-1)
            if flat.size == 0:
                break
            if kind == 0:
                flat[:] = 0
            elif kind == 1:
                flat[:] = np.iinfo(flat.dtype).max
            elif kind < 6:
                flat[:] = rng.integers(0, np.iinfo(flat.dtype).max, flat.size, flat.dtype, endpoint=True)
            else:
                flat.view(np.uint8)[rng.integers(flat.nbytes)] ^= np.uint8(1 << rng.integers(8))
            if np.array_equal(bad, array):
                continue
            if name == "symbols" and np.array_equal(bad[:, :3], array[:, :3]):
                continue  # another shift of a list this short is as good
            rewrite(path, **{name: bad})
            if full:
                with pytest.raises(IndexFormatError):
                    verify_index(path, full=True)
            else:  # some may pass: a sample was asked for
                with suppress(IndexFormatError):
                    verify_index(path)
        rewrite(path, **{name: array})
    assert len(verify_index(path, full=full)) == 9


def test_a_missing_row_is_noticed(path: Path) -> None:
    good = arrays_of(path)
    bounds, offsets = good["row_bounds"], good["row_offsets"]
    assert len(bounds) > 1
    firsts = np.arange(good["row_directory"].size) << CorpusIndex.open(path).row_shift
    rewrite(
        path,
        row_bounds=bounds[:-1],
        row_offsets=offsets[:-1],
        row_tokens=good["row_tokens"][: offsets[-2]],
        row_counts=good["row_counts"][: offsets[-2]],
        row_directory=np.searchsorted(bounds[:-1, 0], firsts),
    )
    with pytest.raises(IndexFormatError, match="aren't those of the contexts that `light` and `deepest` name"):
        verify_index(path, full=True)


@pytest.mark.parametrize(
    ("field", "value"), [("light", 1), ("light", 3), ("light", 2**32), ("deepest", 1), ("row_shift", 1)]
)
def test_a_wrong_number_is_noticed(path: Path, field: str, value: int) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest[field] = value
    reseal(path, manifest)
    with pytest.raises(IndexFormatError):
        verify_index(path, full=True)


def test_an_end_inside_a_document_is_noticed(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["metadata"]["end_of_document"] = 1
    reseal(path, manifest)
    with pytest.raises(IndexFormatError, match="the end-of-document token 1 stands inside a document, at position 0"):
        verify_index(path)


def test_an_alphabet_is_checked(tmp_path: Path) -> None:
    build_index(np.array([7, 99_999, 7, 5], np.uint32), tmp_path / "index", vocab_size=100_000).close()
    assert len(verify_index(tmp_path / "index", full=True)) == 9
    for wrong in ([5, 7, 100_000], [7, 7, 9], [9, 8, 7]):
        rewrite(tmp_path / "index", alphabet=np.array(wrong))
        with pytest.raises(IndexFormatError, match="the alphabet doesn't fit a vocabulary of 100,000"):
            verify_index(tmp_path / "index")


def words(kind: str) -> np.ndarray:
    """150,000 tokens that repeat themselves as far as can be."""
    if kind == "fibonacci":
        a, b = [1], [1, 0]
        while len(b) < 150_000:
            a, b = b, b + a
        return np.array(b[:150_000], np.uint16)
    return np.resize(np.array([1] if kind == "one token" else [1, 2], np.uint16), 150_000)


@pytest.mark.parametrize("kind", ["one token", "two in turns", "fibonacci"])
def test_a_repetitive_corpus_is_checked_in_linear_time(tmp_path: Path, kind: str) -> None:
    """By the naive way, comparing texts, this would take minutes (a shared length each of up to 150,000)."""
    build_index(words(kind), tmp_path / "index").close()
    for full in (False, True):
        assert len(verify_index(tmp_path / "index", full=full)) == 9


@given(
    documents=st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=5).filter(any),
    end=st.sampled_from([None, 4]),
)
def test_what_is_built_passes(tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], end: Any) -> None:
    documents = [[*document, 4] if end is not None else document for document in documents]
    tokens = np.array([token for document in documents for token in document], np.uint16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("corpus_index.build._LIGHT", 2)
        patch.setattr("corpus_index.build._ROW_BYTES_PER_TOKEN", 1e9)
        path = tmp_path_factory.mktemp("built") / "index"
        build_index(tokens, path, doc_starts=np.cumsum([0, *map(len, documents)]), end_of_document=end).close()
    for full in (False, True):
        verify_index(path, full=full)
