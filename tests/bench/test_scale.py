"""Growth with the corpus: texts beyond the real one, exponents, tables, a step, and the page that shows the rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import InsufficientMemoryError

from bench import scale

RESULT = Path(__file__).parents[2] / "bench" / "results" / "scale.json"
PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "scale.md"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """3,000 tokens in ten documents, and others to ask with."""
    rng = np.random.default_rng(0)
    for name in ("train_3k", "heldout_1M"):
        rng.choice(50, 3_000, p=np.arange(50, 0, -1) / 1275).astype(np.uint16).tofile(tmp_path / f"{name}.u16")
        np.save(tmp_path / f"{name}.doc_starts.npy", np.arange(0, 3_001, 300))
    return tmp_path


def test_a_text_is_real_as_far_as_there_is_one(corpus: Path) -> None:
    real = np.fromfile(corpus / "train_3k.u16", np.uint16)
    tokens, starts, is_real = scale.text_of(corpus, 1_000, corpus)
    assert tokens.tolist() == real[:1_000].tolist()
    assert starts.tolist() == [0, 300, 600, 900, 1_000]
    assert is_real
    tokens, starts, is_real = scale.text_of(corpus, 10_000, corpus)
    assert not is_real
    assert (tokens.size, int(starts[-1])) == (10_000, 10_000)
    assert tokens[:3_000].tolist() == real.tolist()
    assert (np.diff(starts) > 0).all()
    document = tokens[3_000:3_300]
    shares = [float((document == real[start : start + 300]).mean()) for start in range(0, 3_000, 300)]
    assert 0.75 < max(shares) < 0.95  # one of the documents, with noise


def test_steps_say_what_they_measured(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "LEAST_S", 0.0)
    monkeypatch.setattr(scale, "WARM", 0)
    monkeypatch.setattr(scale, "BATCH", 2)
    rows: list[dict[str, Any]] = []
    for cut in scale.CUTS:
        row = {"tokens": 3_000, "cut": cut} | scale.build(corpus, 3_000, cut, corpus)
        row |= scale.ask(corpus, 3_000, cut, corpus)
        if cut == "shards":
            monkeypatch.setattr(scale, "REMOVED_OF", 5)
            row |= scale.change(corpus, 3_000, cut, corpus)
            assert row["removed_tokens"] == 600
        assert row["hot_bytes_per_token"] < row["disk_bytes_per_token"]
        assert row["documents"] == 10
        rows.append(row)
    assert rows[1]["shards"] > 1
    assert "<svg" in scale.curves({"rows": rows})
    shown = scale.tables({"rows": rows, "exponents": {}})
    assert shown.count("| 3,000 |") == 3


def test_a_merge_that_needs_more_memory_is_said(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise InsufficientMemoryError("no")

    for name, value in {"LEAST_S": 0.0, "WARM": 0, "BATCH": 2, "REMOVED_OF": 5, "merge_shards": refuse}.items():
        monkeypatch.setattr(scale, name, value)
    row = {"tokens": 3_000, "cut": "shards"} | scale.build(corpus, 3_000, "shards", corpus)
    row |= scale.change(corpus, 3_000, "shards", corpus)
    assert row["merge_s"] is None
    assert "needs more memory" in scale.changes_table({"rows": [row]})


def test_exponents() -> None:
    rows = [{"tokens": n, "cut": "single", "build_s": n**1.1, "match": 1e6 / n**0.2} for n in (10**6, 10**7, 10**8)]
    assert scale.exponents(rows) == {"single": {"build_s": 1.1, "match": 0.2}}
    assert "| power | one index | 1.10 |" in scale.table({"rows": rows, "exponents": scale.exponents(rows)})


@pytest.mark.skipif(not RESULT.exists(), reason="bench/results/scale.json was not measured yet")
def test_the_page_shows_the_rows() -> None:
    assert scale.tables(json.loads(RESULT.read_text())) in PAGE.read_text(encoding="utf-8")
