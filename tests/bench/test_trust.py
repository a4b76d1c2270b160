"""The campaigns against trust, in small: they find what they plant, and nothing else."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from corpus_index import build_index

from bench.trust import flips


def test_no_flip_crashes_or_hangs() -> None:
    found = flips.campaign(68)
    assert found["tried"] == 68
    assert (found["crash"], found["hang"], found["exception"]) == (0, 0, 0), found["worst"]
    assert found["refused"] > 0
    assert found["wrong"] > 0  # unchecked is unchecked


def test_continuations_that_no_vocabulary_has_crash_nothing(tmp_path: Path) -> None:
    path = tmp_path / "index"
    build_index(path=path, **flips.small_corpus(1, wide=False)).close()
    size = (path / "next_tokens.bin").stat().st_size
    planned = [flips.Flip("next_tokens.bin", place, "ff" * 4000) for place in range(0, size - 4000, 2000)]
    outcomes = flips.run_flips(path, planned, seed=1)
    assert {outcome.kind for outcome in outcomes} <= {"right", "refused", "wrong"}, outcomes


def test_a_crash_and_a_hang_are_counted_and_the_files_are_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index"
    build_index(path=path, **flips.small_corpus(0, wide=False)).close()
    planned = flips.flips_of(path, 6, 0)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    calls = []

    def ask(*arguments: object) -> tuple[str, str, dict[str, str]]:
        calls.append(1)
        changed = (path / planned[1].file).read_bytes() != before[planned[1].file]
        if changed:
            ctypes.string_at(0)
        while (path / planned[2].file).read_bytes() != before[planned[2].file]:
            pass
        return "right", "", {}

    monkeypatch.setattr(flips, "ask", ask)
    outcomes = flips.run_flips(path, planned, hang_s=0.5)
    assert [(outcome.kind, outcome.more) for outcome in outcomes[:3]] == [
        ("right", ""),
        ("crash", "SIGSEGV"),
        ("hang", "SIGALRM"),
    ]
    assert [outcome.kind for outcome in outcomes[3:]] == ["right"] * 3
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
