"""A compact index opened: its arrays as kernels take them, and what it doesn't store, read as if it did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from corpus_index._kernels import compact
from corpus_index._kernels.arrays import CompactSteps, CompactText, IndexArrays, NodeArrays
from corpus_index.errors import IndexFormatError
from corpus_index.manifest import levels_of

SAMPLE_SHIFT = 6  # every 64th position is stored with its rank
_ROW_ENTRIES = 1 << 22


def compact_arrays(manifest: dict[str, Any], array: Callable[[str], np.ndarray]) -> IndexArrays:
    """The arrays of a compact index as kernels take them."""
    nodes = NodeArrays(array("common"), array("minima"), levels_of(manifest["num_tokens"]))
    steps = CompactSteps(
        array("symbols").reshape(-1),
        array("list_high"),
        array("list_low"),
        array("list_ones"),
        array("list_zeros"),
        array("next_tokens"),
        array("endings"),
        array("after_endings"),
    )
    nothing = np.zeros(0, np.uint32)
    nothing.flags.writeable = False
    text = CompactText(
        nothing,
        steps,
        nodes,
        array("sample_marks"),
        array("sample_ones"),
        array("sample_positions"),
        array("sample_ranks"),
        manifest["sample_shift"],
        manifest["num_tokens"],
    )
    return IndexArrays(text, nodes, steps, manifest["num_starts"])


def all_ranks(text: CompactText) -> np.ndarray:
    """The rank of every corpus position: shape (N,), uint32; O(N)."""
    ranks = np.empty(text.num_tokens, np.uint32)
    compact.ranks_of_stretches(text, np.zeros(1, np.int64), np.array([0, text.num_tokens]), ranks)
    return ranks


def stretch_ranks(text: CompactText, begins: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The ranks of stretches of the text, int64: begins[i] : begins[i] + offsets[i + 1] − offsets[i]."""
    ranks = np.empty(int(offsets[-1]), np.int64)
    compact.ranks_of_stretches(text, begins, offsets, ranks)
    return ranks


class FoundArray:
    """A one-dimensional array that isn't stored: `len`, `[i]`, slices and arrays of places find what they ask for.

    What is found is a copy in memory. `numpy.asarray` finds all of it.

    Parameters
    ----------
    text : CompactText
    dtype : dtype
    source : tuple
        What opens the index again, its path, the name of this array in it, and the index's fingerprint: as which it is
        pickled.
    """

    ndim = 1

    def __init__(self, text: CompactText, dtype: DTypeLike, source: tuple[Any, ...]) -> None:
        self._text = text
        self._source = source
        self.dtype = np.dtype(dtype)
        self.size = int(text.num_tokens)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, self._source

    def __len__(self) -> int:
        return self.size

    @property
    def shape(self) -> tuple[int]:
        """(entries,)."""
        return (self.size,)

    @property
    def nbytes(self) -> int:
        """Bytes of all entries."""
        return self.size * self.dtype.itemsize

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            places = np.arange(*key.indices(self.size))
            return self._all() if places.size == self.size and key.step in (None, 1) else self._at(places)
        if isinstance(key, (int, np.integer)):
            place = int(key) + (self.size if key < 0 else 0)
            if not 0 <= place < self.size:
                raise IndexError(f"place {int(key):,} is outside of 0 .. {self.size - 1:,}")
            return self._at(np.array([place]))[0]
        places = np.asarray(key)
        if places.dtype.kind == "b":
            places = np.flatnonzero(places)
        places = places.astype(np.int64)
        places = np.where(places < 0, places + self.size, places)
        if places.size and not 0 <= int(places.min()) <= int(places.max()) < self.size:
            raise IndexError(f"a place is outside of 0 .. {self.size - 1:,}")
        return self._at(places.reshape(-1)).reshape(places.shape)

    def __iter__(self) -> Iterator[Any]:
        for begin in range(0, self.size, 1 << 16):
            yield from self[begin : begin + (1 << 16)]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("what isn't stored can't be an array without a copy")
        return self._all().astype(self.dtype if dtype is None else dtype, copy=False)

    def astype(self, dtype: DTypeLike) -> np.ndarray:
        """All of it in memory, in another type."""
        return self.__array__(dtype)

    def tolist(self) -> list[Any]:
        """All of it as a list."""
        return list(self._all().tolist())

    def _all(self) -> np.ndarray:
        raise NotImplementedError

    def _at(self, places: np.ndarray) -> np.ndarray:
        raise NotImplementedError


def _reopened(opened: Callable[[str], Any], path: str, name: str, fingerprint: str) -> Any:
    index = opened(path)
    if index.fingerprint != fingerprint:
        raise IndexFormatError(f"the index at {path} was replaced since it was pickled: open it again")
    return index.array(name)


class FoundOrder(FoundArray):
    """The position of each rank; some dozen steps each, or one where all are asked for."""

    def __init__(self, text: CompactText, source: tuple[Any, ...]) -> None:
        super().__init__(text, np.uint32, source)

    def _all(self) -> np.ndarray:
        order = np.full(self.size, 2**32 - 1, np.uint32)
        order[all_ranks(self._text)] = np.arange(self.size, dtype=np.uint32)
        return order

    def _at(self, places: np.ndarray) -> np.ndarray:
        found = np.empty(places.size, np.uint32)
        compact.positions_of_ranks(self._text, places.astype(np.int64), found)
        return found


class FoundTokens(FoundArray):
    """The text: a step each, and some dozen for each place that doesn't follow the one before."""

    def __init__(self, text: CompactText, source: tuple[Any, ...]) -> None:
        super().__init__(text, text.steps.next_tokens.dtype, source)

    def _all(self) -> np.ndarray:
        return np.asarray(self._text.steps.next_tokens[all_ranks(self._text)])

    def _at(self, places: np.ndarray) -> np.ndarray:
        if places.size == 0:
            return np.empty(0, self.dtype)
        first = np.flatnonzero(np.append(True, np.diff(places) != 1))
        offsets = np.append(first, places.size).astype(np.int64)
        ranks = stretch_ranks(self._text, places[first].astype(np.int64), offsets)
        return np.asarray(self._text.steps.next_tokens[ranks])


def counted_rows(
    next_tokens: np.ndarray, bounds: np.ndarray, num_symbols: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets, tokens and counts of rows, as the other layout stores them; bounds (R, 2). O(ranks of all rows)."""
    num_rows, flat = bounds.shape[0], np.ascontiguousarray(bounds).reshape(-1)
    offsets, sizes = np.zeros(num_rows + 1, np.int64), np.zeros(num_rows + 1, np.int64)
    tally = np.zeros(num_symbols, np.uint32)
    words, summary = np.zeros((num_symbols >> 6) + 1, np.uint64), np.zeros((num_symbols >> 12) + 1, np.uint64)
    tokens = np.empty(max(_ROW_ENTRIES, num_symbols), next_tokens.dtype)
    counts = np.empty(tokens.size, np.uint32)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    row = 0
    while row < num_rows:
        done = int(compact.fill_row_entries(next_tokens, flat, row, tally, words, summary, offsets, tokens, counts))
        sizes[row + 1 : done + 1] = np.diff(offsets[row : done + 1])
        used = int(offsets[done])
        parts.append((tokens[:used].copy(), counts[:used].copy()))
        row = done
    nothing = tokens[:0], counts[:0]
    found = tuple(np.concatenate(column) for column in zip(nothing, *parts, strict=True))
    made = np.cumsum(sizes), found[0], found[1]
    for array in made:
        array.flags.writeable = False  # as mapped ones: kernels are compiled for one kind
    return made
