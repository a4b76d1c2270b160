"""`corpus-teacher trace` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from corpus_teacher.cli.main import app
from corpus_teacher.data.indexing import build_index_from_documents
from corpus_teacher.data.tokenizers import ByteTokenizer


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "index"
    documents = ["the cat sat on the mat", "a dog sat on the cat"]
    build_index_from_documents(documents, ByteTokenizer(), path, name="tales").close()
    return path


def run(*arguments: object, **options: str) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)


def test_a_text(index: Path, tmp_path: Path) -> None:
    result = run("trace", index, "--text", "qq sat on the qq", "--out", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert "12 tokens × 2" in result.stdout
    assert "tales, document 2" in result.stdout
    assert "</html>" in (tmp_path / "page.html").read_text()


def test_the_same_from_stdin_as_json(index: Path) -> None:
    said = json.loads(run("trace", index, "--file", "-", "--json", input="qq sat on the qq").stdout)
    assert [(span["begin"], span["end"], span["count"]) for span in said["spans"]] == [(2, 14, 2)]
    assert said["copied_tokens"] == 12
    assert said["novelty"][0] == {"n": 1, "ngrams": 16, "novel": 0.25}


def test_ids(index: Path) -> None:
    said = json.loads(run("trace", index, "--ids", "--text", "97 32 100 111", "--min-length", 4, "--json").stdout)
    assert [span["text"] for span in said["spans"]] == ["a do"]


@pytest.mark.parametrize(
    ("options", "what"), [([], "no text"), (["--file", "missing.txt"], "missing.txt"), (["--text", ""], "empty")]
)
def test_what_is_refused(index: Path, options: list[str], what: str) -> None:
    result = run("trace", index, *options)
    assert result.exit_code == 2
    assert what in result.stderr
