"""What is left of an array when some of its entries are taken out: places among all, and among those that are kept.

Naively: `numpy.delete`. Here only what is taken out is listed, so a few documents less cost a few numbers, and the
array stays the file that it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from corpus_index.errors import IndexFormatError
from corpus_index.files import stamp_of

_EAGER = 1 << 22  # a longer slice is read when it is asked for


class MappedFile(NamedTuple):
    """A map of a whole file, as it pickles; stamp: tells the file from a successor's."""

    name: str
    dtype: str
    length: int
    stamp: tuple[Any, ...] | None


def file_of(array: Any) -> MappedFile | None:
    """The file that an array maps in whole; None of any other array."""
    if not isinstance(array, np.memmap) or array.filename is None or isinstance(array.base, np.ndarray):
        return None
    return MappedFile(str(array.filename), array.dtype.str, len(array), getattr(array, "stamp", None))


def opened_file(mapped: MappedFile) -> np.ndarray:
    """The map of a file, in another process.

    Raises
    ------
    IndexFormatError
        Another file has its name by now.
    """
    with open(mapped.name, "rb") as file:
        if mapped.stamp is not None and tuple(mapped.stamp) != stamp_of(os.fstat(file.fileno())):
            raise IndexFormatError(f"{mapped.name} was replaced since it was opened: open the index again")
        return np.memmap(file, dtype=mapped.dtype, mode="r", shape=(mapped.length,))


class Places:
    """Kept places by number among the kept ones, and among all.

    Parameters
    ----------
    begins : ndarray of shape (m,), uint32 or int64
        Where each run of places begins that is taken out, ascending; runs don't overlap.
    sizes : ndarray of shape (m,), int64, optional
        Of the runs; 1 each by default.

    Notes
    -----
    Both directions are a binary search over the runs, O(log m) a place.

    Examples
    --------
    >>> places = Places(np.array([1, 4]), np.array([2, 1]))  # of 0 … 6, 1, 2 and 4 are out
    >>> places.among_all(np.arange(4)).tolist(), places.among_kept(np.array([0, 3, 5, 6, 7])).tolist()
    ([0, 3, 5, 6], [0, 1, 2, 3, 4])
    """

    def __init__(self, begins: np.ndarray, sizes: np.ndarray | None = None) -> None:
        self._begins, self._sizes = begins, sizes
        self._before = None if sizes is None else np.append(0, np.cumsum(sizes)).astype(np.int64)
        before = np.arange(begins.size) if self._before is None else self._before[:-1]
        self._cuts = (begins - before).astype(begins.dtype)

    def among_all(self, kept: np.ndarray) -> np.ndarray:
        """The places among all of kept ones by number: int64, the same shape."""
        runs = np.searchsorted(self._cuts, np.asarray(kept).astype(self._cuts.dtype), side="right")
        return np.asarray(kept).astype(np.int64) + (runs if self._before is None else self._before[runs])

    def among_kept(self, places: np.ndarray) -> np.ndarray:
        """How many kept places lie before each place: int64, the same shape."""
        wide = np.asarray(places).astype(np.int64)
        runs = np.searchsorted(self._begins, wide.astype(self._begins.dtype), side="left")
        if self._before is None or self._sizes is None:
            return wide - runs
        if self._sizes.size == 0:
            return wide
        last = np.maximum(runs - 1, 0)
        inside = np.minimum(wide - self._begins[last], self._sizes[last])
        return wide - np.where(runs > 0, self._before[last] + inside, 0)


class KeptArray:
    """The kept entries of an array by kept place: `len`, `[i]`, slices and arrays of places read it like an array.

    Slices of at most 4 million entries, and what is asked for by an array of places, are copies in memory; longer
    slices of step 1 are read when they are asked. `numpy.asarray` reads all of it.

    Parameters
    ----------
    whole : one-dimensional array
    places : Places
    size : int
        Entries that are kept.
    values : callable, optional
        What becomes of entries that are read.
    dtype : dtype, optional
        Of what is read, where values change it.
    begin : int
        The first kept place of a slice.
    """

    ndim = 1

    def __init__(
        self,
        whole: Any,
        places: Places,
        size: int,
        values: Callable[[np.ndarray], np.ndarray] | None = None,
        dtype: Any = None,
        begin: int = 0,
    ) -> None:
        self.whole, self.places, self.size = whole, places, size
        self._values, self._begin = values, begin
        self.dtype = np.dtype(whole.dtype if dtype is None else dtype)

    def __reduce__(self) -> tuple[Callable[..., KeptArray], tuple[Any, ...]]:
        """Of a map of a file, it pickles as its path, and workers open their own maps."""
        return _kept, (file_of(self.whole) or self.whole, self.places, self.size, self._values, self.dtype, self._begin)

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

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.size:,} of {len(self.whole):,} entries of {self.dtype})"

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            start, stop, step = key.indices(self.size)
            if step == 1 and stop - start > _EAGER:
                return self._slice(start, stop)
            return self._at(np.arange(start, stop, step))
        places = np.asarray(key)
        if places.dtype.kind == "b":
            places = np.flatnonzero(places)
        places = np.where(places < 0, places + self.size, places)
        if places.size and not 0 <= int(places.min()) <= int(places.max()) < self.size:
            raise IndexError(f"a place is outside of 0 .. {self.size - 1:,}")
        found = self._at(places)
        return found[()] if places.ndim == 0 else found

    def __iter__(self) -> Iterator[Any]:
        for begin in range(0, self.size, _EAGER):
            yield from self._at(np.arange(begin, min(self.size, begin + _EAGER)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("what is left of an array can't be one array without a copy")
        whole = np.empty(self.size, self.dtype if dtype is None else dtype)
        for begin in range(0, self.size, _EAGER):
            end = min(self.size, begin + _EAGER)
            whole[begin:end] = self._at(np.arange(begin, end))
        return whole

    def astype(self, dtype: Any, copy: bool = True) -> np.ndarray:
        """All of it in memory, in another type."""
        return self.__array__(dtype)

    def tolist(self) -> list[Any]:
        """All of it as a list."""
        return list(self.__array__().tolist())

    def _slice(self, start: int, stop: int) -> KeptArray:
        return type(self)(self.whole, self.places, stop - start, self._values, self.dtype, self._begin + start)

    def _at(self, places: np.ndarray) -> np.ndarray:
        found = np.asarray(self.whole[self.places.among_all(places + self._begin)])
        return found if self._values is None else np.asarray(self._values(found), self.dtype)


def _kept(whole: Any, *rest: Any) -> KeptArray:
    return KeptArray(opened_file(whole) if isinstance(whole, MappedFile) else whole, *rest)
