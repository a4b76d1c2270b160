"""The page about sources: its suffixes are the program's, and its Python runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from corpus_teacher.data.build import BuildOptions, build_index_from_sources
from corpus_teacher.data.file_kinds import TEXT_SUFFIXES

PAGE = (Path(__file__).parents[3] / "docs" / "sources.md").read_text()


def test_the_suffixes_are_all_there() -> None:
    part = PAGE[PAGE.index("**Suffixes of text files**") : PAGE.index("For a named file")]
    assert set(re.findall(r"\.[a-z0-9]+(?=[ `])", part)) == TEXT_SUFFIXES


def test_the_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("once upon a time, once upon a hill")
    build_index_from_sources(["a.txt"], "my-index", BuildOptions(tokenizer="bytes"))
    codes = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    scope: dict[str, Any] = {}
    for code in codes:
        exec(compile(code, "sources.md", "exec"), scope)
    said = capsys.readouterr().out
    assert "a.txt" in said
    assert "2 34" in said
    assert "rows.parquet: parquet, token ids in 'input_ids'" in said
