"""The example of corpus + SmolLM2, with a small model in SmolLM2's place."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from corpus_teacher.data import ByteTokenizer

from ..neural_models import make_model

EXAMPLE = Path(__file__).parents[3] / "examples" / "smollm2.py"


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    make_model(vocab_size=257).save_pretrained(model)
    (model / "tokenizer.json").write_bytes(ByteTokenizer().to_bytes())
    (tmp_path / "a.txt").write_text("the cat sat on the mat. the dog saw the cat. " * 20)
    (tmp_path / "b.txt").write_text("the dog sat on the mat. " * 9)
    sizes = ("--windows", "6", "--length", "16", "--k", "20", "--steps", "3", "--batch", "2")
    data = ("--data", str(tmp_path / "a.txt"), "--held-out", str(tmp_path / "b.txt"), "--out", str(tmp_path / "out"))
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--model", str(model), *data, *sizes])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    shown = capsys.readouterr().out.splitlines()
    table = {line.split()[0]: line.split()[1:] for line in shown if line.startswith(("top-", "hidden", "s"))}
    assert len(table) == 12  # eleven formats and the head of the students' table
    assert float(table["top-k-fp16"][0]) == pytest.approx(2 + 20 * 4, abs=4)
    assert 0 < float(table["hidden-int8"][1]) < float(table["top-k-int8"][1])
    assert table["sample"][1] == table["systematic"][1] == "inf"
    students = [line for line in shown if line.startswith(("hard labels", "1/2 label"))]
    assert len(students) == 2
    assert all(0 < float(line.split()[-1]) < 7 for line in students)
