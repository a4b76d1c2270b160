"""Suffix sorting against the one-liner."""

from __future__ import annotations

import numpy as np
import pytest
from corpus_index._kernels.suffix_sort import sort_suffixes
from hypothesis import given
from hypothesis import strategies as st


def naive(text: list[int]) -> list[int]:
    return sorted(range(len(text)), key=lambda i: text[i:])


def fast(text: list[int], order_type: type, text_type: type = np.uint16) -> list[int]:
    order = np.empty(len(text), order_type)
    sort_suffixes(np.array(text, text_type), order, max(text) + 1)
    return order.tolist()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=64))
def test_random(text: list[int]) -> None:
    assert fast(text, np.int32) == naive(text)


@given(st.lists(st.integers(0, 1), min_size=1, max_size=6), st.integers(1, 40), st.lists(st.integers(0, 1), max_size=3))
def test_repetitive(part: list[int], times: int, tail: list[int]) -> None:
    text = part * times + tail
    assert fast(text, np.int32) == naive(text)


@pytest.mark.parametrize("text_type", [np.uint16, np.uint32])
def test_wide_types(text_type: type) -> None:
    text = [7, 3, 3, 7, 60_000, 3, 7, 3, 3]
    assert fast(text, np.int64, text_type) == naive(text)


def test_reports_progress_to_the_end() -> None:
    shares: list[float] = []
    text = np.array([1, 2, 1, 2, 0], np.uint16)
    sort_suffixes(text, np.empty(5, np.int32), 3, report=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
