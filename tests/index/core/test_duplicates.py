"""What documents share with each other, against a comparison of every position with every other one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from corpus_index import QueryError, near_duplicates
from corpus_index.core.duplicates import shared_across_documents
from hypothesis import given
from hypothesis import strategies as st

from ..conftest import corpora


def naive_shared(documents: list[list[int]]) -> list[dict[int, int]]:
    """By position: how many tokens before it stand before a position of each other document, at most 255."""
    places = [(d, document[:offset]) for d, document in enumerate(documents) for offset in range(len(document))]
    answer = []
    for d, context in places:
        longest: dict[int, int] = {}
        for other, text in places:
            if other != d:
                length = 0
                while length < min(len(context), len(text), 255) and context[-1 - length] == text[-1 - length]:
                    length += 1
                longest[other] = max(longest.get(other, 0), length)
        answer.append(longest)
    return answer


def naive_covered(documents: list[list[int]], length: int) -> int:
    """Tokens of runs of that length that another document holds as well."""
    covered = set()
    for d, document in enumerate(documents):
        for begin in range(len(document) - length + 1):
            run = document[begin : begin + length]
            others = [other for number, other in enumerate(documents) if number != d]
            if any(other[at : at + length] == run for other in others for at in range(len(other) - length + 1)):
                covered |= {(d, place) for place in range(begin, begin + length)}
    return len(covered)


@given(corpora(), st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(1, 4))
def test_equals_the_comparison_of_all_positions(
    make_index: Callable[..., Any], corpus: dict[str, Any], lengths: list[int], top_length: int
) -> None:
    documents = corpus["documents"]
    index = make_index(**corpus)
    expected = naive_shared(documents)
    longest = [max(others.values(), default=0) for others in expected]
    shared, partner = shared_across_documents(index)
    assert shared.tolist() == longest
    for others, length, which in zip(expected, shared.tolist(), partner.tolist(), strict=True):
        assert length == 0 or others[which] == length

    actual = near_duplicates(index, lengths, top=3, top_length=top_length)
    wanted = sorted(set(lengths))
    assert actual.lengths.tolist() == wanted
    assert actual.positions.tolist() == [sum(one >= length for one in longest) for length in wanted]
    assert actual.tokens.tolist() == [naive_covered(documents, length) for length in wanted]
    assert actual.histogram.tolist() == [longest.count(length) for length in range(256)]

    of = [d for d, document in enumerate(documents) for _ in document]
    counts = Counter(d for d, length in zip(of, longest, strict=True) if length >= top_length)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3]
    assert actual.documents.tolist() == [[d, count, len(documents[d])] for d, count in ranked]
    pairs = Counter(
        (d, which) for d, which, length in zip(of, partner.tolist(), longest, strict=True) if length >= top_length
    )
    ranked_pairs = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:3]
    assert actual.pairs.tolist() == [[*pair, count] for pair, count in ranked_pairs]


def test_a_repeat_inside_a_document_is_no_duplicate(make_index: Callable[..., Any]) -> None:
    index = make_index([[1, 2, 3, 1, 2, 3, 1, 2, 3], [2, 3, 0]], 4)
    assert shared_across_documents(index)[0].tolist() == [0, 0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 2]


def test_a_document_that_is_there_twice(make_index: Callable[..., Any]) -> None:
    text = list(np.random.default_rng(0).integers(0, 50, 400))
    index = make_index([text, [51] * 9, text], 52)
    actual = near_duplicates(index, (64, 255), top_length=64)
    assert actual.positions.tolist() == [2 * (400 - 64), 2 * (400 - 255)]
    assert actual.tokens.tolist() == [2 * 400, 2 * 400]
    assert actual.histogram[255] == 2 * (400 - 255)
    assert actual.documents.tolist() == [[0, 336, 400], [2, 336, 400]]
    assert actual.pairs.tolist() == [[0, 2, 336], [2, 0, 336]]


@pytest.mark.parametrize("size", [64, 100])
def test_a_passage_that_ends_with_its_document_counts_to_the_end(make_index: Callable[..., Any], size: int) -> None:
    copy = np.random.default_rng(1).integers(0, 900, size).tolist()
    index = make_index([copy, copy], 900)
    assert near_duplicates(index, [64]).tokens.tolist() == [2 * size]
    other = make_index([[*copy, 7, 8], [5, *copy]], 900)  # at the end of one of them only
    assert near_duplicates(other, [64]).tokens.tolist() == [2 * size]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lengths": [0]}, "length 0 is outside of 1 .. 255"),
        ({"lengths": [256]}, "length 256 is outside of 1 .. 255"),
        ({"top_length": 300}, "length 300 is outside"),
        ({"lengths": []}, "no length to count"),
        ({"top": -1}, "top -1 must be 0 or more"),
    ],
)
def test_wrong_options(make_index: Callable[..., Any], options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(QueryError, match=sentence):
        near_duplicates(make_index([[1, 2]], 3), **options)
