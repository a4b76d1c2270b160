"""WebDataset's shards (tar files) → records: files of one name but for what follows its first dot are one sample.

Nothing is unpacked onto the disk: the archive is read as a stream, members that are text, JSON or arrays become fields
of the record, all others are passed over. `a/7.txt` is the field `txt` (and `text`) of sample `a/7`, `7.input_ids.npy`
is `input_ids`; a JSON object gives its own keys, a JSON list of ids (as open_lm writes them) is `json`.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus_teacher.data.documents import ReadLog
from corpus_teacher.data.flat_arrays import npy_head
from corpus_teacher.data.records import one_line
from corpus_teacher.data.shards import Record, read_exactly
from corpus_teacher.data.unpacking import opened
from corpus_teacher.errors import InputError
from corpus_teacher.storage import Place

MOST_BYTES = 1 << 30
"""Of a member that is read, unpacked: a sample is a document, not a corpus."""

_TEXTS = ("txt", "text", "md", "id", "cls", "url")


def read_webdataset(path: Place, fields: Sequence[str] | None, log: ReadLog) -> Iterator[tuple[str, Record]]:
    """The samples of a shard, each with its place; `__key__` is the sample's name.

    Parameters
    ----------
    path : Path or UrlPath
        A .tar, plain or packed as .gz or .zst.
    fields : sequence of str, optional
        Unused: members are small, and what is no text, JSON or array isn't read.
    log : ReadLog

    Raises
    ------
    InputError
        If the archive or a member is damaged, or a member is larger than a gigabyte.
    """
    number, key = 0, None
    record: Record = {}
    for name, data in _members(path, log):
        stem, suffix = _split(name)
        if stem != key:
            if key is not None:
                yield f"{path}, sample {number}", record
            key, record, number = stem, {"__key__": stem}, number + 1
        if data is not None:
            _add(record, suffix, data, f"{path}, sample {number} ({name})")
    if key is not None:
        yield f"{path}, sample {number}", record


def _split(name: str) -> tuple[str, str]:
    """The name of a sample, and the suffix that says what a member is: all from the first dot of the last part on."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return folder + slash + stem, suffix.lower()


def _members(path: Place, log: ReadLog) -> Iterator[tuple[str, bytes | None]]:
    """Names and contents of the files in an archive, in its order; None for what isn't read."""
    with opened(path, log) as raw:
        try:
            with tarfile.open(fileobj=raw, mode="r|") as archive:
                for member in archive:
                    if not member.isreg() or member.name.rpartition("/")[2].startswith(("__", ".")):
                        continue
                    data = None
                    if _is_read(_split(member.name)[1]):
                        if member.size > MOST_BYTES:
                            raise _too_large(f"{path} ({member.name})")
                        file = archive.extractfile(member)
                        data = file.read() if file is not None else b""
                        if len(data) < member.size:
                            raise InputError(f"{path} is cut short: {member.name} is not all there")
                    yield member.name, data
        except tarfile.TarError as error:
            raise InputError(f"{path} can't be read as a tar archive: {one_line(error)}") from error


def _is_read(suffix: str) -> bool:
    last = suffix.removesuffix(".gz").rpartition(".")[2]
    return last in ("json", "npy", *_TEXTS)


def _add(record: Record, suffix: str, data: bytes, place: str) -> None:
    """What a member adds to its sample."""
    if suffix.endswith(".gz"):
        data, suffix = _unpacked(data, place), suffix.removesuffix(".gz")
    name, _, last = suffix.rpartition(".")
    if last == "npy":
        record[name or "npy"] = npy_array(data, place)
    elif last == "json":
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{place} is not JSON: {one_line(error)}") from error
        if isinstance(value, dict) and not name:
            record.update(value)
        record[name or "json"] = value
    else:
        record[suffix] = data
        if suffix in ("txt", "md"):
            record.setdefault("text", data)


def _unpacked(data: bytes, place: str) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            unpacked = read_exactly(io.BufferedReader(file), MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{place} can't be unpacked, it is damaged or cut short: {one_line(error)}") from error
    if len(unpacked) > MOST_BYTES:
        raise _too_large(place)
    return unpacked


def _too_large(place: str) -> InputError:
    return InputError(f"{place} is larger than a gigabyte: a sample is one document; cut it, or leave it out")


def npy_array(data: bytes, place: str) -> npt.NDArray[Any]:
    """The array of a .npy file in memory, its size believed only where that many bytes are there.

    Raises
    ------
    InputError
        If it is no array of plain numbers, or cut short.
    """
    head = npy_head(data)
    if head is None:
        raise InputError(f"{place} is not a .npy array of plain numbers in rows")
    size, there = math.prod(head.shape, start=head.dtype.itemsize), len(data) - head.begin
    if there != size:
        raise InputError(f"{place} is cut short: its array takes {size:,} bytes, {there:,} are there")
    return np.frombuffer(data, head.dtype, offset=head.begin)
