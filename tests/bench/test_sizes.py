"""Inputs of odd sizes, in small: what ends as it should, and that what doesn't is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.trust import sizes

CASES = {case.name: case for case in sizes.CASES}


@pytest.mark.parametrize("name", ["only-empty", "pipe"])
def test_a_case_ends_as_it_should(tmp_path: Path, name: str) -> None:
    row = sizes.run(CASES[name], 1e-5, tmp_path)
    assert row["right"], row
    assert 0 < row["peak_bytes"] <= row["bounds"]["memory_bytes"]


@pytest.mark.parametrize(
    ("changes", "ended"),
    [
        ({"sentence": "something else"}, "is a pipe"),
        ({"sentence": None}, "is a pipe"),
        ({"memory_bytes": -1e10}, "MiB"),
    ],
)
def test_what_ends_otherwise_is_counted(tmp_path: Path, changes: dict[str, Any], ended: str) -> None:
    row = sizes.run(CASES["pipe"]._replace(**changes), 1.0, tmp_path)
    assert not row["right"]
    assert ended in row["ended"]
