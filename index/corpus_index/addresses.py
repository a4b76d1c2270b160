"""Whether what the arrays of an index say of places leads to places that there are, so that following them is safe.

Checked here is what costs little: arrays of documents, tokens and rows, a small part of an index. The large arrays, an
entry for each token of the corpus, are never followed out of bounds by the kernels, whatever they hold. What this lets
pass may be wrong (`verify` finds that), but can't crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from corpus_index._kernels.compact import list_words
from corpus_index.errors import IndexFormatError
from corpus_index.manifest import levels_of

_LARGEST_SHIFT = 31


def check_addresses(path: Path, manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Check the arrays of places, but for the rows' tokens; see `check_row_tokens`.

    Raises
    ------
    IndexFormatError
        Naming the first that leads astray.

    Notes
    -----
    O(documents + distinct tokens + stored rows), and a look at the directories of positions and ranks: some 0.5 bytes
    are read per token of the corpus.
    """
    for check in (_documents, _symbols, _minima, _rows):
        check(path, manifest, arrays)


def contradiction(path: Path, what: str) -> IndexFormatError:
    """The error of an index whose arrays don't fit together."""
    return IndexFormatError(f"{path} contradicts itself: {what}; build the index again")


def _documents(path: Path, manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    starts, directory = arrays["doc_starts"], arrays["doc_directory"]
    if starts[0] != 0 or starts[-1] != manifest["num_tokens"]:
        raise contradiction(path, "doc_starts don't run from 0 to the number of tokens")
    rises = starts[1:] > starts[:-1]
    if (starts[1:] < starts[:-1]).any() or int(np.count_nonzero(rises)) != manifest["num_starts"]:
        raise contradiction(path, "doc_starts decrease, or hold another number of filled documents")
    places = np.arange(directory.size, dtype=np.int64) << manifest["document_shift"]
    if int(directory.max()) >= manifest["num_documents"] or (starts[directory] > places).any():
        raise contradiction(path, "doc_directory doesn't lead to the documents")


def _symbols(path: Path, manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    num_tokens, num_symbols = manifest["num_tokens"], manifest["num_symbols"]
    if "alphabet" in arrays:
        alphabet = arrays["alphabet"]
        if (alphabet[1:] <= alphabet[:-1]).any() or int(alphabet[-1]) >= manifest["vocab_size"]:
            raise contradiction(path, f"the alphabet doesn't fit a vocabulary of {manifest['vocab_size']:,}")
    endings = arrays["endings"]
    ends, ranks = endings >> np.uint64(32), endings & np.uint64(2**32 - 1)
    if int(ends.max()) >= num_symbols or int(ranks.max()) >= num_tokens:
        raise contradiction(path, "endings hold a token or rank that there isn't")
    table = arrays["symbols"].astype(np.int64)
    firsts = table[:, 0]
    counts = np.diff(firsts)
    if (counts < 0).any() or firsts[0] != manifest["num_starts"] or firsts[-1] != num_tokens:
        raise contradiction(path, "the first ranks of tokens don't ascend from the documents to the number of tokens")
    if manifest.get("layout") == "compact":
        _compact_lists(path, num_tokens, table, np.bincount(ends.astype(np.int64), minlength=num_symbols), arrays)
        return
    if int(table[:, 3].max()) > _LARGEST_SHIFT:
        raise contradiction(path, "a shift of an occurrence list is above 31")
    lists, directories, shifts = table[:-1, 1:].T
    held = np.where(shifts <= 16, arrays["near"].size, arrays["far"].size)
    room = arrays["occurrence_directory"].size - 2 - (num_tokens >> shifts)
    if ((counts > 0) & ((lists + counts > held) | (directories > room))).any():
        raise contradiction(path, "the places of the occurrence lists don't fit their lengths")
    _directories(path, arrays["occurrence_directory"], directories, counts)


def _compact_lists(
    path: Path, num_tokens: int, table: np.ndarray, unfollowed: np.ndarray, arrays: Mapping[str, np.ndarray]
) -> None:
    """Every list of a compact index has as many entries as its token, in words that there are."""
    entries = np.diff(table[:, 1])
    same = (
        table[0, 1] == 0 and table[-1, 1] == num_tokens and np.array_equal(entries, np.diff(table[:, 0]) + unfollowed)
    )
    if not same:
        raise contradiction(path, "the lists of tokens don't hold as many entries as the corpus has of them")
    for column, words, held in zip(
        (2, 3), list_words(num_tokens, entries), (arrays["list_high"].size, arrays["list_low"].size - 1), strict=True
    ):
        if not np.array_equal(table[:, column], np.append(0, np.cumsum(words))) or table[-1, column] > held:
            raise contradiction(path, "the places of the lists of tokens don't fit their lengths")


def _directories(path: Path, directory: np.ndarray, begins: np.ndarray, counts: np.ndarray) -> None:
    """No directory of an occurrence list leads beyond the list."""
    held = np.flatnonzero(counts > 0)
    begins = begins[held]
    if (begins[1:] <= begins[:-1]).any():
        raise contradiction(path, "the places of the occurrence lists don't fit their lengths")
    if begins.size:
        bad = np.maximum.reduceat(directory, begins) > counts[held]
        if bad.any():
            token = int(held[np.argmax(bad)])
            raise contradiction(path, f"the directory of the occurrence list of token {token} leads astray")


def _minima(path: Path, manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    if arrays["common"][0] != 0 or arrays["minima"][levels_of(manifest["num_tokens"])[:-1]].any():
        raise contradiction(path, "the block minima don't fit the shared lengths")


def _rows(path: Path, manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    bounds = arrays["row_bounds"]
    if manifest.get("layout") == "compact":
        offsets = np.zeros(bounds.shape[0] + 1, np.int64)  # its rows are counted when they are asked for
        num_entries = 0
    else:
        offsets, num_entries = arrays["row_offsets"], arrays["row_tokens"].size
    if offsets[0] != 0 or offsets[-1] != num_entries or (offsets[1:] < offsets[:-1]).any():
        raise contradiction(path, "the offsets of the stored rows don't ascend from 0 to their length")
    lo, hi = bounds[:, 0], bounds[:, 1]
    # two rows of the same ranks: the empty context, and the start where every document is one token
    ascend = (lo[1:] > lo[:-1]) | ((lo[1:] == lo[:-1]) & (hi[1:] >= hi[:-1]))
    if (lo >= hi).any() or (hi > manifest["num_tokens"]).any() or not ascend.all():
        raise contradiction(path, "the bounds of the stored rows aren't ranges of ranks, ascending")
    if (np.diff(offsets) > np.minimum(hi - lo, manifest["num_symbols"])).any():
        raise contradiction(path, "a stored row has more entries than there are ranks or tokens")
    if int(arrays["row_directory"].max()) > bounds.shape[0]:
        raise contradiction(path, "row_directory doesn't lead to the stored rows")


def check_row_tokens(path: Path, num_symbols: int, row_tokens: np.ndarray) -> None:
    """Check that the tokens of stored rows are there; O(entries of rows), so it's done when they are first asked for.

    Raises
    ------
    IndexFormatError
    """
    if row_tokens.size and int(row_tokens.max()) >= num_symbols:
        raise contradiction(path, "a stored row holds a token outside of the vocabulary")
