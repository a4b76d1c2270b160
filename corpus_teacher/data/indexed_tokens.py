"""Flat tokens beside a file that says where documents end: Megatron-LM's pair, and datatrove's .ds with its index.

Both are mapped, not read: of 35 million documents memory holds where they begin, eight bytes each.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus_teacher.data.flat_arrays import flat_array
from corpus_teacher.data.token_streams import ReadyTokens
from corpus_teacher.errors import InputError
from corpus_teacher.storage import Place

_MEGATRON_MAGIC = b"MMIDIDX\x00\x00"
_MEGATRON_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_MEGATRON_HEADER = struct.Struct("<9sQBQQ")


def open_megatron(data: Place, index: Place) -> ReadyTokens:
    """The pair of Megatron-LM (megatron/core/datasets/indexed_dataset.py): lengths and documents beside the tokens.

    Header: magic, u64 version, u8 type, u64 sequences S, u64 document boundaries D + 1; then int32 lengths
    (S), int64 byte offsets (S), int64 boundaries in sequences (D + 1), and perhaps int8 modes (S) of
    multimodal data.

    Raises
    ------
    InputError
        If the index is of another version, or damaged, or belongs to other tokens.
    """
    size = index.stat().st_size
    with index.open("rb") as file:
        head = file.read(_MEGATRON_HEADER.size)
    if len(head) < _MEGATRON_HEADER.size or not head.startswith(_MEGATRON_MAGIC):
        raise InputError(f"{index} is not a Megatron index: it doesn't begin with MMIDIDX")
    _, version, code, sequences, boundaries = _MEGATRON_HEADER.unpack(head)
    if version != 1:
        raise InputError(f"{index} is a Megatron index of version {version}; only version 1 is known")
    if code not in _MEGATRON_TYPES:
        raise InputError(f"{index}: its tokens have type code {code}, which is no integer type")
    if size < _MEGATRON_HEADER.size + 12 * sequences + 8 * boundaries:
        raise InputError(f"{index} is cut short: {sequences:,} sequences don't fit into {size:,} bytes")
    at = _MEGATRON_HEADER.size
    lengths = _numbers(index, "<i4", sequences, at)
    offsets = _numbers(index, "<i8", sequences, at + 4 * sequences)
    documents = _numbers(index, "<i8", boundaries, at + 12 * sequences)
    kind = np.dtype(_MEGATRON_TYPES[code])
    starts = np.zeros(sequences + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    if (lengths < 0).any() or not np.array_equal(offsets, starts[:-1] * kind.itemsize):
        raise InputError(f"{index}: its sequences don't lie one after the other in {data.name}; merge it anew")
    if len(documents) < 1 or documents[0] != 0 or documents[-1] != sequences or (np.diff(documents) < 0).any():
        raise InputError(f"{index}: its document boundaries don't run from 0 to {sequences:,} sequences")
    size = data.stat().st_size
    if size != starts[-1] * kind.itemsize:
        raise InputError(
            f"{data} has {size:,} bytes, but {index.name} tells of {starts[-1] * kind.itemsize:,}: "
            "the two don't belong together, or one is cut short"
        )
    if size == 0:
        raise InputError(f"{data} is empty")
    return ReadyTokens(data, flat_array(data, kind), starts[documents], f"Megatron {kind.name}")


def datatrove_index(path: Place) -> Place:
    """The file beside a .ds that says where its documents end."""
    return path.with_name(f"{path.name}.index")


def datatrove_width(path: Place, index: Place, dtype: str) -> str:
    """The integers of a .ds file: what the user says, else what its metadata or its index tell; "auto" if nothing does.

    datatrove writes `NAME.ds.metadata` (its first line ends in `|2` or `|4`, bytes per token) and `NAME.ds.index`, in
    which the last number is that of all tokens.

    Raises
    ------
    InputError
        If the metadata can't be read as such.
    """
    if dtype != "auto":
        return dtype
    metadata = path.with_name(f"{path.name}.metadata")
    if metadata.is_file():
        with metadata.open("rb") as file:
            line = file.readline(4096)
        width = {b"2": "uint16", b"4": "uint32"}.get(line.strip().rpartition(b"|")[2])
        if width is None:
            raise InputError(f"{metadata}: its first line doesn't end in |2 or |4, the bytes per token; set the dtype")
        return width
    if index.is_file() and index.stat().st_size >= 8:
        last = int(_numbers(index, "<u8", index.stat().st_size // 8, 0)[-1])
        size = path.stat().st_size
        return {2 * last: "uint16", 4 * last: "uint32"}.get(size, dtype)
    return dtype


def datatrove_starts(index: Place, num_tokens: int) -> npt.NDArray[np.int64]:
    """Where the documents of a .ds file begin (D + 1,), from its index of where they end.

    Tokens after the last end are a document too: datatrove cuts its shuffled files inside of documents.

    Raises
    ------
    InputError
        If the ends don't ascend, or lie outside of the tokens.
    """
    size = index.stat().st_size
    if size % 8:
        raise InputError(f"{index} is cut short: it has {size:,} bytes, no whole number of 64-bit document ends")
    ends = _numbers(index, "<u8", size // 8, 0)
    if len(ends) and (int(ends.max()) > num_tokens or (ends[1:] < ends[:-1]).any()):
        place = int(np.argmax((ends > num_tokens) | (np.concatenate([[0], ends[:-1]]).astype("<u8") > ends)))
        raise InputError(
            f"{index}: document {place} ends at {int(ends[place]):,}; ends must ascend up to the {num_tokens:,} tokens "
            "of the file, so the two don't belong together, or the `dtype` is wrong"
        )
    starts = np.zeros(len(ends) + 1, dtype=np.int64)
    starts[1:] = ends
    return starts if int(starts[-1]) == num_tokens else np.append(starts, num_tokens)


def _numbers(path: Place, dtype: str, count: int, offset: int) -> npt.NDArray[Any]:
    """`count` integers of a file from a byte on, mapped; read where the file is behind a URL."""
    numbers = flat_array(path, dtype, offset=offset, count=count)
    return numbers if isinstance(numbers, np.ndarray) else numbers[:count]
