"""What can be indexed and what can't, and how it is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from corpus_index import CorpusError
from corpus_index.corpus import check_corpus


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        ([], {}, "holds no token"),
        ([[1, 2]], {}, "1-D array of integers"),
        ([1.0, 2.0], {}, "not 1-D of float64"),
        ([1, -2], {}, "token id -2 at position 1 is outside"),
        ([1, 2, 9], {"vocab_size": 9}, r"token id 9 at position 2 is outside of the vocabulary 0 \.\. 8"),
        ([1], {"vocab_size": 2**31 + 1}, "vocab_size 2,147,483,649"),
        ([2**31], {}, "token id 2147483648"),
        ([1, 2], {"doc_starts": [0, 1]}, "from 0 to the number of tokens"),
        ([1, 2], {"doc_starts": [0, 2, 1, 2]}, "must not decrease, but 2 is followed by 1"),
        ([1, 2], {"doc_starts": [0.0, 2.0]}, "1-D integer array"),
        ([1, 2], {"doc_starts": [2]}, "1-D integer array"),
        ([1, 2], {"end_of_document": 3, "vocab_size": 3}, "end_of_document 3 is outside"),
        ([0, 1, 2], {"end_of_document": 1, "doc_starts": [0, 3]}, "stands inside a document, at position 1"),
    ],
)
def test_refuses(tokens: Any, options: dict[str, Any], message: str) -> None:
    if "doc_starts" in options:
        options = options | {"doc_starts": np.array(options["doc_starts"])}
    with pytest.raises(CorpusError, match=message):
        check_corpus(np.array(tokens, np.int64 if len(tokens) == 0 else None), **options)


def test_documents_end_after_the_token_that_says_so() -> None:
    corpus = check_corpus(np.array([1, 0, 0, 2, 3]), end_of_document=0)
    assert corpus.doc_starts.tolist() == [0, 2, 3, 5]
    assert corpus.vocab_size == 4


def test_one_document_by_default() -> None:
    assert check_corpus(np.array([1, 0])).doc_starts.tolist() == [0, 2]


def test_filled_starts_skip_empty_documents() -> None:
    corpus = check_corpus(np.array([1, 2, 3]), np.array([0, 0, 2, 2, 3, 3]))
    assert corpus.filled_starts.tolist() == [0, 2, 3]
