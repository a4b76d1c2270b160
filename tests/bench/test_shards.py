"""The bench of shards runs, small, and counts what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import shards

pytestmark = pytest.mark.slow


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"CUTS": (1, 2), "BATCH": 3, "ROW": 4, "WARM": 1, "BATCHES": 2}.items():
        monkeypatch.setattr(shards, name, value)
    words = np.random.default_rng(0).choice(["the", "cat", "sat", "down"], (20, 30))
    (tmp_path / "books").mkdir()
    for number, line in enumerate(words.tolist()):
        (tmp_path / "books" / f"{number}.txt").write_text(" ".join(line))
    found = shards.measure(str(tmp_path / "books"), 300, tmp_path)
    assert [row["leave_out"] for row in found["rows"][:4]] == [None, "document", None, "document"]
    assert len(found["rows"]) == 2 * 2 * 2
    for row in found["rows"]:
        assert row["rounds"] == (3 if row["leave_out"] else 2)
        assert min(row["sent_bytes"], row["answered_bytes"]) > 0
    assert found["num_bytes"] == sum(len(" ".join(line)) for line in words.tolist())
