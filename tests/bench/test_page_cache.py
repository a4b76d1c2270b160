"""Targets with a part of their files in memory: the same answers, and the keeper sees what it hands back."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from corpus_index import build_index

from bench import page_cache


@pytest.mark.skipif(sys.platform != "linux", reason="mincore and MADV_PAGEOUT are Linux's")
def test_answers_stay_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_cache, "BATCH", 2)
    monkeypatch.setattr(page_cache, "BATCHES", 2)
    tokens = np.random.default_rng(0).integers(0, 50, 20_000)
    build_index(tokens, tmp_path / "index", workers=1).close()
    found = page_cache.measure(tmp_path / "index", 0.25)
    assert found["kept_bytes"] == found["hot_bytes"] // 4
    assert 0 < found["hot_bytes"] < found["index_bytes"]
    assert min(found["free_positions_per_s"], found["tight_positions_per_s"]) > 0
