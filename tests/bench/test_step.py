"""The bench of a step's cost runs, small, and its ratios are those of its times."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import step

pytestmark = pytest.mark.slow


def test_it_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tiny = {**step.DEFAULT_STUDENT, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    tiny |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    monkeypatch.setitem(step.STUDENTS, "small", {"config": tiny, "vocab_size": 300, "length": 16, "batch": 2})
    out = tmp_path / "o.json"
    options = ["--students", "small", "--places", *step.PLACES, "--rounds", "2", "--steps", "1"]
    monkeypatch.setattr(sys, "argv", ["step", *options, "--bytes", "300000", "--out", str(out)])
    step.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["place"] for row in rows] == list(step.PLACES)
    for row in rows:
        assert (row["vocab_size"], row["positions_a_step"]) == (300, 32)
        told = row["seconds_a_step"]
        assert set(told) == set(step.CLOCKS) - ({"cpu"} if row["place"] == "worker" else set())
        assert all(set(every) == {*step.LABELS, *step.LEAVE_OUT} for every in told.values())
        assert len(row["ratios"]) == len(told) * 4
        assert all(low <= middle <= high for low, middle, high in row["ratios"].values())
    assert json.loads(out.read_text())["rows"] == rows


def test_batches_are_fetched_one_ahead() -> None:
    fetched: list[int] = []

    def loader() -> Iterator[int]:
        for number in range(3):
            fetched.append(number)
            yield number

    class Again:
        def __iter__(self) -> Iterator[int]:
            return loader()

    batches = step.one_ahead(Again())
    assert [next(batches) for _ in range(4)] == [0, 1, 2, 0]
    assert fetched == [0, 1, 2, 0, 1]
