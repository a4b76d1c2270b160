"""The oracle itself, pinned by cases worked by hand."""

from __future__ import annotations

import pytest
from corpus_index.reference.engine import START, ReferenceIndex
from corpus_index.reference.estimators import witten_bell

# corpus: "a b a b c" and "b a" with a = 0, b = 1, c = 2
INDEX = ReferenceIndex([[0, 1, 0, 1, 2], [], [1, 0]], vocab_size=4)


@pytest.mark.parametrize(
    ("ngram", "positions"),
    [([0, 1], [0, 2]), ([1, 0], [1, 5]), ([2], [4]), ([2, 1], []), ([3], []), ([], [0, 1, 2, 3, 4, 5, 6])],
)
def test_positions(ngram: list[int], positions: list[int]) -> None:
    assert INDEX.positions(ngram) == positions
    assert INDEX.count(ngram) == len(positions)


def test_next_tokens_take_the_longest_match() -> None:
    assert INDEX.next_tokens([0, 1]) == ({0: 1, 2: 1}, 2)
    assert INDEX.next_tokens([3, 1]) == ({0: 2, 2: 1}, 1)  # 3 isn't in the corpus
    assert INDEX.next_tokens([2, 2]) == ({0: 3, 1: 3, 2: 1}, 0)  # nothing follows 2 anywhere
    assert INDEX.next_tokens([0, 1], max_order=1) == ({0: 2, 2: 1}, 1)
    assert INDEX.next_tokens([0, 1, 0, 1], min_count=2) == ({0: 1, 2: 1}, 2)


def test_the_start_of_a_document_is_a_symbol() -> None:
    assert INDEX.next_tokens([], starts_document=True) == ({0: 1, 1: 1}, 0)
    assert INDEX.next_tokens([1], starts_document=True) == ({0: 1}, 1)  # only the last document begins with b
    assert INDEX.next_tokens([1], starts_document=True, max_order=1) == ({0: 2, 2: 1}, 1)
    assert INDEX.known_symbols([2, 1], starts_document=True) == (START, 2, 1)


def test_a_context_starts_anew_after_the_end_of_a_document() -> None:
    index = ReferenceIndex([[1, 2, 0], [2, 0]], vocab_size=3, end_of_document=0)
    assert index.known_symbols([1, 0, 2]) == (START, 2)
    assert index.next_tokens([1, 0]) == ({1: 1, 2: 1}, 0)
    assert index.next_tokens([1, 0, 2]) == ({0: 1}, 1)


def test_witten_bell_by_hand() -> None:
    # p0 = (3 + 3/4, 3 + 3/4, 1 + 3/4, 3/4) / 10; after b: a twice, c once, so (c + 2 p0) / (3 + 2)
    base = [0.375, 0.375, 0.175, 0.075]
    expected = [(2 + 2 * base[0]) / 5, 2 * base[1] / 5, (1 + 2 * base[2]) / 5, 2 * base[3] / 5]
    assert witten_bell(INDEX, [3, 1]) == pytest.approx(expected)


def test_witten_bell_leaves_one_out_at_every_order() -> None:
    # without its own occurrence, "a b" is followed by c alone, "b" by a and c, and the unigram c is gone
    base = [3.75 / 9, 3.75 / 9, 0.75 / 9, 0.75 / 9]
    one = [(2 + 1 * base[0]) / 3, base[1] / 3, base[2] / 3, base[3] / 3]
    expected = [(1 + one[0]) / 2, one[1] / 2, one[2] / 2, one[3] / 2]
    assert witten_bell(INDEX, [0, 1], leave_out=("self", 2)) == pytest.approx(expected)
    assert sum(expected) == pytest.approx(1)
