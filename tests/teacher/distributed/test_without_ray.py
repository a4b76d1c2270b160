"""What is said where Ray isn't installed; and what doesn't need it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpus_index import build_index
from typer.testing import CliRunner

from corpus_teacher.cli.main import app
from corpus_teacher.data.documents import ReadLog
from corpus_teacher.distributed import RayIndex
from corpus_teacher.errors import ConfigError


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # type: ignore[arg-type]


def test_it_is_a_sentence(without_ray: None, tmp_path: Path) -> None:
    build_index(np.array([1, 2, 1]), tmp_path / "index").close()
    with pytest.raises(ConfigError, match=r"need Ray: pip install corpus-teacher\[ray\], on every machine"):
        RayIndex(tmp_path / "index")


def test_the_commands_say_it(without_ray: None, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("a book")
    build_index(np.array([1, 2, 1]), tmp_path / "index").close()
    build = [
        "index",
        "build",
        str(tmp_path / "book.txt"),
        "--out",
        str(tmp_path / "new"),
        "-t",
        "bytes",
        "--ray",
        "local",
    ]
    for arguments in (build, ["serve", f"books=ray:{tmp_path / 'index'}", "--port", "0"]):
        if arguments[0] == "serve":
            pytest.importorskip("starlette", reason="the server isn't installed: pip install corpus-teacher[serve]")
            pytest.importorskip("uvicorn", reason="the server isn't installed: pip install corpus-teacher[serve]")
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code != 0
        assert "need Ray: pip install corpus-teacher[ray]" in f"{result.output} {result.exception}"
    assert not (tmp_path / "new").exists()


def test_the_package_costs_nothing_to_import() -> None:
    """An actor that opens a shard must not load what building needs."""
    code = (
        "import sys, corpus_teacher.distributed.ray_host;"
        "assert not {'ray', 'torch', 'transformers', 'tokenizers', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=None)


def test_logs_are_joined() -> None:
    first, second = ReadLog(), ReadLog()
    for log, name in ((first, "one"), (second, "other")):
        log.notice("said once")
        for number in range(4):
            log.note(f"{name} {number}; do something", skipped=name == "one")
        log.specials["<|end|>"] += 2
        log.done += 10
    first.add(second)
    assert (first.num_skipped, first.num_replaced, first.done) == (4, 4, 20)
    assert first.examples == [*(f"one {number}; left out" for number in range(4)), "other 0; mended"]
    assert first.notices == ["said once"]
    assert first.specials == {"<|end|>": 4}
