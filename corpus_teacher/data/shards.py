"""Folders of binary shards that an index.json lists, as MosaicML's MDS and litdata write them.

Both lay out a shard alike: the number of samples n (32 bits, little-endian), n + 1 offsets of 32 bits, whatever the
format keeps in front, then the samples one after the other. So a shard is read from front to back, packed or not, one
sample at a time; nothing that a file says about sizes is believed before that many bytes are there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from corpus_teacher.data.documents import ReadLog
from corpus_teacher.data.records import one_line
from corpus_teacher.data.unpacking import opened
from corpus_teacher.errors import InputError
from corpus_teacher.storage import Place

INDEX_FILE = "index.json"
Record = dict[str, Any]
"""A sample: its columns by name. Text is bytes, token ids are one array."""

_STEP_BYTES = 1 << 20
_FEW_BYTES = 1 << 26


@dataclass(frozen=True)
class ShardFolder:
    """What an index.json lists.

    Attributes
    ----------
    kind : {"mds", "litdata"}
    paths : list of Path or UrlPath
        In the order of the index.
    """

    kind: Literal["mds", "litdata"]
    paths: list[Place]


def shard_folder(folder: Place) -> ShardFolder | None:
    """The shards of a folder of MDS or litdata; None where there is no index.json, or one of something else.

    Raises
    ------
    InputError
        If the index names a file that leaves the folder, that isn't there, or that is packed in an unknown way.
    """
    place = folder / INDEX_FILE
    if not place.is_file():
        return None
    try:
        content = read_index(place)
    except InputError:
        return None
    shards, chunks = content.get("shards"), content.get("chunks")
    if isinstance(shards, list) and shards and all(isinstance(one, dict) and "raw_data" in one for one in shards):
        return ShardFolder("mds", [_mds_file(folder, one, place) for one in shards])
    if isinstance(chunks, list) and isinstance(content.get("config"), dict):
        names = [one.get("filename") if isinstance(one, dict) else None for one in chunks]
        return ShardFolder("litdata", [_inside(folder, name, place) for name in names])
    return None


def read_index(place: Place) -> dict[str, Any]:
    """The object in an index.json.

    Raises
    ------
    InputError
        If it can't be read, or holds something else.
    """
    try:
        with place.open("rb") as file:
            content = json.loads(file.read())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{place} can't be read as JSON: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{place} holds a JSON {type(content).__name__}, not an object")
    return content


def _mds_file(folder: Place, shard: dict[str, Any], place: Place) -> Place:
    """The file of a shard: plain where that is there, else packed."""
    files = [shard.get("raw_data"), shard.get("zip_data")]
    names = [one.get("basename") for one in files if isinstance(one, dict)]
    found = [path for path in (_named(folder, name, place) for name in names) if path.is_file()]
    if not found:
        raise InputError(f"{place} lists {names[0] if names else None!r}, which isn't there")
    if not {".mds", ".gz", ".zst", ".zstd"} & {found[0].suffix}:
        raise InputError(
            f"{found[0]} is packed in a way that can't be read; of MDS's, zstd and gz can: unpack it, or write it anew"
        )
    return found[0]


def _inside(folder: Place, name: Any, place: Place) -> Place:
    path = _named(folder, name, place)
    if not path.is_file():
        raise InputError(f"{place} lists {name!r}, which isn't there")
    return path


def _named(folder: Place, name: Any, place: Place) -> Place:
    """The file of a name in an index.json, which must stay inside of its folder."""
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    if not parts or ".." in parts or parts[0] == "/" or "\\" in name or "\0" in name:
        raise InputError(f"{place} lists {name!r}, which is no file inside of its folder")
    return folder.joinpath(*parts)


class Shard:
    """A shard that is read from front to back; a context manager.

    Parameters
    ----------
    path : Path or UrlPath
    log : ReadLog
        Advances by the bytes that are read.
    packed : str, optional
        The suffix that says how the file is packed; its own last one by default.

    Attributes
    ----------
    offsets : ndarray of shape (samples + 1,), int64
        Where samples begin, in bytes of the unpacked shard.
    head : bytes
        What stands between the offsets and the first sample.

    Raises
    ------
    InputError
        If it is cut short, or its offsets don't ascend; here, or from `samples`.
    """

    def __init__(self, path: Place, log: ReadLog, *, packed: str | None = None) -> None:
        self.path = path
        self._opened = opened(path, log, packed=packed)
        self._plain_bytes = path.stat().st_size if (packed or path.suffix) not in (".gz", ".zst", ".zstd") else None

    def __enter__(self) -> Shard:
        self._file = self._opened.__enter__()
        try:
            count = int.from_bytes(self._read(4, "its number of samples"), "little")
            before = 4 + 4 * (count + 1)
            if self._plain_bytes is not None and before > self._plain_bytes:
                raise InputError(f"{self.path} is cut short or damaged: it tells of {count:,} samples")
            self.offsets = np.frombuffer(self._read(before - 4, "its offsets"), "<u4").astype(np.int64)
            falling = np.flatnonzero(np.diff(self.offsets) < 0)
            if self.offsets[0] < before or len(falling):
                place = int(falling[0]) + 1 if len(falling) else 1
                raise InputError(
                    f"{self.path}, sample {place} is damaged: its offset doesn't lie behind the one before"
                )
            self.head = self._read(int(self.offsets[0]) - before, "its description")
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, *raised: Any) -> None:
        self._opened.__exit__(*raised)

    def samples(self) -> Iterator[tuple[str, bytes]]:
        """Each sample's place, for messages, and its bytes."""
        for number, size in enumerate(np.diff(self.offsets).tolist(), start=1):
            place = f"{self.path}, sample {number}"
            yield place, self._read(size, f"sample {number}")

    def _read(self, size: int, what: str) -> bytes:
        data = read_exactly(self._file, size)
        if len(data) < size:
            raise InputError(f"{self.path} is cut short: {what} is not all there")
        return data


def read_exactly(file: BinaryIO, size: int) -> bytes:
    """Up to `size` bytes of a stream; memory grows with what is there, not with what is asked for."""
    if size <= _FEW_BYTES:
        return file.read(size)
    pieces = []
    while size > 0:
        piece = file.read(min(size, _STEP_BYTES))
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def split_columns(sample: bytes, sizes: list[int | None], place: str) -> list[bytes]:
    """The columns of a sample: sizes of 32 bits for those that have none of their own, then the columns' bytes.

    Raises
    ------
    InputError
        If they don't fill the sample.
    """
    free = sum(size is None for size in sizes)
    if 4 * free > len(sample):
        raise InputError(f"{place} is damaged: it has {len(sample)} bytes, too few for {free} sizes of columns")
    told = iter(np.frombuffer(sample, "<u4", free).tolist())
    begin, found = 4 * free, []
    for size in sizes:
        end = begin + (next(told) if size is None else size)
        found.append(sample[begin:end])
        begin = end
    if begin != len(sample):
        raise InputError(f"{place} is damaged: its columns take {begin:,} bytes, it has {len(sample):,}")
    return found


def integers(data: bytes, dtype: str, place: str) -> npt.NDArray[Any]:
    """Bytes as one array of numbers.

    Raises
    ------
    InputError
        If they aren't a whole number of them.
    """
    kind = np.dtype(dtype).newbyteorder("<")
    if len(data) % kind.itemsize:
        raise InputError(f"{place} is damaged: {len(data):,} bytes are no whole number of {kind.name}")
    return np.frombuffer(data, kind)
