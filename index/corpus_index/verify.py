"""Check an index against its own definition: checksums, and the invariants of the format, on a sample or everywhere.

Checks build on one another: addresses are checked before they are followed, so whatever the arrays say, the answer is
a sentence and no crash. With full, the arrays are checked in whole, in O(N) however repetitive the corpus.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from corpus_index._kernels import checks, companions, rows
from corpus_index._kernels.arrays import read_only
from corpus_index.addresses import contradiction
from corpus_index.errors import CorpusIndexError, IndexFormatError
from corpus_index.index import CorpusIndex
from corpus_index.layouts import compact_content
from corpus_index.manifest import BLOCK, as_folder
from corpus_index.shard_manifest import SHARDS_FORMAT, entries_of, format_of, load_shards_manifest
from corpus_index.sharded.masked_shard import MaskedShard, open_shard
from corpus_index.sharded.masks import no_mask
from corpus_index.store import check_files

_SAMPLE = 100_000
_ROW_SAMPLE = 1_000
_CHUNK = 1 << 20
_FAR_ENOUGH = 4_096  # symbols that a sampled rank's context is compared by


def _verify_shards(path: Path, full: bool, seed: int) -> list[str]:
    """Check each shard, and that they are those of the manifest."""
    try:
        entries = entries_of(load_shards_manifest(path))
    except FileNotFoundError:
        raise IndexFormatError(f"{path} was replaced while it was checked: check it again") from None
    passed = [f"manifest of {len(entries)} shards"]
    for number, entry in enumerate(entries, 1):
        shard = path / entry.name
        found = verify_index(shard, full=full, seed=seed)
        with open_shard(path, entry, "first") as index:
            if (index.num_tokens, index.num_documents) != (entry.num_tokens, entry.num_documents):
                raise IndexFormatError(f"{shard} is not the shard that {path} names: build the index again")
            if isinstance(index, MaskedShard):
                mask = no_mask().and_documents(index.whole, index.mask.documents)
                if not np.array_equal(mask.ranks, index.mask.ranks):
                    raise IndexFormatError(f"the mask of {shard} takes out other ranks than those of its documents")
                found.append(f"ranks of {mask.documents.size:,} removed documents")
        passed += [f"shard {number}: {line}" for line in found]
    return passed


def verify_index(path: str | os.PathLike[str], *, full: bool = False, seed: int = 0) -> list[str]:
    """Check the files of an index against their checksums and its arrays against each other.

    Parameters
    ----------
    path : path
        Of either kind: of shards each is checked.
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
    Reads every file once, and takes O(N) time; with full some 20 bytes of memory a token besides.
    """
    path = as_folder(path)
    if format_of(path) == SHARDS_FORMAT:
        return _verify_shards(path, full, seed)
    fingerprint = check_files(path)
    passed = ["checksums of all files"]
    with CorpusIndex.open(path, check="never") as index:
        if index.fingerprint != fingerprint:
            raise IndexFormatError(f"{path} was replaced while it was checked: check it again")
        every: list[Callable[[CorpusIndex, np.random.Generator, bool], str]] = [
            _documents,
            _symbols,
            _order,
            _lists,
            _steps,
            _context_order,
            _minima,
            _rows,
            *([] if index.document_names is None else [_names]),
        ]
        rng = np.random.default_rng(seed)
        try:
            index.check_addresses()
            passed += [check(index, rng, full) for check in every]
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, CorpusIndexError):
                raise
            raise _fail(index, f"a check found what it can't follow ({error})") from error
    return passed


def _fail(index: CorpusIndex, what: str) -> IndexFormatError:
    return contradiction(index.path, what)


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
    starts, directory = index.doc_starts, index.array("doc_directory")
    places = np.arange(directory.size, dtype=np.int64) << index.document_shift
    if not np.array_equal(directory, np.searchsorted(starts[:-1], places, side="right") - 1):
        raise _fail(index, "doc_directory doesn't lead to the documents")
    return f"{index.num_documents:,} document starts"


def _filled(index: CorpusIndex) -> np.ndarray:
    """Where documents that hold a token start."""
    starts = index.doc_starts
    return starts[:-1][starts[1:] > starts[:-1]]


def _symbols(index: CorpusIndex, rng: np.random.Generator, full: bool) -> str:
    _alphabet(index)
    counts = np.zeros(index.num_symbols, np.int64)
    tokens = index.array("tokens")
    end = index.end_of_document
    end_symbol = -1 if end is None else int(index.symbols_of(np.array([end]))[0])
    for start in range(0, tokens.size, _CHUNK):
        chunk = tokens[start : start + _CHUNK]
        if int(chunk.max()) >= index.num_symbols:
            raise _fail(index, f"a token from position {start:,} on is outside of the vocabulary")
        counts += np.bincount(chunk, minlength=index.num_symbols)
        behind = np.flatnonzero(chunk == end_symbol) + start + 1 if 0 <= end_symbol < index.num_symbols else chunk[:0]
        stray = index.doc_starts[np.searchsorted(index.doc_starts, behind)] != behind
        if stray.any():
            place = int(behind[np.argmax(stray)]) - 1
            raise _fail(index, f"the end-of-document token {end} stands inside a document, at position {place:,}")
    if not np.array_equal(counts, index.symbol_counts):
        token = int(np.argmax(counts != index.symbol_counts))
        raise _fail(
            index,
            f"token {token} occurs {counts[token]:,} times but {index.symbol_counts[token]:,} are listed",
        )
    return f"token counts of {tokens.size:,} tokens"


def _alphabet(index: CorpusIndex) -> None:
    small = index.vocab_size <= 65_536 + 2 * index.num_tokens
    if index.num_symbols == index.vocab_size and small:
        return
    if small:
        raise _fail(index, f"the alphabet doesn't fit a vocabulary of {index.vocab_size:,}")


def _order(index: CorpusIndex, rng: np.random.Generator, full: bool) -> str:
    order, next_tokens = np.asarray(index.array("order")), index.array("next_tokens")
    seen = np.zeros(index.num_tokens if full else 0, np.bool_)
    for start in range(0, order.size, _CHUNK):
        chunk = order[start : start + _CHUNK]
        if int(chunk.max()) >= index.num_tokens:
            raise _fail(index, f"order holds a position outside of the corpus after rank {start:,}")
        if int(next_tokens[start : start + _CHUNK].max()) >= index.num_symbols:
            raise _fail(index, f"a continuation after rank {start:,} is outside of the vocabulary")
        if full:
            seen[chunk] = True
    if not seen.all():
        raise _fail(index, f"position {int(np.argmin(seen)):,} is missing from order")
    if not np.array_equal(np.sort(order[: index.num_starts]), _filled(index)):
        raise _fail(index, "order doesn't begin with the first positions of the documents")
    endings = index.array("endings")
    ranks = (endings & np.uint64(2**32 - 1)).astype(np.int64)
    behind = order[ranks].astype(np.int64) + 1
    last = index.doc_starts[np.searchsorted(index.doc_starts, behind)] == behind
    if (
        (endings[1:] <= endings[:-1]).any()
        or not last.all()
        or not np.array_equal(endings >> np.uint64(32), next_tokens[ranks])
    ):
        raise _fail(index, "endings aren't the last positions of the documents")
    return "order is a permutation" if full else "the range of order"


def _lists(index: CorpusIndex, rng: np.random.Generator, full: bool) -> str:
    if index.layout == "compact":
        for name, expected in compact_content(index).items():
            if not np.array_equal(index.array(name), expected):
                raise _fail(index, f"{name} doesn't fit the continuations")
        return f"lists and samples of {int((index.symbol_counts > 0).sum()):,} tokens"
    table = index.array("symbols").astype(np.int64)
    near, far, directory = (index.array(name) for name in ("near", "far", "occurrence_directory"))
    counts, shifts = np.diff(table[:, 0]), table[:-1, 3]
    is_near = shifts <= 16
    sizes = np.where(counts > 0, (index.num_tokens >> shifts) + 2, 0)
    running = {name: np.concatenate([[0], np.cumsum(part)]) for name, part in _list_sizes(counts, is_near, sizes)}
    fits = (
        np.array_equal(table[:-1, 1], np.where(is_near, running["near"][:-1], running["far"][:-1]))
        and np.array_equal(table[:, 2], running["directory"])
        and near.size == running["near"][-1]
        and far.size == running["far"][-1]
        and directory.size == running["directory"][-1] + 2
        and not directory[-2:].any()
        and not table[-1, [1, 3]].any()
    )
    if not fits:
        raise _fail(index, "the places of the occurrence lists don't fit their lengths")
    bad = int(
        checks.first_bad_list(index.kernel_arrays().steps.symbols, counts, index.num_tokens, directory, near, far)
    )
    if bad >= 0:
        raise _fail(index, f"the occurrence list of token {bad} doesn't ascend, or its directory leads astray")
    return f"occurrence lists of {int((counts > 0).sum()):,} tokens"


def _list_sizes(counts: np.ndarray, is_near: np.ndarray, sizes: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return [("near", counts * is_near), ("far", counts * ~is_near), ("directory", sizes)]


def _steps(index: CorpusIndex, rng: np.random.Generator, full: bool) -> str:
    ranks = _sampled(index.num_tokens, rng, full)
    arrays = index.kernel_arrays()
    bad = checks.first_misstep(index.whole_text(), arrays.steps, index.array("next_tokens"), ranks)
    if bad >= 0:
        raise _fail(index, f"the continuation of rank {bad:,} is wrong, or the step by it leads astray")
    return f"continuations and steps at {ranks.size:,} ranks"


def _context_order(index: CorpusIndex, rng: np.random.Generator, full: bool) -> str:
    """On a sample, by comparing texts; in whole, the order follows from the steps, and shared lengths remain."""
    common = index.array("common")
    if full:
        expected = np.minimum(_shared(index), 255)
        bad = int(np.argmax(common != expected)) if not np.array_equal(common, expected) else -1
        count = index.num_tokens
    else:
        ranks = _sampled(index.num_tokens, rng, full)
        bad = int(checks.first_disorder(index.whole_text(), common, ranks, _FAR_ENOUGH))
        count = ranks.size
    if bad >= 0:
        raise _fail(index, f"rank {bad:,} is out of order, or its shared length is wrong")
    return f"contexts sorted, shared lengths at {count:,} ranks"


def _shared(index: CorpusIndex) -> np.ndarray:
    """What each rank's context shares with that of the rank before, up to 65,535: (N,) uint16; of a right order."""
    text = index.whole_text()
    order = text.order
    before = np.empty(order.size, np.uint32)
    before[order[1:]] = order[:-1]
    before[order[0]] = order[0]
    shared = np.empty(order.size, np.uint16)
    checks.fill_shared(text, before, shared)
    return shared[order]


def _minima(index: CorpusIndex, rng: np.random.Generator, full: bool) -> str:
    level, place, minima = index.array("common"), 0, index.array("minima")
    while place == 0 or level.size > BLOCK:
        expected = np.empty(-(-level.size // BLOCK), np.uint8)
        companions.block_minima(read_only(level), expected, BLOCK)
        if not np.array_equal(minima[place : place + expected.size], expected):
            raise _fail(index, "the block minima don't fit the shared lengths")
        place += expected.size
        level = expected
    return "block minima"


def _rows(index: CorpusIndex, rng: np.random.Generator, full: bool) -> str:
    bounds, offsets = index.array("row_bounds").astype(np.int64), index.array("row_offsets")
    row_tokens, row_counts = index.array("row_tokens"), index.array("row_counts")
    next_tokens, num_rows = index.array("next_tokens"), bounds.shape[0]
    firsts = np.arange(index.array("row_directory").size, dtype=np.int64) << index.row_shift
    if not np.array_equal(index.array("row_directory"), np.searchsorted(bounds[:, 0], firsts)):
        raise _fail(index, "row_directory doesn't lead to the stored rows")
    chosen = _sampled(num_rows, rng, num_rows <= _ROW_SAMPLE, _ROW_SAMPLE)
    for row in chosen.tolist():
        first, end = bounds[row].tolist()
        part = slice(int(offsets[row]), int(offsets[row + 1]))
        if end - first > _CHUNK:  # the widest take as long as all others: compare their sums
            same = int(row_counts[part].sum(dtype=np.int64)) == end - first
        else:
            ids, counts = np.unique(next_tokens[first:end], return_counts=True)
            same = np.array_equal(ids, row_tokens[part]) and np.array_equal(counts, row_counts[part])
        if not same:
            raise _fail(index, f"the stored row of ranks {first:,} to {end:,} doesn't count what stands there")
    if full:
        _all_rows(index, bounds)
        return f"{num_rows:,} stored rows, and none is missing"
    return f"{chosen.size:,} of {num_rows:,} stored rows"


def _all_rows(index: CorpusIndex, bounds: np.ndarray) -> None:
    """Compare all rows with those that the format asks for."""
    deep, next_tokens = _shared(index), index.array("next_tokens")
    found, sizes, token_ids, counts = rows.heavy_rows(
        next_tokens, deep, index.num_symbols, min(index.light, index.num_tokens), 0, index.num_tokens, True
    )
    outer = np.maximum(deep[found[:, 0]], np.append(deep, np.uint16(0))[found[:, 1]]).astype(np.int64)
    kept = np.flatnonzero((found[:, 1] - found[:, 0] > index.light) & (outer < index.deepest))
    kept = kept[np.lexsort((found[kept, 1], found[kept, 0]))]
    if not np.array_equal(found[kept], bounds):
        raise _fail(index, "the stored rows aren't those of the contexts that `light` and `deepest` name")
    offsets = np.zeros(kept.size + 1, np.int64)
    total = int(np.diff(sizes)[kept].sum())
    all_tokens, all_counts = np.empty(total, token_ids.dtype), np.empty(total, np.uint32)
    rows.gather_rows(kept, sizes, token_ids, counts, offsets, all_tokens, all_counts)
    for name, expected in (("row_offsets", offsets), ("row_tokens", all_tokens), ("row_counts", all_counts)):
        if not np.array_equal(index.array(name), expected):
            raise _fail(index, f"a stored row doesn't count what stands there, by {name}")
