"""The bench of shards beside one index: a row for all that is asked, answers compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import build_index

from bench import shards_beside_one as bench


def test_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WARM", 1), ("BATCHES", 1), ("BATCH", 2), ("ROW", 8)):
        monkeypatch.setattr(bench, name, value)
    tokens = np.random.default_rng(0).integers(0, 9, 600)
    options: dict[str, Any] = {"doc_starts": np.arange(0, 601, 100), "vocab_size": 9}
    with (
        build_index(tokens, tmp_path / "one", **options) as one,
        build_index(tokens, tmp_path / "shards", shard_tokens=200, **options) as shards,
    ):
        rows = bench.measure(one, shards)
        assert len(rows) == 12
        assert all(row["times"] == row["shards_us"] / row["one_us"] for row in rows)
        tokens[:300] = 0
        with build_index(tokens, tmp_path / "other", **options) as other, pytest.raises(AssertionError):
            bench.measure(other, shards)
