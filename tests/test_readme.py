"""The README runs from top to bottom in one folder, and then again; its links and pictures are there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from corpus_teacher.cli.main import app

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks() -> Iterator[tuple[str, str]]:
    """(language, code) of every block that is not marked as output."""
    for mark, language, code in re.findall(r"(<!-- output -->\n)?```(\w*)\n(.*?)```", TEXT, flags=re.DOTALL):
        if not mark:
            yield language, code


def run(language: str, code: str) -> str:
    """Run a block in this folder; what its commands print."""
    if language == "python":
        exec(compile(code.replace("steps = 200", "steps = 3"), "README.md", "exec"), {"__name__": "__main__"})
        return ""
    assert language == "sh", f"a block of {language!r} is neither run nor marked as output"
    said = ""
    for line in code.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "corpus-teacher"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        said += result.output
    return said


def test_it_runs_from_top_to_bottom_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("README.md", "docs", "index", "corpus_teacher"):
        (tmp_path / name).symlink_to(ROOT / name)
    for _ in range(2):
        said = "".join(run(*block) for block in blocks())
        assert "‹ teacher›" in said  # as the output that is shown
        assert (tmp_path / "student" / "model.safetensors").is_file()


def test_it_is_short_and_has_a_picture_of_the_idea_and_one_of_a_page() -> None:
    assert len(TEXT.splitlines()) <= 200
    assert re.findall(r"!\[[^]]*\]\(([^)]*)\)", TEXT) == ["docs/idea.svg", "docs/trace.png"]
    assert len(re.findall(r"```python", TEXT)) == 3


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", TEXT):
        assert link.startswith("https://") or (ROOT / link).exists(), link
