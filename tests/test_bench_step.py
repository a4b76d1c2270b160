"""The bench of a step's cost runs, small, and its ratios are those of its times."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench import step


def test_it_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tiny = {**step.DEFAULT_STUDENT, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    tiny |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    small = {"config": tiny, "vocab_size": 64, "tokens": 4000, "length": 16, "batch": 2}
    monkeypatch.setitem(step.STUDENTS, "small", small)
    monkeypatch.setattr(
        sys, "argv", ["step", "--students", "small", "--rounds", "2", "--steps", "1", "--out", str(tmp_path / "o.json")]
    )
    step.main()
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert (row["vocab_size"], row["positions_a_step"]) == (64, 32)
    assert set(row["wall_s"]) == set(row["cpu_s"]) == set(step.ARMS)
    assert len(row["ratios"]) == 4
    assert all(low <= middle <= high for low, middle, high in row["ratios"].values())
    assert json.loads((tmp_path / "o.json").read_text())["rows"] == [row]
