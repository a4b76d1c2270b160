"""Ready tokens: corpora that somebody else has tokenised, in the files that the field uses.

| file | convention |
|---|---|
| X.npy | one integer array of shape (N,) |
| X.bin | raw little-endian uint16 or uint32 (nanoGPT, tokengrams, infini-gram); X.u16 and X.u32 say which |
| X.bin with a header of 256 int32 | llm.c and modded-nanogpt: magic 20240520 (uint16) or 20240801 (uint32) |
| X.bin + X.idx | Megatron-LM's indexed data set, "MMIDIDX" version 1 |

Documents come from Megatron's index, from a file of offsets, or from an end-of-document id; else all is one.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from corpus_index.names import numbered_names

from corpus_teacher.data.documents import Progress, silent
from corpus_teacher.data.file_kinds import special_file
from corpus_teacher.data.pipeline import TokenFile, TokenWriter
from corpus_teacher.data.tokenizers import token_dtype
from corpus_teacher.errors import InputError

_CHUNK_TOKENS = 1 << 22
_MEGATRON_MAGIC = b"MMIDIDX\x00\x00"
_MEGATRON_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_LLMC_TYPES = {20240520: "<u2", 20240801: "<u4"}
_LLMC_HEADER_BYTES = 256 * 4


@dataclass(frozen=True)
class ReadyTokens:
    """A tokenised corpus as it lies on disk.

    Parameters
    ----------
    path : Path
    tokens : ndarray of shape (N,), integer
        A read-only map.
    doc_starts : ndarray of shape (D + 1,), int64, optional
        None where the file doesn't say.
    convention : str
        What it was taken for, for the summary.
    doubt : str, optional
        A sentence, where it looks like something else.
    """

    path: Path
    tokens: npt.NDArray[Any]
    doc_starts: npt.NDArray[np.int64] | None
    convention: str
    doubt: str | None = None

    def chunks(self, vocab_size: int | None = None) -> Iterator[npt.NDArray[Any]]:
        """The tokens in bounded pieces, each id checked to be in 0 .. vocab_size − 1 (2³¹ − 1 at most).

        Raises
        ------
        InputError
            At the first id outside, named with its position.
        """
        limit = vocab_size or 1 << 31
        for begin in range(0, len(self.tokens), _CHUNK_TOKENS):
            chunk = self.tokens[begin : begin + _CHUNK_TOKENS]
            low, high = int(chunk.min()), int(chunk.max())
            if low < 0 or high >= limit:
                place = int(np.argmax((chunk < 0) | (chunk >= limit)))
                bound = f"the vocabulary of {vocab_size}" if vocab_size else "the largest vocabulary, 2^31"
                raise InputError(
                    f"{self.path}: token {begin + place} is {chunk[place]}, which is outside of {bound}; "
                    "name the "
                    "tokenizer or the vocab_size that the tokens were made with, and the right `dtype`"
                )
            yield chunk


def open_ready_tokens(
    path: Path, *, dtype: str = "auto", doc_offsets: Path | None = None, vocab_size: int | None = None
) -> ReadyTokens:
    """Map a file of tokens.

    Parameters
    ----------
    path : Path
        .npy, .bin, .u16, .u32, or either file of a Megatron pair.
    dtype : {"auto", "uint16", "uint32"}
        Of a raw .bin; the other files say it themselves. "auto": uint16, unless the vocabulary has more than 65,536
        tokens or every second 16-bit number is next to nothing, as the upper halves of 32-bit ids are.
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
        for place in filter(None, (path, doc_offsets)):
            special = special_file(place)
            if special is not None:
                raise InputError(f"{place} is {special}, not a file; save what it yields to a file first")
        index = path.with_suffix(".idx")
        if path.suffix == ".idx" or (path.suffix == ".bin" and index.is_file()):
            ready = _open_megatron(path.with_suffix(".bin"), index)
        elif path.suffix == ".npy":
            ready = _open_npy(path)
        else:
            ready = _open_raw(path, {".u16": "uint16", ".u32": "uint32"}.get(path.suffix, dtype), vocab_size)
        if doc_offsets is not None:
            starts = _read_offsets(doc_offsets, len(ready.tokens))
            ready = replace(ready, doc_starts=starts, convention=f"{ready.convention} + {doc_offsets.name}")
    except OSError as error:
        name = error.filename or path
        raise InputError(f"{name} can't be read: {error.strerror or error}") from error
    return ready


def split_after(tokens: npt.NDArray[Any], end_of_document: int) -> npt.NDArray[np.int64]:
    """Where documents end in a piece of tokens: after every end-of-document id.

    >>> split_after(np.array([5, 0, 7, 0]), 0).tolist()
    [2, 4]
    """
    return np.flatnonzero(tokens == end_of_document).astype(np.int64) + 1


def join_ready_tokens(
    files: list[ReadyTokens],
    *,
    vocab_size: int | None,
    end_of_document: int | None,
    folder: Path,
    notes: list[str],
    progress: Progress = silent,
) -> tuple[TokenFile, int]:
    """Check the tokens of all files and put them one after the other.

    Parameters
    ----------
    files : list of ReadyTokens
        One that holds uint16 or uint32 is mapped where it lies; else a nameless copy is made in `folder`.
    vocab_size : int, optional
        Bound of the ids.
    end_of_document : int, optional
        Documents end after each such token, also where the file says where they end.
    notes : list of str
        Gets a sentence where a file is taken for one document.

    Returns
    -------
    corpus : TokenFile
    largest : int
        The largest id.

    Raises
    ------
    InputError
        At an id outside of the vocabulary.
    OutputError
        If the copy can't be written.
    """
    total, done, largest, whole = sum(len(file.tokens) for file in files), 0, 0, 0
    copied = len(files) > 1 or files[0].tokens.dtype not in (np.uint16, np.uint32)
    doc_starts: list[npt.NDArray[np.int64]] = [np.zeros(1, dtype=np.int64)]
    with contextlib.ExitStack() as stack:
        writer = None
        if copied:
            writer = stack.enter_context(TokenWriter(token_dtype(vocab_size or 1 << 31), folder=folder))
        for file in files:
            begin = done
            ends: list[npt.NDArray[np.int64]] = []
            for chunk in file.chunks(vocab_size):
                largest = max(largest, int(chunk.max()))
                if end_of_document is not None:
                    ends.append(split_after(chunk, end_of_document) + done)
                if writer is not None:
                    writer.append(chunk)
                done += len(chunk)
                progress("read the tokens", done, total, done)
            found = np.concatenate([*ends, [done]])
            if file.doc_starts is None:
                whole += len(found) == 1
                doc_starts.append(np.unique(found))
            else:
                known = file.doc_starts[1:] + begin
                inside = np.setdiff1d(found, known)
                if len(inside):
                    notes.append(
                        f"{file.path.name}: {len(inside):,} end-of-document ids ({end_of_document}) stand inside "
                        "documents, which are split there"
                    )
                doc_starts.append(np.sort(np.concatenate([known, inside]), kind="stable"))
        tokens = files[0].tokens if writer is None else writer.finish().tokens
    notes.extend(file.doubt for file in files if file.doubt)
    if whole:
        reason = (
            f"no token is the end-of-document id {end_of_document}"
            if end_of_document is not None
            else "neither doc_offsets nor end_of_document says where documents end"
        )
        notes.append(f"{reason}: {'each file' if whole > 1 else 'the file'} is taken for one document")
    rules = [(len(ends), f"{file.path}, document ") for file, ends in zip(files, doc_starts[1:], strict=True)]
    names = numbered_names(rules, first=0)
    return TokenFile(tokens, np.concatenate(doc_starts), names=names), largest


def _open_npy(path: Path) -> ReadyTokens:
    try:
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise InputError(f"{path} is not a .npy array of tokens: {error}") from error
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise InputError(
            f"{path} holds {tokens.dtype} of shape {tokens.shape}; tokens are one integer array of shape (N,)"
        )
    return ReadyTokens(path, _not_empty(tokens, path), None, f".npy of {tokens.dtype}")


def _open_raw(path: Path, dtype: str, vocab_size: int | None) -> ReadyTokens:
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(12)
    magic, version, count = struct.unpack("<iii", head) if len(head) == 12 else (0, 0, 0)
    if magic in _LLMC_TYPES and version in (1, 7) and size >= _LLMC_HEADER_BYTES:
        kind = np.dtype(_LLMC_TYPES[magic])
        if size != _LLMC_HEADER_BYTES + count * kind.itemsize:
            raise InputError(
                f"{path} is cut short or damaged: its header promises {count:,} tokens "
                f"({_LLMC_HEADER_BYTES + count * kind.itemsize:,} bytes), the file has {size:,} bytes"
            )
        tokens = np.memmap(path, dtype=kind, mode="r", offset=_LLMC_HEADER_BYTES, shape=(count,))
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
    return ReadyTokens(path, np.memmap(path, dtype=kind, mode="r"), None, how, doubt)


_WHY = {
    "uint32": "every second 16-bit number is next to nothing",
    "uint16": "the upper halves of its 32-bit numbers vary as much as the lower ones",
}


def _width_of(path: Path, size: int) -> str | None:
    """What raw tokens look like, judged by samples from all over the file; None where they could be either.

    Ids of 32 bits have upper halves that are the same small number nearly everywhere (V ≤ 2^20, say, gives 0 to 15);
    ids of 16 bits, read in pairs, have two halves of one distribution.
    """
    if size % 4 or size < 64:
        return None
    words = np.memmap(path, dtype="<u2", mode="r").reshape(-1, 2)
    places = np.unique(np.linspace(0, len(words) - 1, min(len(words), 1 << 16)).astype(np.int64))
    low, high = np.array(words[places, 0]), np.array(words[places, 1])
    distinct_low, distinct_high = len(np.unique(low)), len(np.unique(high))
    if int(high.max()) < 64 and distinct_low > 8 and distinct_low > 4 * distinct_high:
        return "uint32"
    if int(np.quantile(high, 0.5)) >= 64 and distinct_high > 8:
        return "uint16"
    return None


def _open_megatron(data: Path, index: Path) -> ReadyTokens:
    """The pair of Megatron-LM (megatron/core/datasets/indexed_dataset.py): lengths and documents beside the
    tokens.

    Header: magic, u64 version, u8 type, u64 sequences S, u64 document boundaries D + 1; then int32 lengths
    (S), int64 byte offsets (S), int64 boundaries in sequences (D + 1), and perhaps int8 modes (S) of
    multimodal data.
    """
    blob = index.read_bytes()
    header = struct.Struct("<9sQBQQ")
    if len(blob) < header.size or blob[:9] != _MEGATRON_MAGIC:
        raise InputError(f"{index} is not a Megatron index: it doesn't begin with MMIDIDX")
    _, version, code, sequences, boundaries = header.unpack_from(blob)
    if version != 1:
        raise InputError(f"{index} is a Megatron index of version {version}; only version 1 is known")
    if code not in _MEGATRON_TYPES:
        raise InputError(f"{index}: its tokens have type code {code}, which is no integer type")
    if len(blob) < header.size + 12 * sequences + 8 * boundaries:
        raise InputError(f"{index} is cut short: {sequences:,} sequences don't fit into {len(blob):,} bytes")
    at = header.size
    lengths = np.frombuffer(blob, "<i4", sequences, at).astype(np.int64)
    offsets = np.frombuffer(blob, "<i8", sequences, at + 4 * sequences)
    documents = np.frombuffer(blob, "<i8", boundaries, at + 12 * sequences)
    kind = np.dtype(_MEGATRON_TYPES[code])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    if not np.array_equal(offsets, starts[:-1] * kind.itemsize):
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
    return ReadyTokens(data, np.memmap(data, dtype=kind, mode="r"), starts[documents], f"Megatron {kind.name}")


def _read_offsets(path: Path, num_tokens: int) -> npt.NDArray[np.int64]:
    """doc_starts (D + 1,) from a file that may leave out the final N."""
    if path.suffix == ".npy":
        try:
            offsets = np.load(path, allow_pickle=False)
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


def _not_empty(tokens: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    if len(tokens) == 0:
        raise InputError(f"{path} is empty")
    return tokens
