"""MosaicML's MDS shards → records, by the format's published description; its own package isn't needed.

A shard: the number of samples and their offsets, a description of the columns in JSON (`column_names`,
`column_encodings`, `column_sizes`), the samples. A sample: the sizes of those columns that have no fixed size, 32 bits
each, then the columns. Columns that hold programs or pictures are passed over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from corpus_teacher.data.documents import ReadLog
from corpus_teacher.data.records import one_line
from corpus_teacher.data.shards import Record, Shard, integers, split_columns
from corpus_teacher.errors import InputError
from corpus_teacher.storage import Place

_NUMBERS = tuple(
    f"{kind}{bits}" for kind, sizes in (("uint", (8, 16, 32, 64)), ("int", (8, 16, 32, 64)), ("float", (16, 32, 64)))
    for bits in sizes
)  # fmt: skip
_ARRAY_TYPES = {
    8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 18: "float16", 32: "uint32", 33: "int32", 34: "float32",
    64: "uint64", 65: "int64", 66: "float64",
}  # fmt: skip
_TEXTS = ("str", "bytes")
_WRITTEN_NUMBERS = ("str_int", "str_float", "str_decimal")


def read_mds(path: Place, fields: Sequence[str] | None, log: ReadLog) -> Iterator[tuple[str, Record]]:
    """The samples of a shard, each with its place.

    Parameters
    ----------
    path : Path or UrlPath
        A .mds file, plain or packed as .zstd, .zst or .gz.
    fields : sequence of str, optional
        Columns that are read, "a.b" for the key b inside of a; all that can be by default.
    log : ReadLog

    Raises
    ------
    InputError
        If the shard is damaged, or a column that is asked for can't be read.
    """
    with Shard(path, log) as shard:
        names, encodings, sizes = _columns(shard)
        wanted = None if fields is None else {*fields, *(field.partition(".")[0] for field in fields)}
        for place, sample in shard.samples():
            columns = split_columns(sample, sizes, place)
            record: Record = {}
            for name, encoding, data in zip(names, encodings, columns, strict=True):
                readable = _is_readable(encoding)
                if wanted is not None and name in wanted and not readable:
                    raise InputError(f"{place}: the column {name!r} is encoded as {encoding!r}, which isn't read")
                if readable and (wanted is None or name in wanted):
                    record[name] = _decoded(encoding, data, f"{place}, column {name!r}")
                else:
                    record[name] = None
            yield place, record


def _columns(shard: Shard) -> tuple[list[str], list[str], list[int | None]]:
    """Names, encodings and fixed sizes of the columns, as the shard describes them."""
    try:
        said = json.loads(shard.head)
        names, encodings, sizes = (said[f"column_{what}"] for what in ("names", "encodings", "sizes"))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{shard.path} is no MDS shard: its description of columns can't be read") from error
    if said.get("version", 2) != 2:
        raise InputError(f"{shard.path} is an MDS shard of version {said['version']!r}; only version 2 is known")
    sound = (
        all(isinstance(one, list) for one in (names, encodings, sizes))
        and len(names) == len(encodings) == len(sizes) > 0
        and all(isinstance(one, str) for one in (*names, *encodings))
        and all(size is None or (type(size) is int and 0 < size < 2**32) for size in sizes)
    )
    if not sound:
        raise InputError(f"{shard.path} is damaged: its description of columns doesn't fit together")
    return names, encodings, sizes


def _is_readable(encoding: str) -> bool:
    return encoding.partition(":")[0] in (*_TEXTS, *_WRITTEN_NUMBERS, "int", "json", "ndarray", *_NUMBERS)


def _decoded(encoding: str, data: bytes, place: str) -> Any:
    """The value of a column."""
    kind, _, more = encoding.partition(":")
    try:
        if kind in _TEXTS:
            return data
        if kind in _WRITTEN_NUMBERS:
            return data.decode()
        if kind == "json":
            return json.loads(data)
        if kind == "ndarray":
            return _array(data, more, place)
        return np.frombuffer(data, "int64" if kind == "int" else kind, 1)[0].item()
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is damaged: it can't be read as {encoding!r} ({one_line(error)})") from error


def _array(data: bytes, said: str, place: str) -> Any:
    """An array: its type and shape stand in front where the encoding leaves them out."""
    dtype, _, shape = said.partition(":")
    begin = 0
    if not dtype:
        dtype, begin = _ARRAY_TYPES.get(data[0] if data else -1, ""), 1
    if dtype not in _ARRAY_TYPES.values():
        raise InputError(f"{place} is damaged: it holds an array of an unknown type")
    if shape:
        wanted = math.prod(int(size) for size in shape.split(","))
    else:
        code = data[begin] if begin < len(data) else 0
        axes, width = code >> 2, 1 << (code % 4)
        sizes = integers(data[begin + 1 : begin + 1 + axes * width], f"u{width}", place)
        if len(sizes) != axes or axes == 0:
            raise InputError(f"{place} is damaged: the shape of its array is not all there")
        wanted = math.prod(sizes.tolist())
        begin += 1 + axes * width
    array = integers(data[begin:], dtype, place)
    if len(array) != wanted:
        raise InputError(f"{place} is damaged: its array has {len(array):,} numbers, and should have {wanted:,}")
    return array
