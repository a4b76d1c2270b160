"""Sorting by symbols and ties, in several slices, against the one-liner and against induced sorting."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from corpus_index._kernels import lms_sort
from corpus_index._kernels.suffix_sort import sort_suffixes
from hypothesis import given
from hypothesis import strategies as st


def naive(text: list[int]) -> list[int]:
    return sorted(range(len(text)), key=lambda i: text[i:])


def each(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    return [function(*given) for given in arguments]


def large(
    text: list[int] | np.ndarray, parts: int = 2, order_type: type = np.int32, text_type: type = np.uint16
) -> list[int]:
    order = np.empty(len(text), order_type)
    cuts = sorted({0, len(text), *(len(text) * k // parts for k in range(1, parts))})
    array = np.asarray(text, text_type)
    shares: list[float] = []
    lms_sort.sort_large(array, order, int(array.max()) + 1, list(pairwise(cuts)), each, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    return order.tolist()


@given(st.lists(st.integers(0, 3), min_size=2, max_size=64), st.integers(1, 4))
def test_random(text: list[int], parts: int) -> None:
    assert large(text, parts) == naive(text)


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=9),
    st.integers(2, 60),
    st.lists(st.integers(0, 2), max_size=3),
    st.integers(1, 3),
    st.sampled_from([2, 5, 24]),
)
def test_repetitive(part: list[int], times: int, tail: list[int], parts: int, least: int) -> None:
    """Ties of all kinds: the more of them, the fewer symbols they need to share."""
    text = part * times + tail
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lms_sort, "LEAST", least)
        assert large(text, parts) == naive(text)


@given(
    st.lists(st.lists(st.integers(1, 3), max_size=6), min_size=1, max_size=4), st.lists(st.integers(0, 3), min_size=2)
)
def test_repeated_documents(documents: list[list[int]], chosen: list[int]) -> None:
    """Each closed by 0, the empty ones too."""
    text = [symbol for number in chosen for symbol in [*documents[number % len(documents)], 0]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lms_sort, "LEAST", 3)
        assert large([*text, 0]) == naive([*text, 0])


def _fibonacci(length: int) -> list[int]:
    a, b = [0], [0, 1]
    while len(b) < length:
        a, b = b, b + a
    return b[:length]


ODD = {
    "one symbol": [3] * 700,
    "one symbol and a larger one": [2] * 700 + [3],
    "two by turns": [0, 1] * 400,
    "two by turns, larger first": [1, 0] * 400,
    "Fibonacci": _fibonacci(900),
    "long runs": ([1] * 90 + [2]) * 7 + ([1] * 90 + [0]) * 5,
    "runs of every length": [symbol for length in range(1, 40) for symbol in [1] * length + [2]],
    "steps": list(range(200)) * 3 + list(range(200, 0, -1)) * 2,
    "a document many times": ([5, 2, 7, 2, 7, 3, 1, 4, 4, 2, 9] * 5 + [0]) * 30,
}


@pytest.mark.parametrize("least", [2, 24])
@pytest.mark.parametrize("name", ODD)
def test_odd(name: str, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lms_sort, "LEAST", least)
    assert large(ODD[name], 3) == naive(ODD[name])


@pytest.mark.parametrize("largest", [1, 3, 60_000, 65_536, 100_000])
@pytest.mark.parametrize("order_type", [np.int32, np.int64])
def test_many_in_one_bucket(largest: int, order_type: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of 64, 32, 4 and 3 symbols, sorted by bytes where they are many; threads take several buckets or one."""
    rng = np.random.default_rng(largest)
    symbols = np.array([0, 1, largest // 2, largest])
    text = np.concatenate([symbols[rng.integers(0, 4, 4_000)], np.tile(symbols[rng.integers(0, 4, 50)], 20)])
    text[-1] = largest
    text_type = np.uint16 if largest < 2**16 else np.uint32
    expected = np.empty(text.size, order_type)
    sort_suffixes(text.astype(text_type), expected, largest + 1)
    assert large(text, 3, order_type, text_type) == expected.tolist()
    monkeypatch.setattr(lms_sort, "_CHUNK", 1)
    assert large(text, 1, order_type, text_type) == expected.tolist()
