"""The examples of the recipes, small: they run to their end and print the whole table."""

from __future__ import annotations

import ast
import importlib.util
import math
import re
import runpy
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAGES = ("recipes/on-policy.md", "recipes/demonstrations.md", "recipes/quantization.md", "adapters.md", "caches.md")


def rows_of(name: str, options: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What an example prints below the head of its table."""
    monkeypatch.setattr(sys, "argv", [name, *options.split()])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out.splitlines()[1:]


def test_on_policy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--bytes 300000 --vocab 300 --length 16 --steps 6 --batch 4"
    rows = rows_of("on_policy.py", options, monkeypatch, capsys)
    assert [row[:32].strip() for row in rows] == ["start", "off-policy", "on-policy at 50%"]
    numbers = [[float(word) for word in row[32:].split()] for row in rows]
    assert all(0 < nats < 2 * math.log(300) and surprise > 0 for nats, surprise, _ in numbers)
    assert numbers[1] != numbers[2]  # some of the steps were the student's own


def test_demonstrations(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of("demonstrations.py", "--pretrain 4 --steps 3 --shown 6 --answer 3", monkeypatch, capsys)
    names = ["start", "frozen teacher", "moving average", "live weights", "fine-tuned"]
    assert [row[:20].strip() for row in rows] == names
    numbers = [tuple(float(word) for word in row[20:].split()) for row in rows]
    assert all(0 < number < 2 * math.log(16) for row in numbers for number in row)
    assert len(set(numbers)) == 5  # each way leads elsewhere


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed: pip install torchao")
def test_quantization_recovery(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--bytes 300000 --length 16 --pretrain 5 --steps 3 --batch 4"
    rows = rows_of("quantization_recovery.py", options, monkeypatch, capsys)
    assert len(rows) == 10
    losses = {row[:36].strip(): float(row.split()[-1]) for row in rows}
    assert losses["full precision"] == pytest.approx(0, abs=1e-5)
    assert losses["int8: rounded"] < losses["int4: rounded"]


@pytest.mark.parametrize("page", PAGES)
def test_what_the_pages_name_is_there(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = [ast.parse(block) for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    assert imports
    for node in imports:
        exec(ast.unparse(node), {})
    for script in re.findall(r"python (examples/\S+\.py)", text):
        assert (ROOT / script).is_file()
    for link in re.findall(r"\]\(([^)]+\.md)\)", text):
        assert (ROOT / "docs" / page).parent.joinpath(link).is_file()
