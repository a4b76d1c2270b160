"""Spans of a text that stand in a corpus, against a search of the corpus itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from corpus_index import CorpusIndex, QueryError, build_index
from hypothesis import given
from hypothesis import strategies as st

import corpus_teacher
from corpus_teacher.analysis.matching import longest_matches, maximal_spans
from corpus_teacher.analysis.novelty import corpus_novelty
from corpus_teacher.data.indexing import build_index_from_documents
from corpus_teacher.data.tokenizers import ByteTokenizer
from corpus_teacher.errors import ConfigError
from corpus_teacher.pages.trace import render_trace

DOCUMENTS = ["the cat sat on the mat", "a dog sat on the cat", "<b>& the end</b>"]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "index"
    build_index_from_documents(DOCUMENTS, ByteTokenizer(), path, name="tales").close()
    return path


def occurrences(documents: list[list[int]], ngram: list[int]) -> int:
    """How often an n-gram stands in the documents; the naive scan."""
    size = len(ngram)
    return sum(text[i : i + size] == ngram for text in documents for i in range(len(text) - size + 1))


def naive_spans(documents: list[list[int]], text: list[int], end: int | None) -> list[tuple[int, int, int]]:
    """All spans that occur, and whose neighbours one token longer on either side don't."""

    def there(begin: int, stop: int) -> int:
        inside = text[begin:stop]
        return 0 if begin < 0 or stop > len(text) or end in inside else occurrences(documents, inside)

    size = len(text)
    return [
        (begin, stop, there(begin, stop))
        for begin in range(size)
        for stop in range(begin + 1, size + 1)
        if there(begin, stop) and not there(begin - 1, stop) and not there(begin, stop + 1)
    ]


@given(
    documents=st.lists(st.lists(st.integers(0, 2), max_size=12), min_size=1, max_size=4).filter(any),
    text=st.lists(st.integers(0, 4), min_size=1, max_size=24),
    marked=st.sampled_from(["none", "all", "some"]),
)
def test_spans_are_those_of_a_search(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], text: list[int], marked: str
) -> None:
    end = None if marked == "none" else 4
    if end is not None:  # all documents end in the token, or only every other one
        documents = [[*one, 4] if marked == "all" or number % 2 else one for number, one in enumerate(documents)]
        documents = [one for one in documents if one] or [[0]]
    starts = np.cumsum([0, *map(len, documents)])
    path = tmp_path_factory.mktemp("spans") / "index"
    tokens = np.array([token for one in documents for token in one], np.uint16)
    metadata = {} if end is None else {"end_of_document": end}
    with build_index(tokens, path, doc_starts=starts, vocab_size=5, metadata=metadata) as index:
        found = corpus_teacher.trace(index, np.array(text), min_length=1, baseline=False)
        expected = naive_spans(documents, text, end)
        assert [(span.begin, span.end, span.count) for span in found.spans] == expected
        for span in found.spans:
            for one in span.occurrences:
                assert (
                    index.tokens[one.position : one.position + span.num_tokens].tolist() == text[span.begin : span.end]
                )
        for point in found.novelty:
            ngrams = [text[i : i + point.n] for i in range(len(text) - point.n + 1)]
            ngrams = [one for one in ngrams if end not in one]
            assert point.ngrams == len(ngrams)
            assert point.novel == pytest.approx(np.mean([not occurrences(documents, one) for one in ngrams]))


def test_texts_of_any_lengths_are_as_each_alone(words: Path) -> None:
    generator = np.random.default_rng(0)
    texts = [generator.integers(97, 105, size) for size in (1, 0, 300, 7, 7, 150)]
    with CorpusIndex.open(words) as index:
        together = longest_matches(index, texts)
        for text, found in zip(texts, together, strict=True):
            if text.size:
                (alone,) = longest_matches(index, [text])
                assert all(np.array_equal(*pair) for pair in zip(found, alone, strict=True))


def test_a_text_in_words(words: Path) -> None:
    found = corpus_teacher.trace(words, "xx sat on the qq", min_length=4)
    (span,) = found.spans
    assert (span.text, span.count, found.longest) == (" sat on the ", 2, 12)
    assert [one.name for one in span.occurrences] == ["tales, document 1", "tales, document 2"]
    assert (found.copied_tokens, found.copied_share) == (12, 12 / 16)
    assert corpus_teacher.trace(words, "xx sat on the qq", min_length=4, max_count=1).spans == []
    assert found.baseline_of == "the corpus, each document against the others"


def test_several_texts_do_not_run_into_each_other(words: Path) -> None:
    found = corpus_teacher.trace(words, ["the ca", "t sat"], min_length=3, baseline=False)
    assert [(span.begin, span.end) for span in found.spans] == [(0, 6), (6, 11)]


def test_the_baseline_of_a_corpus_leaves_each_document_out(words: Path) -> None:
    with CorpusIndex.open(words) as index:
        curve = {one.n: one.novel for one in corpus_novelty(index, passages=200, passage_tokens=64)}
        texts = [index.tokens[a:b].astype(int).tolist() for a, b in zip(index.doc_starts, index.doc_starts[1:])]  # noqa: B905
        novel, total = 0, 0
        begins = np.unique(np.linspace(0, index.num_tokens - 1, 200).astype(int))
        for begin in begins:
            own = int(index.document_of([begin])[0])
            passage = index.tokens[begin : min(begin + 64, index.doc_starts[own + 1])].astype(int).tolist()[:-1]
            others = [text for number, text in enumerate(texts) if number != own]
            for place in range(len(passage) - 3):
                total += 1
                novel += not occurrences(others, passage[place : place + 4])
        assert curve[4] == pytest.approx(novel / total)


def test_held_out_text_is_the_baseline_where_it_is_given(words: Path) -> None:
    found = corpus_teacher.trace(words, "the cat", held_out=["the dog", "xyz"])
    assert found.baseline_of == "held-out text"
    assert found.baseline[0].ngrams == 10


@pytest.mark.parametrize(
    ("ids", "options", "error", "what"),
    [
        ("", {}, QueryError, "empty"),
        (np.array([[1]]), {}, QueryError, "one sequence"),
        (np.array([999]), {}, QueryError, "999"),
        ("a", {"min_length": 0}, ConfigError, "min_length"),
        ("a", {"max_count": 0}, ConfigError, "max_count"),
    ],
)
def test_what_is_refused(words: Path, ids: object, options: dict[str, int], error: type, what: str) -> None:
    if isinstance(ids, np.ndarray) and ids.ndim == 2:
        ids = ids[..., None]
    with pytest.raises(error, match=what):
        corpus_teacher.trace(words, ids, **options)


def test_the_page(words: Path) -> None:
    page = render_trace(corpus_teacher.trace(words, "<b>& the end</b> and <i>", min_length=4))
    assert "&lt;b&gt;&amp; the end&lt;/b&gt;" in page
    assert "<i>" not in page
    assert 'href="#span0"' in page
    assert 'id="span0"' in page


def test_maximal_spans_of_nothing() -> None:
    assert [part.size for part in maximal_spans(np.zeros(3, np.int64))] == [0, 0]
