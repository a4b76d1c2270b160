"""Small random corpora, and the index and the oracle over the same one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpus_index.build as build_module
import numba
import numpy as np
import pytest
from corpus_index import CorpusIndex, build_index
from corpus_index.reference.engine import ReferenceIndex
from hypothesis import strategies as st

WIDE = 1 << 16
"""Added to a vocabulary: ids have 32 bits, which other kernels read, and dense answers are long.

Under bounds checks it is small: the same kernels for 32 bits would be compiled for the same indices.
"""
if numba.config.BOUNDSCHECK:
    WIDE = 2


@st.composite
def corpora(draw: st.DrawFn) -> dict[str, Any]:
    """Documents over at most four tokens, some empty, some that repeat, with or without an end-of-document token."""
    vocab_size = draw(st.integers(1, 4))
    ended = draw(st.booleans()) and vocab_size > 1
    token = st.integers(1 if ended else 0, vocab_size - 1)
    documents = draw(
        st.lists(
            st.builds(lambda part, times: part * times, st.lists(token, max_size=12), st.integers(1, 4)),
            min_size=1,
            max_size=5,
        ).filter(lambda documents: ended or any(documents))
    )
    if ended:
        documents = [[*document, 0] for document in documents]
    return {
        "documents": documents,
        "vocab_size": vocab_size + draw(st.sampled_from([0, 1, 0, 1, WIDE])),
        "end_of_document": 0 if ended else None,
        "light": draw(st.integers(1, 8)),
        "deepest": draw(st.sampled_from([None, None, 0, 1, 2, 3])),
    }


@pytest.fixture
def make_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CorpusIndex]:
    """Build an index over documents, with rows stored (up to `deepest`) and parts cut even where they are tiny.

    Each in a folder of its own, which is quicker than to replace one; parts go to threads in one build of eight.
    """
    in_threads, made = build_module._Build.each, 0

    def in_turn(_: Any, function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
        return [function(*given) for given in arguments]

    def make(
        documents: list[list[int]],
        vocab_size: int,
        end_of_document: int | None = None,
        light: int = 2,
        deepest: int | None = None,
        workers: int = 2,
        **options: Any,
    ) -> CorpusIndex:
        monkeypatch.setattr(build_module, "_LIGHT", light)
        rows_kept = (light, build_module.DEEPEST if deepest is None else deepest)
        monkeypatch.setattr(build_module, "_affordable", lambda *_: rows_kept)
        monkeypatch.setattr(build_module, "_SLICE", 5)
        nonlocal made
        monkeypatch.setattr(build_module._Build, "each", in_turn if made % 8 else in_threads)
        made += 1
        return build_index(
            np.array([token for document in documents for token in document], np.int64),
            tmp_path / ("index" if made == 1 else f"index-{made}"),
            doc_starts=np.cumsum([0, *map(len, documents)]),
            vocab_size=vocab_size,
            end_of_document=end_of_document,
            workers=workers,
            **options,
        )

    return make


@pytest.fixture
def make_both(make_index: Callable[..., CorpusIndex]) -> Callable[..., tuple[CorpusIndex, ReferenceIndex]]:
    """The index and the oracle over one drawn corpus."""

    def make(corpus: dict[str, Any]) -> tuple[CorpusIndex, ReferenceIndex]:
        reference = ReferenceIndex(corpus["documents"], corpus["vocab_size"], corpus["end_of_document"])
        return make_index(**corpus), reference

    return make


def draw_rows(data: st.DataObject, corpus: dict[str, Any], count: int = 3) -> np.ndarray:
    """Rows of equal length: some cut from the corpus, so that long matches are there, some of random tokens."""
    length = data.draw(st.integers(1, 14))
    flat = [token for document in corpus["documents"] for token in document]
    random = st.lists(st.integers(0, min(corpus["vocab_size"], 5) - 1), min_size=length, max_size=length)
    rows = []
    for _ in range(count):
        if len(flat) > length and data.draw(st.booleans()):
            start = data.draw(st.integers(0, len(flat) - length))
            rows.append(flat[start : start + length])
        else:
            rows.append(data.draw(random))
    return np.array(rows, np.int64)
