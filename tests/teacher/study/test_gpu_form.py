"""The pair for a GPU runs from end to end, in small and on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.warm import run_warm

SCRIPT = Path(__file__).parents[3] / "studies" / "gpu.py"
SENTENCES = "The cat sat on the mat. The dog saw the cat. Nobody minded. A bird sang, and the dog slept. "


@pytest.mark.slow
def test_the_pair_is_trained_and_compared(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(4):
        (texts / f"{number}.txt").write_text(f"Book {number}. " + SENTENCES * (20 + number), encoding="utf-8")
    out = tmp_path / "out"
    run = run_warm(SCRIPT, texts, "--out", out, "--quick", "--tokens", 8000, timeout=900)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told == json.loads((out / "result.json").read_text())
    assert told["steps"] == 8000 // 512
    assert told["tokens_read"] == told["steps"] * 512
    gap = told["arms"]["annealed"]["nats"] - told["arms"]["hard"]["nats"]
    value, low, high = told["annealed_minus_hard"]
    assert value == pytest.approx(gap)
    assert low <= value <= high or low != low  # one book has no interval
    assert {"hard", "annealed"} == set(told["arms"])
