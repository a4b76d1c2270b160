"""A corpus asked in words: the answers are those of the index in ids, documents have names, nothing needs an id."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from corpus_index import build_index

import corpus_teacher
from corpus_teacher.analysis.corpus import Corpus, open_corpus
from corpus_teacher.analysis.duplicates import index_repeats
from corpus_teacher.analysis.evaluation import evaluate_index
from corpus_teacher.analysis.query import index_query
from corpus_teacher.data.build import BuildOptions, build_index_from_sources
from corpus_teacher.data.indexing import build_token_index
from corpus_teacher.data.pipeline import TokenFile
from corpus_teacher.errors import QueryError, TokenizerError
from corpus_teacher.pages.duplicates import render_duplicates_report, shared_curve

LONG = "a passage that is long enough to be told from what stands in other documents by chance"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "a.txt").write_text("once upon a time. once upon a hill")
    (folder / "b.txt").write_text("once upon a time; " + LONG)
    (folder / "c.txt").write_text("never. " + LONG)
    build_index_from_sources([str(folder)], folder / "index", BuildOptions(tokenizer="bytes"))
    return folder


@pytest.fixture
def corpus(folder: Path) -> Iterator[Corpus]:
    with corpus_teacher.open_corpus(folder / "index") as corpus:
        yield corpus


def test_next_count_and_where(corpus: Corpus, folder: Path) -> None:
    following = corpus.next("zz once upon a ")
    assert following.match == " once upon a "
    assert [(one.text, one.count) for one in corpus.next("upon a ").tokens] == [("t", 2), ("h", 1)]
    assert "after 'upon a ', 3 times:" in str(corpus.next("upon a "))
    assert (corpus.count("once"), corpus.count("twice")) == (3, 0)
    places = corpus.where("upon a t")
    assert [(place.name, place.offset) for place in places] == [(str(folder / "a.txt"), 5), (str(folder / "b.txt"), 5)]
    assert places[0].before == "once "
    assert corpus.where("twice") == []
    assert len(corpus.where("o", limit=2)) == 2


def test_documents(corpus: Corpus, folder: Path) -> None:
    document = corpus.document(0)
    assert (document.name, document.text) == (str(folder / "a.txt"), "once upon a time. once upon a hill")
    names = [(Path(source.name or "").name, source.count) for source in corpus.documents_of("upon a ")]
    assert names == [("a.txt", 2), ("b.txt", 1)]
    assert [source.document for source in corpus.documents_of("upon a ", "hill")] == [0]
    assert corpus.documents_of("upon a ", "x") == []
    with pytest.raises(QueryError, match="there is no document 3"):
        corpus.document(3)
    with pytest.raises(QueryError, match="the text is empty"):
        corpus.count("")
    with pytest.raises(QueryError, match="top 0 is too small"):
        corpus.next("a", top=0)


def test_a_query_names_places_and_sources(folder: Path) -> None:
    answer = index_query(folder / "index", "once upon a ")
    assert [Path(place.name or "").name for place in answer.occurrences] == ["a.txt", "a.txt", "b.txt"]
    assert [(Path(source.name or "").name, source.count) for source in answer.sources] == [("a.txt", 2), ("b.txt", 1)]
    assert index_query(folder / "index", "").sources == []


def test_a_teacher_names_who_taught(corpus: Corpus) -> None:
    teacher = corpus_teacher.CorpusTeacher(corpus.index, max_order=3)
    votes = teacher.documents_of(corpus.tokenizer.encode("zz upon a "), ord("t"))
    assert (votes.match_len, votes.documents.tolist(), votes.counts.tolist()) == (3, [0, 1], [1, 1])


def test_repeats_and_held_out_text_name_documents(folder: Path, tmp_path: Path) -> None:
    answer = index_repeats(folder / "index", top_length=32)
    assert {(answer.pairs[0].name, answer.pairs[0].other_name)} <= {
        (str(folder / first), str(folder / second)) for first, second in (("b.txt", "c.txt"), ("c.txt", "b.txt"))
    }
    assert answer.documents[0].name in (str(folder / "b.txt"), str(folder / "c.txt"))
    assert str(folder / "b.txt") in render_duplicates_report(answer)
    (tmp_path / "held.txt").write_text("no once upon a hill " + LONG)
    scores = evaluate_index(folder / "index", [str(tmp_path)], estimators=["witten-bell"], max_orders=[2])
    (leak,) = scores.recited
    assert leak.name in (str(folder / "b.txt"), str(folder / "c.txt"))
    assert leak.positions == len(LONG) + 1 - 31  # each after 32 bytes or more of it, the space before included


def test_a_corpus_that_repeats_nothing_has_shares_from_0_to_1(tmp_path: Path) -> None:
    build_index(np.arange(20), tmp_path / "index", doc_starts=[0, 10, 20], vocab_size=20).close()
    (axes,) = shared_curve(index_repeats(tmp_path / "index")).axes
    assert axes.get_ylim() == (0, 1)


def test_an_index_without_names_or_tokenizer(tmp_path: Path) -> None:
    build_token_index(TokenFile(np.array([97, 98, 97]), np.array([0, 3])), None, tmp_path / "i", vocab_size=257).close()
    with pytest.raises(TokenizerError, match="holds no tokenizer"):
        open_corpus(tmp_path / "i")
    with open_corpus(tmp_path / "i", tokenizer="bytes") as corpus:
        assert corpus.where("ab")[0].name is None
        assert "Corpus(" in repr(corpus)
        assert corpus.document(0).text == "aba"


def test_words_need_no_torch(folder: Path) -> None:
    code = (
        "import sys, corpus_teacher\n"
        f"assert corpus_teacher.open_corpus({str(folder / 'index')!r}).count('once') == 3\n"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=300).returncode == 0
