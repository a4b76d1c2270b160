"""The longest matches of texts against a search of the documents themselves, where documents end in any token."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest
from corpus_index import CorpusIndex, build_index
from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.analysis import matching
from corpus_teacher.analysis.matching import longest_matches

TOKENS = st.lists(st.integers(0, 3), max_size=12)


def occurs(documents: list[list[int]], ngram: list[int]) -> bool:
    return any(ngram == one[i : i + len(ngram)] for one in documents for i in range(len(one) - len(ngram) + 1))


def longest(documents: list[list[int]], text: list[int], end: int | None) -> list[int]:
    """The definition: at each token the longest n-gram that ends there, without the end-of-document token."""
    found = []
    for place in range(len(text)):
        size = 0
        while size <= place and end not in text[place - size : place + 1]:
            if not occurs(documents, text[place - size : place + 1]):
                break
            size += 1
        found.append(size)
    return found


@given(
    documents=st.lists(TOKENS, min_size=1, max_size=6).filter(any),
    texts=st.lists(TOKENS, min_size=1, max_size=4),
    layout=st.sampled_from(["full", "compact"]),
    end=st.sampled_from([None, 2]),
)
def test_each_length_is_what_a_search_finds(
    documents: list[list[int]], texts: list[list[int]], layout: str, end: int | None
) -> None:
    if end is not None:  # a document holds it at its end, or not at all
        documents = [[one for one in document if one != end] + [end] * (len(document) % 2) for document in documents]
        if not any(documents):
            return
    tokens = np.array([token for one in documents for token in one], np.uint16)
    starts = np.cumsum([0, *map(len, documents)])
    with tempfile.TemporaryDirectory() as folder:
        options = {"doc_starts": starts, "vocab_size": 5, "end_of_document": end, "layout": layout}
        build_index(tokens, f"{folder}/index", **options).close()
        with CorpusIndex.open(f"{folder}/index") as index:
            actual = longest_matches(index, [np.array(text, np.int64) for text in texts])
            for text, found in zip(texts, actual, strict=True):
                assert found.length.tolist() == longest(documents, text, end)
                for place in np.flatnonzero(found.hi > found.lo).tolist():
                    ngram = text[place + 1 - found.length[place] : place + 1]
                    assert index.count(ngram) >= found.hi[place] - found.lo[place]


def test_ends_of_documents_are_compared_not_counted_one_by_one(monkeypatch: pytest.MonkeyPatch, tmp_path: str) -> None:
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, 4, 400).astype(np.uint16)
    index = build_index(tokens, f"{tmp_path}/index", doc_starts=np.arange(0, 401, 8), vocab_size=4)
    texts = [generator.integers(0, 4, 50) for _ in range(20)]
    documents = tokens.reshape(-1, 8).tolist()
    expected = [longest(documents, text.tolist(), None) for text in texts]
    monkeypatch.delattr(matching, "_searched")
    assert [one.length.tolist() for one in longest_matches(index, texts)] == expected
    index.close()
