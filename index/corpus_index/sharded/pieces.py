"""What lies in pieces, one a shard, read as if it were one array: the corpus's tokens, and positions by rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from corpus_index.names import DocumentNames, NamedDocument
from corpus_index.sharded.places import MappedFile, file_of, opened_file

_EAGER = 1 << 22  # a longer slice stays in pieces


class Pieces:
    """A one-dimensional array in pieces: `len`, `[i]`, slices and arrays of places read it like a numpy array.

    Slices of at most 4 million entries, and what is asked for by an array of places, are copies in memory; longer
    slices of step 1 stay in pieces. `numpy.asarray` reads all of it. It pickles as the pieces do.

    Parameters
    ----------
    parts : sequence of one-dimensional arrays
    dtype : dtype
        Of what is read.
    added : sequence of int, optional
        What is added to the entries of each piece.

    Examples
    --------
    >>> pieces = Pieces([np.array([1, 2]), np.array([3])], np.int64)
    >>> len(pieces), pieces[1:].tolist(), pieces[np.array([[2, 0]])].tolist()
    (3, [2, 3], [[3, 1]])
    """

    ndim = 1

    def __init__(self, parts: Sequence[np.ndarray], dtype: DTypeLike, added: Sequence[int] | None = None) -> None:
        self.parts = list(parts)
        self.dtype = np.dtype(dtype)
        self.added = list(added) if added is not None else [0] * len(self.parts)
        self.offsets = np.cumsum([0, *(len(part) for part in self.parts)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @property
    def size(self) -> int:
        """Entries."""
        return len(self)

    @property
    def shape(self) -> tuple[int]:
        """(entries,)."""
        return (len(self),)

    @property
    def nbytes(self) -> int:
        """Bytes of all entries."""
        return len(self) * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"Pieces({len(self):,} of {self.dtype} in {len(self.parts)} parts)"

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                return self._between(start, max(start, stop))
            return self._at(np.arange(start, stop, step))
        if isinstance(key, (int, np.integer)):
            place = int(key) + (len(self) if key < 0 else 0)
            if not 0 <= place < len(self):
                raise IndexError(f"place {int(key):,} is outside of 0 .. {len(self) - 1:,}")
            return self._at(np.array([place]))[0]
        places = np.asarray(key)
        if places.dtype.kind == "b":
            places = np.flatnonzero(places)
        return self._at(np.where(places < 0, places + len(self), places))

    def __iter__(self) -> Iterator[Any]:
        for part in range(len(self.parts)):
            yield from self._whole(part)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("pieces can't be one array without a copy")
        whole = np.concatenate([self._whole(part) for part in range(len(self.parts))] or [np.empty(0, self.dtype)])
        return whole.astype(self.dtype if dtype is None else dtype, copy=False)

    def astype(self, dtype: DTypeLike) -> np.ndarray:
        """All of it in memory, in another type."""
        return self.__array__(dtype)

    def tolist(self) -> list[Any]:
        """All of it as a list."""
        return list(self.__array__().tolist())

    def _whole(self, part: int) -> np.ndarray:
        entries = np.asarray(self.parts[part])
        return entries if not self.added[part] else entries.astype(self.dtype) + self.dtype.type(self.added[part])

    def _between(self, start: int, stop: int) -> np.ndarray | Pieces:
        first = int(np.searchsorted(self.offsets, start, side="right")) - 1
        cut: list[np.ndarray] = []
        added: list[int] = []
        for part in range(first, len(self.parts)):
            begin = int(self.offsets[part])
            if begin >= stop and cut:
                break
            cut.append(self.parts[part][max(0, start - begin) : max(0, stop - begin)])
            added.append(self.added[part])
        made = Pieces(cut, self.dtype, added)
        if len(cut) == 1 and not added[0]:
            return np.asarray(cut[0], self.dtype)
        return made if stop - start > _EAGER else made.__array__()

    def _at(self, places: np.ndarray) -> np.ndarray:
        out = np.empty(places.shape, self.dtype)
        if places.size and not 0 <= int(places.min()) <= int(places.max()) < len(self):
            raise IndexError(f"a place is outside of 0 .. {len(self) - 1:,}")
        holder = np.searchsorted(self.offsets, places, side="right") - 1
        for part in np.unique(holder).tolist():
            here = holder == part
            found = self.parts[part][places[here] - int(self.offsets[part])]
            out[here] = found.astype(self.dtype) + self.dtype.type(self.added[part]) if self.added[part] else found
        return out


class TokenPieces(Pieces):
    """The tokens of all shards; of maps of files, it pickles as their paths, and workers open their own maps."""

    def __reduce__(self) -> tuple[Callable[..., TokenPieces], tuple[Any, ...]]:
        parts = [file_of(part) or part for part in self.parts]  # what is left of a map knows itself how it pickles
        return _opened, (parts, self.dtype.str)


def _opened(parts: list[Any], dtype: str) -> TokenPieces:
    return TokenPieces([opened_file(part) if isinstance(part, MappedFile) else part for part in parts], dtype)


class NamesInPieces:
    """Names of documents, by number, of all shards; `len`, `[number]` and iteration, as of `DocumentNames`."""

    def __init__(self, parts: Sequence[DocumentNames]) -> None:
        self._parts = list(parts)
        self._offsets = np.cumsum([0, *map(len, self._parts)])

    def __len__(self) -> int:
        return int(self._offsets[-1])

    def __getitem__(self, number: int) -> NamedDocument:
        part = int(np.searchsorted(self._offsets, number, side="right")) - 1
        return self._parts[max(0, min(part, len(self._parts) - 1))][number - int(self._offsets[max(0, part)])]

    def __iter__(self) -> Iterator[NamedDocument]:
        return (name for part in self._parts for name in part)
