"""Verification finds what checksums can't: arrays that contradict each other under an honest seal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from corpus_index import IndexFormatError, build_index, verify_index
from corpus_index.store import file_sha256, seal

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
    assert len(verify_index(path, full=full)) == 8


@pytest.mark.parametrize(
    ("name", "place", "message"),
    [
        ("doc_starts", 1, "doc_starts"),
        ("tokens", 2, "occurs"),
        ("order", 5, "order"),
        ("next_tokens", 4, "out of order"),
        ("common", 6, "out of order"),
        ("minima", 0, "minima"),
        ("near", 3, "leads astray"),
        ("row_counts", 1, "stored row"),
        ("row_tokens", 0, "stored row"),
    ],
)
def test_a_contradiction_fails(path: Path, name: str, place: int, message: str) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    entry = manifest["arrays"][name]
    array = np.fromfile(path / f"{name}.bin", entry["dtype"])
    array[place] = array[place] + 1 if array[place] < 3 or name != "tokens" else 1
    array.tofile(path / f"{name}.bin")
    entry["sha256"] = file_sha256(path / f"{name}.bin")
    manifest["fingerprint"] = seal(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IndexFormatError, match=message):
        verify_index(path, full=True)
