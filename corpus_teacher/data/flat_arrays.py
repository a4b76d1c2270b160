"""Numbers that lie flat in a file: mapped on this machine, read by slices behind a URL; and the head of a .npy file."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from corpus_teacher.storage import Place, UrlPath

_NPY_SAID = re.compile(
    r"'descr': '(?P<kind>[<|](?:[iu][1248]|f[248]))', 'fortran_order': (?:False|True), "
    r"'shape': \((?P<shape>[0-9, ]{0,200})\)"
)


class NpyHead(NamedTuple):
    """What a .npy file says of its array, and at which byte that begins."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int


def npy_head(data: bytes) -> NpyHead | None:
    """The head of a .npy file of plain numbers, from its first bytes; None where it is no such file."""
    if not data.startswith(b"\x93NUMPY") or len(data) < 12:
        return None
    width = 2 if data[6] == 1 else 4
    begin = 8 + width
    end = begin + int.from_bytes(data[8:begin], "little")
    said = _NPY_SAID.search(data[begin:end].decode("latin-1"))
    if said is None:
        return None
    shape = tuple(int(axis) for axis in said["shape"].split(",") if axis.strip())
    return NpyHead(np.dtype(said["kind"]), shape, end)


class RangeArray:
    """Integers of a file behind a URL: a slice is one request.

    Parameters
    ----------
    path : UrlPath
    dtype : dtype
    offset : int
        The byte where they begin.
    count : int
        How many they are.
    """

    def __init__(self, path: UrlPath, dtype: npt.DTypeLike, offset: int, count: int) -> None:
        self.path, self.dtype, self.offset, self.shape = path, np.dtype(dtype), offset, (count,)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> npt.NDArray[Any]:
        begin, end, _ = part.indices(len(self))
        if begin >= end:
            return np.zeros(0, self.dtype)
        size = self.dtype.itemsize
        return np.frombuffer(self.path.read_range(self.offset + begin * size, self.offset + end * size), self.dtype)


def flat_array(path: Place, dtype: npt.DTypeLike, *, offset: int = 0, count: int | None = None) -> Any:
    """The integers of a file from a byte on, all up to its end by default: a map, or a `RangeArray`."""
    if count is None:
        count = (path.stat().st_size - offset) // np.dtype(dtype).itemsize
    if isinstance(path, UrlPath):
        return RangeArray(path, dtype, offset, count)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(count,)) if count else np.zeros(0, dtype)
