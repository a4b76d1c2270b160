"""The README's Python runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from corpus_index import build_index

pytestmark = pytest.mark.slow

README = Path(__file__).parents[1] / "README.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_first_snippet_asserts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "assert" in blocks()[0]
    exec(blocks()[0], {})


def test_the_training_snippet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build_index(np.random.default_rng(0).integers(0, 50, 5000), tmp_path / "my-index", vocab_size=64)
    scope: dict[str, object] = {}
    exec(blocks()[1], scope)
    assert scope["loss"].item() > 0  # type: ignore[attr-defined]
    assert scope["student"].lm_head.weight.grad.abs().sum() > 0  # type: ignore[attr-defined]


def test_the_whole_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    build_index(np.random.default_rng(0).integers(0, 50, 9000), tmp_path / "my-index", vocab_size=64)
    loop = next(block for block in blocks() if "DataLoader" in block)
    assert len(loop.splitlines()) <= 45
    exec(loop.replace("steps = 200", "steps = 4"), {"__name__": "__main__"})
    assert "share_corpus" in capsys.readouterr().out
    assert (tmp_path / "student" / "model.safetensors").is_file()


def test_pictures_are_there() -> None:
    for picture in re.findall(r"!\[[^]]*\]\(([^)]*)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / picture).is_file()
