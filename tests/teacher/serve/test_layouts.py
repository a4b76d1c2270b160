"""A server of a compact index, or of compact shards, says what that of a full one says."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")

from corpus_index import open_index

from corpus_teacher.data import BuildOptions, build_index_from_sources
from corpus_teacher.serve.app import create_app
from corpus_teacher.serve.indexes import open_indexes

from .answers import PATIENT, QUESTIONS, answers
from .conftest import TEXTS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("shard_tokens", [None, 120])
def test_every_endpoint_says_the_same_of_a_compact_index(tmp_path: Path, shard_tokens: int | None) -> None:
    for number, text in enumerate(TEXTS):
        (tmp_path / f"{number}.txt").write_text(text)
    for layout in ("full", "compact"):
        options = BuildOptions(tokenizer="bytes", workers=1, shard_tokens=shard_tokens, layout=layout)
        build_index_from_sources([str(tmp_path / "*.txt")], tmp_path / layout, options)
    with open_index(tmp_path / "compact") as index:
        assert index.layout == "compact"
    served = open_indexes([tmp_path / "full", tmp_path / "compact"], PATIENT)
    app = create_app(served, PATIENT)
    expected, actual = answers(app, "full"), answers(app, "compact")
    assert len(expected) == sum(map(len, QUESTIONS.values()))
    for question, told in expected.items():
        assert actual[question] == told, question
    served.close()
