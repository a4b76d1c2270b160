"""Check an index against its own definition: checksums, and the invariants of the format, on a sample or everywhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from corpus_index._kernels import companions, walk
from corpus_index.core.mapped import BLOCK
from corpus_index.errors import IndexFormatError
from corpus_index.index import CorpusIndex
from corpus_index.store import check_files

_SAMPLE = 100_000
_ROW_SAMPLE = 1_000
_CHUNK = 1 << 20


def verify_index(path: str | os.PathLike[str], *, full: bool = False, seed: int = 0) -> list[str]:
    """Check the files of an index against their checksums and its arrays against each other.

    Parameters
    ----------
    path : path
    full : bool
        Check every rank and row instead of a random sample.
    seed : int
        Of the sample.

    Returns
    -------
    list of str
        What was checked, one line each.

    Raises
    ------
    IndexFormatError
        On the first check that fails, with its place.

    Notes
    -----
    Reads every file once; beyond that O(sample), or with full O(N · shared length).
    """
    path = Path(os.path.abspath(path))
    fingerprint = check_files(path)
    passed = ["checksums of all files"]
    with CorpusIndex.open(path) as index:
        if index.fingerprint != fingerprint:
            raise IndexFormatError(f"{path} was replaced while it was checked: check it again")
        checks: list[Callable[[CorpusIndex, np.random.Generator, bool], str]] = [
            _documents,
            _symbols,
            _order,
            _context_order,
            _steps,
            _minima,
            _rows,
            *([] if index.document_names is None else [_names]),
        ]
        rng = np.random.default_rng(seed)
        passed += [check(index, rng, full) for check in checks]
    return passed


def _fail(index: CorpusIndex, what: str) -> IndexFormatError:
    return IndexFormatError(f"{index.path} contradicts itself: {what}; build the index again")


def _names(index: CorpusIndex, rng: np.random.Generator, full: bool) -> str:
    names = index.document_names
    assert names is not None
    numbers = _sampled(len(names), rng, full, _ROW_SAMPLE)
    for number in numbers.tolist():
        names[number]
    return f"names of {numbers.size:,} documents"


def _sampled(count: int, rng: np.random.Generator, full: bool, sample: int = _SAMPLE) -> np.ndarray:
    return np.arange(count) if full or count <= sample else np.sort(rng.integers(0, count, sample))


def _documents(index: CorpusIndex, rng: np.random.Generator, full: bool) -> str:
    starts = index.doc_starts
    if starts.size != index.num_documents + 1 or starts[0] != 0 or starts[-1] != index.num_tokens:
        raise _fail(index, "doc_starts don't run from 0 to the number of tokens")
    steps = np.diff(starts)
    if (steps < 0).any() or int((steps > 0).sum()) != index.num_starts:
        raise _fail(index, "doc_starts decrease, or hold another number of filled documents")
    return f"{index.num_documents:,} document starts"


def _symbols(index: CorpusIndex, rng: np.random.Generator, full: bool) -> str:
    counts = np.zeros(index.num_symbols, np.int64)
    tokens = index.array("tokens")
    for start in range(0, tokens.size, _CHUNK):
        chunk = tokens[start : start + _CHUNK]
        if int(chunk.max()) >= index.num_symbols:
            raise _fail(index, f"a token from position {start:,} on is outside of the vocabulary")
        counts += np.bincount(chunk, minlength=index.num_symbols)
    if not np.array_equal(counts, index.symbol_counts):
        token = int(np.argmax(counts != index.symbol_counts))
        raise _fail(
            index,
            f"token {token} occurs {counts[token]:,} times but {index.symbol_counts[token]:,} are listed",
        )
    return f"token counts of {tokens.size:,} tokens"


def _order(index: CorpusIndex, rng: np.random.Generator, full: bool) -> str:
    order = index.array("order")
    if not full:
        largest = int(order.max())
        if largest != index.num_tokens - 1:
            raise _fail(index, f"the largest position in order is {largest:,}")
        return "the range of order"
    seen = np.zeros(index.num_tokens, np.bool_)
    for start in range(0, order.size, _CHUNK):
        chunk = order[start : start + _CHUNK]
        if int(chunk.max()) >= index.num_tokens:
            raise _fail(index, f"order holds a position outside of the corpus after rank {start:,}")
        seen[chunk] = True
    if not seen.all():
        raise _fail(index, f"position {int(np.argmin(seen)):,} is missing from order")
    return "order is a permutation"


def _context_order(index: CorpusIndex, rng: np.random.Generator, full: bool) -> str:
    ranks = _sampled(index.num_tokens, rng, full)
    arrays = index.kernel_arrays()
    bad = walk.first_disorder(arrays.text, arrays.nodes, index.array("next_tokens"), ranks)
    if bad >= 0:
        raise _fail(index, f"rank {bad:,} is out of order, or its shared length or continuation is wrong")
    return f"contexts sorted, shared lengths and continuations at {ranks.size:,} ranks"


def _steps(index: CorpusIndex, rng: np.random.Generator, full: bool) -> str:
    ranks = _sampled(index.num_tokens, rng, full)
    arrays = index.kernel_arrays()
    bad = walk.first_misstep(arrays.text, arrays.steps, index.array("next_tokens"), ranks)
    if bad >= 0:
        raise _fail(index, f"the step from rank {bad:,} leads astray")
    return f"occurrence lists at {ranks.size:,} ranks"


def _minima(index: CorpusIndex, rng: np.random.Generator, full: bool) -> str:
    level, place, minima = index.array("common"), 0, index.array("minima")
    while place == 0 or level.size > BLOCK:
        expected = np.empty(-(-level.size // BLOCK), np.uint8)
        companions.block_minima(level, expected, BLOCK)
        if not np.array_equal(minima[place : place + expected.size], expected):
            raise _fail(index, "the block minima don't fit the shared lengths")
        place += expected.size
        level = expected
    return "block minima"


def _rows(index: CorpusIndex, rng: np.random.Generator, full: bool) -> str:
    bounds, offsets = index.array("row_bounds"), index.array("row_offsets")
    chosen = _sampled(bounds.shape[0], rng, full, _ROW_SAMPLE)
    next_tokens, row_tokens, row_counts = (
        index.array(f"{name}") for name in ("next_tokens", "row_tokens", "row_counts")
    )
    for row in chosen.tolist():
        lo, hi = bounds[row].tolist()
        part = slice(int(offsets[row]), int(offsets[row + 1]))
        if not full and hi - lo > _CHUNK:  # the widest take as long as all others: compare their sums
            same = int(row_counts[part].sum(dtype=np.int64)) == hi - lo
        else:
            ids, counts = np.unique(next_tokens[lo:hi], return_counts=True)
            same = np.array_equal(ids, row_tokens[part]) and np.array_equal(counts, row_counts[part])
        if not same:
            raise _fail(index, f"the stored row of ranks {lo:,} to {hi:,} doesn't count what stands there")
    return f"{chosen.size:,} of {bounds.shape[0]:,} stored rows"
