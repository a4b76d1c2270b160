"""Benchmarks in a corpus, against a search of the corpus's text itself."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from corpus_teacher.analysis.contamination import Contamination, _words, index_contamination, write_csv
from corpus_teacher.cli.main import app
from corpus_teacher.data.benchmarks import read_benchmark
from corpus_teacher.data.indexing import build_index_from_documents
from corpus_teacher.data.tokenizers import ByteTokenizer
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.pages.contamination import render_contamination

WORDS = [
    *("red", "blue", "green", "one", "two", "three", "four", "five"),
    *("six", "seven", "eight", "nine", "ten", "lamp", "door", "tree"),
]
ITEMS = 24


def sentence(generator: np.random.Generator, size: int) -> str:
    return " ".join(generator.choice(WORDS, size))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[dict[str, object]]]:
    """An index, its documents, and items of which some are copied, some in part, some new."""
    generator = np.random.default_rng(1)
    documents = [sentence(generator, 120) for _ in range(4)]
    items: list[dict[str, object]] = []
    for number in range(ITEMS):
        source = documents[number % 4].split()
        copied = " ".join(source[5 : 5 + number % 30])
        texts = [f"zz {sentence(generator, 8)}", f"{copied} qq {sentence(generator, number % 9)}"]
        items.append({"id": f"item {number}", "question": texts[0], "choices": {"text": [texts[1]], "label": [number]}})
    path = tmp_path_factory.mktemp("bench") / "index"
    build_index_from_documents(documents, ByteTokenizer(), path, name="songs").close()
    return path, documents, items


@pytest.fixture(scope="module")
def answer(
    made: tuple[Path, list[str], list[dict[str, object]]], tmp_path_factory: pytest.TempPathFactory
) -> Contamination:
    file = tmp_path_factory.mktemp("bench") / "bench.jsonl"
    file.write_text("".join(json.dumps(item) + "\n\n" for item in made[2]))
    return index_contamination(made[0], [str(file)], name_field="id", fields=["question", "choices"])


def test_each_item_is_as_a_search_of_the_text_says(
    made: tuple[Path, list[str], list[dict[str, object]]], answer: Contamination
) -> None:
    _, documents, items = made
    assert [one.name for one in answer.items] == [item["id"] for item in items]
    verdicts = set()
    for item, actual in zip(items, answer.items, strict=True):
        texts = [item["question"], item["choices"]["text"][0]]
        found, windows, longest, words = {8: [], 13: []}, [], 0, 0
        for text in texts:
            for n in found:
                found[n] += [any(text[i : i + n] in one for one in documents) for i in range(len(text) - n + 1)]
            spans = [one.span() for one in re.finditer(r"\S+", text)]
            starts = [begin for begin, _ in spans if begin + 50 <= len(text)] or [0]
            windows += [any(text[begin : begin + 50] in one for one in documents) for begin in starts]
            for i in range(len(text)):
                while any(text[i : i + longest + 1] in one for one in documents) and i + longest < len(text):
                    longest += 1
            for first, (begin, _) in enumerate(spans):
                for last in range(first, len(spans)):
                    if any(text[begin : spans[last][1]] in one for one in documents):
                        words = max(words, last - first + 1)
        assert actual.longest == longest
        assert actual.longest_words == words
        assert actual.ngram_shares == pytest.approx([np.mean(found[8]), np.mean(found[13])])
        assert actual.window_share == pytest.approx(np.mean(windows))
        assert actual.num_words == sum(len(text.split()) for text in texts)
        assert all(actual.longest_text in documents[one.document] for one in actual.documents)
        verdicts.add(actual.window_verdict)
    assert verdicts == {"clean", "suspicious", "dirty"}


def test_the_report(answer: Contamination) -> None:
    shares = np.array([item.ngram_shares for item in answer.items])
    for one in answer.by_threshold:
        column = shares[:, answer.ngrams.index(one.n)]
        assert one.items == ((column > 0) if one.threshold == 0 else (column >= one.threshold)).sum()
        assert one.share == one.items / ITEMS
    lengths = [item.num_words for item in answer.items]
    assert answer.gpt3_words == min(max(int(np.percentile(lengths, 5)), 8), 13)
    assert answer.gpt3_dirty == sum(item.longest_words >= answer.gpt3_words for item in answer.items)
    assert 0 < answer.gpt3_dirty < ITEMS
    assert sum(answer.windows.values()) == ITEMS
    rows = list(csv.DictReader(io.StringIO(write_csv(answer))))
    assert [int(row["longest_tokens"]) for row in rows] == [item.longest for item in answer.items]
    page = render_contamination(answer)
    assert page.index("<svg") < page.index("<table")
    assert "item 20" in page


def test_parquet_and_packed_lines_give_the_same(
    made: tuple[Path, list[str], list[dict[str, object]]], answer: Contamination, tmp_path: Path
) -> None:
    pq.write_table(pa.Table.from_pylist(made[2]), tmp_path / "bench.parquet")
    with gzip.open(tmp_path / "bench.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(item) + "\n" for item in made[2])
    for name in ("bench.parquet", "bench.jsonl.gz"):
        other = index_contamination(
            made[0], [str(tmp_path / name)], name_field="id", fields=["question", "choices.text"]
        )
        assert other.items == answer.items


def test_all_texts_are_read_unless_fields_are_named(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"q": "one", "a": ["two", {"x": "three", "n": 4}], "e": " "}\n')
    (item,) = read_benchmark([str(tmp_path / "b.jsonl")])
    assert item.texts == ("one", "two", "three")
    assert item.name == f"{tmp_path / 'b.jsonl'}, line 1"


@pytest.mark.parametrize(
    ("content", "fields", "what"),
    [
        ('{"q": "a"}\n[1]\n', [], "line 2 holds a JSON list"),
        ('{"q": "a"\n', [], "line 1 is not JSON"),
        ('{"q": "a"}\n', ["answer"], "answer"),
        ('{"q": 1}\n', [], "no text"),
        ("", [], "no item"),
    ],
)
def test_what_is_refused(
    made: tuple[Path, list[str], list[dict[str, object]]], tmp_path: Path, content: str, fields: list[str], what: str
) -> None:
    (tmp_path / "b.jsonl").write_text(content)
    with pytest.raises(InputError, match=what):
        index_contamination(made[0], [str(tmp_path / "b.jsonl")], fields=fields)
    with pytest.raises(ConfigError, match="ngrams"):
        index_contamination(made[0], [str(tmp_path / "b.jsonl")], ngrams=[0])


def test_the_command(made: tuple[Path, list[str], list[dict[str, object]]], tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(item) + "\n" for item in made[2]))
    options = ["index", "contamination", str(made[0]), "--data", str(tmp_path / "b.jsonl"), "--field", "choices"]
    result = CliRunner().invoke(app, [*options, "--csv", str(tmp_path / "b.csv"), "--out", str(tmp_path / "b.html")])
    assert result.exit_code == 0, result.output
    assert "songs, document" in result.stdout
    assert len((tmp_path / "b.csv").read_text().splitlines()) == ITEMS + 1
    assert "</html>" in (tmp_path / "b.html").read_text()
    said = json.loads(CliRunner().invoke(app, [*options, "--json"]).stdout)
    assert len(said["items"]) == ITEMS


@pytest.mark.parametrize(
    "text", ["", " ", "a", "one  two\n", "\tA\u3000b\u00a0c \U0001f600 \ud800\x1f.", "\u3001\u2028x"]
)
def test_words_are_what_stands_between_white_space(text: str) -> None:
    assert [tuple(span) for span in _words(text).tolist()] == [word.span() for word in re.finditer(r"\S+", text)]
