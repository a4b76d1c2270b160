"""The two layouts of an index, made from one another: what is looked up, and what is found from less.

Naively: build again. Here each is made from the other's arrays in one pass or two, without the source text, and the way
there and back gives the same bytes. `full` stores all that a question reads. `compact` leaves out the text, the
positions, the lists of ranks and the rows (`_kernels/compact.py` says what takes their place).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from corpus_index._kernels import compact
from corpus_index.addresses import contradiction
from corpus_index.core.compact import SAMPLE_SHIFT
from corpus_index.errors import QueryError
from corpus_index.index import CorpusIndex
from corpus_index.manifest import LAYOUTS
from corpus_index.occurrences import occurrence_lists
from corpus_index.store import index_writer

_CHUNK = 1 << 22
_SLICE = 1 << 15  # ranks that are worth a thread
_SAME = ("doc_starts", "doc_directory", "next_tokens", "common", "minima", "endings", "row_bounds", "row_directory")
_COUNTS = ("num_tokens", "num_documents", "num_starts", "vocab_size", "num_symbols", "document_shift", "row_shift")
_FIELDS = (*_COUNTS, "light", "deepest", "document_names", "metadata")


def check_layout(layout: str) -> None:
    """Refuse what is no layout.

    Raises
    ------
    QueryError
    """
    if layout not in LAYOUTS:
        raise QueryError(f"layout {layout!r} is unknown: choose one of {', '.join(LAYOUTS)}")


def write_layout(
    index: CorpusIndex,
    path: str | os.PathLike[str],
    layout: str,
    *,
    overwrite: bool = False,
    instead_of: str | None = None,
    workers: int | None = None,
) -> None:
    """Write an index of one piece to another folder, in a layout of one's choice.

    Parameters
    ----------
    index : CorpusIndex
    path : path
    layout : {"full", "compact"}
    overwrite : bool
        Replace an index that stands at path.
    instead_of : str, optional
        The fingerprint of the one index that may be replaced.
    workers : int, optional
        Threads; default: the processors that this process may use.

    Raises
    ------
    IndexExistsError, IndexWriteError
        As of `build_index`.
    IndexFormatError
        The arrays of the index contradict one another.

    Notes
    -----
    O(N) time. To compact: some 3 N bytes of memory; to full: 10 N, and 2 to 3 N more with 32-bit tokens.
    """
    check_layout(layout)
    with index_writer(path, overwrite=overwrite, instead_of=instead_of) as writer, index.following_arrays():
        for name in index.attachment_names:
            writer.attach(name, index.attachment(name))
        names = _SAME + (("alphabet",) if index.num_symbols < index.vocab_size else ())
        for name in names:
            writer.add(name, index.array(name))
        fields = {name: value for name in _FIELDS if (value := index.manifest_field(name)) is not None}
        if layout == "compact":
            fields |= {"layout": layout, "sample_shift": SAMPLE_SHIFT}
            made = compact_content(index)
        else:
            made = _full_content(index, workers)
        for name, array in made.items():
            writer.add(name, array)
        writer.finish(fields)


def compact_content(index: CorpusIndex) -> dict[str, np.ndarray]:
    """What a compact index stores instead of text, order, lists and rows.

    Raises
    ------
    IndexFormatError
        The arrays contradict one another.
    """
    return _lists(index) | _samples(index)


def _lists(index: CorpusIndex) -> dict[str, np.ndarray]:
    """The lists of all tokens, in blocks of ranks."""
    next_tokens, n = index.array("next_tokens"), index.num_tokens
    entries = np.zeros(index.num_symbols, np.int64)
    for begin in range(0, n, _CHUNK):
        counts = np.bincount(next_tokens[begin : begin + _CHUNK], minlength=index.num_symbols)
        if counts.size > index.num_symbols:
            raise contradiction(index.path, f"a continuation after rank {begin:,} is outside of the vocabulary")
        entries += counts
    if not np.array_equal(entries, index.symbol_counts):
        raise contradiction(index.path, "the continuations aren't as often there as the table of tokens says")
    high_words, low_words = compact.list_words(n, entries)
    symbols = np.zeros((index.num_symbols + 1, 4), np.uint32)
    symbols[:, 0] = index.array("symbols")[:, 0]
    for column, sizes in enumerate((entries, high_words, low_words), 1):
        symbols[1:, column] = np.cumsum(sizes)
    high, low = np.zeros(int(high_words.sum()), np.uint64), np.zeros(int(low_words.sum()) + 1, np.uint64)
    compact.fill_lists(next_tokens, symbols.reshape(-1), np.zeros(index.num_symbols, np.int64), high, low)
    ones = _running_ones(high)
    zeros = np.zeros(((64 * high.size - n) >> compact.ZERO_SHIFT) + 2, np.uint32)
    compact.fill_zeros(high, zeros)
    return {"symbols": symbols, "list_high": high, "list_low": low, "list_ones": ones, "list_zeros": zeros}


def _running_ones(words: np.ndarray) -> np.ndarray:
    ones = np.zeros(-(-words.size // compact.GROUP) + 1, np.uint32)
    compact.running_ones(words, ones)
    return ones


def _samples(index: CorpusIndex) -> dict[str, np.ndarray]:
    """Positions whose ranks are known, and ranks whose positions are; what follows documents."""
    order, n = np.asarray(index.array("order")), index.num_tokens
    marks = np.zeros(-(-n // 64), np.uint64)
    ranks = np.zeros(((n - 1) >> SAMPLE_SHIFT) + 1, np.uint32)
    positions = np.zeros(ranks.size + int((n - 1) & ((1 << SAMPLE_SHIFT) - 1) > 0), np.uint32)
    if int(order.max()) >= n or compact.mark_samples(order, SAMPLE_SHIFT, marks, positions, ranks) != positions.size:
        raise contradiction(index.path, "order isn't a permutation of the positions")
    firsts = order[: index.num_starts].astype(np.int64)
    ranked = np.argsort(firsts, kind="stable")
    behind = order[(index.array("endings") & np.uint64(2**32 - 1)).astype(np.int64)].astype(np.int64) + 1
    after = ranked[np.minimum(np.searchsorted(firsts[ranked], behind), ranked.size - 1)]
    if not np.array_equal(firsts[after], np.where(behind < n, behind, firsts[after])):
        raise contradiction(index.path, "endings aren't the last positions of the documents")
    return {
        "after_endings": np.where(behind < n, after, 0).astype(np.uint32),
        "sample_marks": marks,
        "sample_ones": _running_ones(marks),
        "sample_positions": positions,
        "sample_ranks": ranks,
    }


def _full_content(index: CorpusIndex, workers: int | None) -> dict[str, np.ndarray]:
    """What a full index stores instead of samples and lists of blocks."""
    text = index.whole_text()
    if int(text.order.max()) >= index.num_tokens:
        raise contradiction(index.path, "two positions have one rank")
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    n = index.num_tokens
    count = max(1, min(workers, n // _SLICE))
    parts = list(pairwise(n * k // count for k in range(count + 1)))
    last = np.sort((index.array("endings") & np.uint64(2**32 - 1)).astype(np.int64))
    with ThreadPoolExecutor(workers) as pool:

        def each(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
            return [future.result() for future in [pool.submit(function, *given) for given in arguments]]

        lists = occurrence_lists(index.array("next_tokens"), last, index.num_symbols, index.num_starts, parts, each)
    del lists["endings"]
    rows = {name: index.array(name) for name in ("row_offsets", "row_tokens", "row_counts")}
    return {"tokens": text.tokens, "order": text.order} | lists | rows
