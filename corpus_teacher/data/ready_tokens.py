"""Ready tokens: corpora that somebody else has tokenised, in the files that the field uses.

| file | convention |
|---|---|
| X.npy | one integer array of shape (N,) |
| X.bin | raw little-endian uint16 or uint32 (nanoGPT, tokengrams, infini-gram); X.u16 and X.u32 say which |
| X.bin with a header of 256 int32 | llm.c and modded-nanogpt: magic 20240520 (uint16) or 20240801 (uint32) |
| X.bin + X.idx | Megatron-LM's indexed data set, "MMIDIDX" version 1 |
| X.ds + X.ds.index | datatrove's and nanotron's: raw uint16 or uint32, and where documents end |

Documents come from the index of Megatron or datatrove, from a file of offsets, or from an end-of-document id; else all
is one.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus_teacher.data.file_kinds import special_file
from corpus_teacher.data.flat_arrays import flat_array, npy_head
from corpus_teacher.data.indexed_tokens import datatrove_index, datatrove_starts, datatrove_width, open_megatron
from corpus_teacher.data.token_streams import ReadyTokens, join_ready_tokens, split_after
from corpus_teacher.errors import InputError
from corpus_teacher.files import read_array
from corpus_teacher.storage import Place, UrlPath

__all__ = ["ReadyTokens", "join_ready_tokens", "open_ready_tokens", "split_after"]

_LLMC_TYPES = {20240520: "<u2", 20240801: "<u4"}
_LLMC_HEADER_BYTES = 256 * 4


def open_ready_tokens(
    path: Place, *, dtype: str = "auto", doc_offsets: Path | None = None, vocab_size: int | None = None
) -> ReadyTokens:
    """Map a file of tokens.

    Parameters
    ----------
    path : Path or UrlPath
        .npy, .bin, .u16, .u32, .ds, or either file of a Megatron pair.
    dtype : {"auto", "uint16", "uint32"}
        Of a raw .bin or .ds; the other files say it themselves. "auto": uint16, unless the vocabulary has more than
        65,536 tokens or every second 16-bit number is next to nothing, as the upper halves of 32-bit ids are.
    vocab_size : int, optional
        What is known of the vocabulary.
    doc_offsets : Path, optional
        Where documents begin, in tokens: a .npy, or raw little-endian int64.

    Raises
    ------
    InputError
        If a file is missing, empty, cut short, or not what its name says; if 16-bit tokens are said to be of a
        vocabulary of more than 65,536.
    """
    try:
        for place in [path, *([doc_offsets] if doc_offsets else [])]:
            special = special_file(place)
            if special is not None:
                raise InputError(f"{place} is {special}, not a file; save what it yields to a file first")
        index = path.with_suffix(".idx")
        if path.suffix == ".idx" or (path.suffix == ".bin" and index.is_file()):
            ready = open_megatron(path.with_suffix(".bin"), index)
        elif path.suffix == ".npy":
            ready = _open_npy(path)
        elif path.suffix == ".ds":
            ready = _open_datatrove(path, dtype, vocab_size)
        else:
            ready = _open_raw(path, {".u16": "uint16", ".u32": "uint32"}.get(path.suffix, dtype), vocab_size)
        if doc_offsets is not None:
            starts = _read_offsets(doc_offsets, len(ready.tokens))
            ready = replace(ready, doc_starts=starts, convention=f"{ready.convention} + {doc_offsets.name}")
    except OSError as error:
        name = error.filename or path
        raise InputError(f"{name} can't be read: {error.strerror or error}") from error
    return ready


def _open_npy(path: Place) -> ReadyTokens:
    if isinstance(path, UrlPath):
        head = npy_head(path.read_range(0, min(path.stat().st_size, 4096)))
        if head is None or len(head.shape) != 1 or head.dtype.kind not in "iu":
            raise InputError(f"{path} is not a .npy array of tokens: one integer array of shape (N,)")
        there = (path.stat().st_size - head.begin) // head.dtype.itemsize
        if there < head.shape[0]:
            raise InputError(f"{path} is cut short: it tells of {head.shape[0]:,} tokens, {there:,} are there")
        tokens = flat_array(path, head.dtype, offset=head.begin, count=head.shape[0])
        return ReadyTokens(path, _not_empty(tokens, path), None, f".npy of {head.dtype}")
    try:
        tokens = read_array(path, mapped=True)
    except ValueError as error:
        raise InputError(f"{path} is not a .npy array of tokens: {error}") from error
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise InputError(
            f"{path} holds {tokens.dtype} of shape {tokens.shape}; tokens are one integer array of shape (N,)"
        )
    return ReadyTokens(path, _not_empty(tokens, path), None, f".npy of {tokens.dtype}")


def _open_raw(path: Place, dtype: str, vocab_size: int | None) -> ReadyTokens:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
    magic, version, count = struct.unpack("<iii", head) if len(head) == 12 else (0, 0, 0)
    if magic in _LLMC_TYPES and version in (1, 7) and size >= _LLMC_HEADER_BYTES:
        kind = np.dtype(_LLMC_TYPES[magic])
        if size != _LLMC_HEADER_BYTES + count * kind.itemsize:
            raise InputError(
                f"{path} is cut short or damaged: its header promises {count:,} tokens "
                f"({_LLMC_HEADER_BYTES + count * kind.itemsize:,} bytes), the file has {size:,} bytes"
            )
        tokens = flat_array(path, kind, offset=_LLMC_HEADER_BYTES, count=count)
        return ReadyTokens(path, tokens, None, f"llm.c .bin of {kind.name}")
    if dtype not in ("auto", "uint16", "uint32"):
        raise InputError(f"raw tokens are uint16 or uint32, not {dtype!r}")
    wide = vocab_size is not None and vocab_size > 1 << 16
    if dtype == "uint16" and wide:
        raise InputError(
            f"{path} can't hold tokens of a vocabulary of {vocab_size:,} in 16 bits; set the dtype "
            "to uint32, or give the right vocabulary"
        )
    looks = _width_of(path, size)
    recognised = dtype == "auto" and (wide or looks == "uint32")
    if dtype == "auto":
        dtype = "uint32" if recognised else "uint16"
    kind = np.dtype(dtype).newbyteorder("<")
    if size % kind.itemsize:
        raise InputError(
            f"{path} has {size:,} bytes, which is no whole number of {dtype} tokens; it is cut short, or "
            "the `dtype` is wrong"
        )
    if size == 0:
        raise InputError(f"{path} is empty")
    doubt = None
    if looks not in (None, dtype):
        doubt = f"{path.name} is read as {dtype}, but looks like {looks}: {_WHY[looks]}"
    how = f"raw {dtype}, recognised" if recognised else f"raw {dtype}"
    return ReadyTokens(path, flat_array(path, kind), None, how, doubt)


def _open_datatrove(path: Place, dtype: str, vocab_size: int | None) -> ReadyTokens:
    index = datatrove_index(path)
    ready = _open_raw(path, datatrove_width(path, index, dtype), vocab_size)
    starts = datatrove_starts(index, len(ready.tokens)) if index.is_file() else None
    return replace(ready, doc_starts=starts, convention=f"datatrove {ready.tokens.dtype.name}")


_WHY = {
    "uint32": "every second 16-bit number is next to nothing",
    "uint16": "the upper halves of its 32-bit numbers vary as much as the lower ones",
}


def _width_of(path: Place, size: int) -> str | None:
    """What raw tokens look like, judged by samples from all over the file; None where they could be either.

    Ids of 32 bits have upper halves that are the same small number nearly everywhere (V ≤ 2^20, say, gives 0 to 15);
    ids of 16 bits, read in pairs, have two halves of one distribution.
    """
    if size % 4 or size < 64:
        return None
    if isinstance(path, UrlPath):  # of which the beginning must do
        words = np.frombuffer(path.read_range(0, min(size, 1 << 18)), "<u2").reshape(-1, 2)
    else:
        words = np.memmap(path, dtype="<u2", mode="r").reshape(-1, 2)
    places = np.unique(np.linspace(0, len(words) - 1, min(len(words), 1 << 16)).astype(np.int64))
    low, high = np.array(words[places, 0]), np.array(words[places, 1])
    distinct_low, distinct_high = len(np.unique(low)), len(np.unique(high))
    if int(high.max()) < 64 and distinct_low > 8 and distinct_low > 4 * distinct_high:
        return "uint32"
    if int(np.quantile(high, 0.5)) >= 64 and distinct_high > 8:
        return "uint16"
    return None


def _read_offsets(path: Path, num_tokens: int) -> npt.NDArray[np.int64]:
    """doc_starts (D + 1,) from a file that may leave out the final N."""
    if path.suffix == ".npy":
        try:
            offsets = read_array(path)
        except ValueError as error:
            raise InputError(f"{path} is not a .npy array of document offsets: {error}") from error
    else:
        if path.stat().st_size % 8:
            raise InputError(f"{path} is no whole number of int64 offsets; save them as .npy")
        offsets = np.fromfile(path, dtype="<i8")
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or len(offsets) == 0:
        raise InputError(f"{path} holds {offsets.dtype} of shape {offsets.shape}, not document offsets (D + 1,)")
    starts = offsets.astype(np.int64)
    if starts[-1] < num_tokens:
        starts = np.append(starts, num_tokens)
    if starts[0] != 0 or starts[-1] != num_tokens or (np.diff(starts) < 0).any():
        raise InputError(
            f"{path}: document offsets must ascend from 0 to the {num_tokens:,} tokens, these run from "
            f"{starts[0]:,} to {starts[-1]:,}; they count tokens, not bytes"
        )
    return starts


def _not_empty(tokens: npt.NDArray[Any], path: Place) -> npt.NDArray[Any]:
    if len(tokens) == 0:
        raise InputError(f"{path} is empty")
    return tokens
