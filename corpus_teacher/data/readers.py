"""Readers: one format each, from a file to a stream of documents.

A reader is a function `(path, options, log) -> iterator of Document`. It holds one document (or one part of a
long one) at a time, reports the bytes of the file that it has used up, and knows the place of each document
for the sentence that a user needs when it is broken: the file, the line or row, and the way out.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import zstandard

from corpus_teacher.data.documents import PART_CHARS, Document, ReadLog, last_cut
from corpus_teacher.errors import EncodingError, InputError

OnErrors = Literal["fail", "replace", "skip"]

_BLOCK_BYTES = 1 << 20
_PARQUET_ROWS = 256


@dataclass(frozen=True)
class ReadOptions:
    """How to read.

    Parameters
    ----------
    errors : {"fail", "replace", "skip"}
        A document that is broken: stop; put U+FFFD in the place of bytes that are no UTF-8 (a broken line of
        JSON still stops); leave the document out.
    text_field : str
        The key or column that holds the text.
    split : str, optional
        Of a data set that has several.
    """

    errors: OnErrors = "fail"
    text_field: str = "text"
    split: str | None = None


def read_text(path: Path, options: ReadOptions, log: ReadLog) -> Iterator[Document]:
    """A plain text file: one document, in parts where it is long; byte for byte, no newline is touched."""
    begin = log.done
    if options.errors == "skip":
        try:
            for _ in _decoded(path, "strict", ReadLog()):
                pass
        except EncodingError as error:
            log.note(str(error), skipped=True)
            log.done = begin + path.stat().st_size
            return
    held = ""
    for text in _decoded(path, "replace" if options.errors == "replace" else "strict", log):
        held += text
        if len(held) >= PART_CHARS:
            cut = last_cut(held)
            if cut:
                yield Document(held[:cut], str(path), ends=False)
                held = held[cut:]
    yield Document(held, str(path))


def read_json_lines(path: Path, options: ReadOptions, log: ReadLog) -> Iterator[Document]:
    """One JSON object a line; empty lines are passed over."""
    with opened(path, log) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            origin = f"{path}, line {number}"
            record = _record(line, origin, options, log)
            if record is not None:
                yield from document_of(record, origin, options, log)


def read_parquet(path: Path, options: ReadOptions, log: ReadLog) -> Iterator[Document]:
    """A text column of a Parquet file, a few hundred rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    size, begin = path.stat().st_size, log.done
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if options.text_field not in names:
                raise missing_field(str(path), options.text_field, names)
            kind = file.schema_arrow.field(options.text_field).type
            if pa.types.is_dictionary(kind):
                kind = kind.value_type
            if not any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, _is_view)):
                raise InputError(f"{path}: the column {options.text_field!r} holds {kind}, not text")
            rows, number = max(1, file.metadata.num_rows), 0
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=[options.text_field]):
                for value in batch.column(0).cast(pa.large_binary()).to_pylist():
                    number += 1
                    origin = f"{path}, row {number}"
                    yield from document_of({options.text_field: value}, origin, options, log)
                log.done = begin + size * number / rows
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} can't be read as Parquet: {one_line(error)}") from error


@contextmanager
def opened(path: Path, log: ReadLog) -> Iterator[BinaryIO]:
    """A file, unpacked where its name ends in .gz, .zst or .zstd, as a buffered stream of bytes.

    Raises
    ------
    InputError
        If it can't be read, or is not what its name says, or is cut short (also later, while it is read).
    """
    try:
        with open(path, "rb") as raw:
            counted = io.BufferedReader(_CountedFile(raw, log), _BLOCK_BYTES)
            if path.suffix == ".gz":
                with gzip.GzipFile(fileobj=counted) as file:
                    yield io.BufferedReader(file, _BLOCK_BYTES)
            elif path.suffix in (".zst", ".zstd"):
                yield io.BufferedReader(_ZstdFile(counted), _BLOCK_BYTES)
            else:
                yield counted
    except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise InputError(f"{path} can't be unpacked, it is damaged or cut short: {one_line(error)}") from error
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from error


class _CountedFile(io.RawIOBase):
    """A raw file that adds what was read to the log."""

    def __init__(self, file: BinaryIO, log: ReadLog) -> None:
        self._file = file
        self._log = log

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._log.done += len(data)
        return len(data)


class _ZstdFile(io.RawIOBase):
    """All frames of a zstd file. Unlike the library's reader it notices a file that ends inside a frame."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._started = False
        self._packed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._packed:
                self._packed = self._file.read(1 << 17)
                if not self._packed:
                    if self._started:
                        raise EOFError("it ends inside a frame")
                    return 0
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._started = True
            self._ready = memoryview(self._frame.decompress(self._packed))
            self._packed = b""
            if self._frame.eof:
                self._packed = self._frame.unused_data
                self._started = False
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


def _decoded(path: Path, errors: str, log: ReadLog) -> Iterator[str]:
    """The text of a file, block by block; invalid UTF-8 is named with its line, or replaced and counted."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    lines_before = 1
    replaced = False
    with opened(path, log) as file:
        pending = b""
        while True:
            block = file.read(_BLOCK_BYTES)
            data = pending + block
            try:
                text = decoder.decode(data, final=not block)
                pending = decoder.getstate()[0]
                decoder.reset()
            except UnicodeDecodeError as error:
                if errors == "strict":
                    line = lines_before + data[: error.start].count(b"\n")
                    raise invalid_utf8(f"{path}, line {line}", error) from error
                if not replaced:
                    line = lines_before + data[: error.start].count(b"\n")
                    log.note(f"{path}, line {line}: invalid UTF-8", skipped=False)
                    replaced = True
                keep = _incomplete_tail(data) if block else 0
                text = data[: len(data) - keep].decode("utf-8", "replace")
                pending = data[len(data) - keep :]
                decoder.reset()
            lines_before += text.count("\n")
            if text:
                yield text
            if not block:
                return


def _incomplete_tail(data: bytes) -> int:
    """How many bytes at the end begin a character that the next block may complete."""
    for keep in range(1, min(4, len(data)) + 1):
        lead = data[-keep]
        if lead >= 0xC0:
            needed = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return keep if keep < needed else 0
        if lead < 0x80:
            return 0
    return 0


def _record(line: bytes, origin: str, options: ReadOptions, log: ReadLog) -> dict[str, Any] | None:
    """The object of a line of JSON, or None for a line that is left out."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        if options.errors == "fail":
            raise invalid_utf8(origin, error) from error
        log.note(f"{origin}: invalid UTF-8", skipped=options.errors == "skip")
        if options.errors == "skip":
            return None
        text = line.decode(errors="replace")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        problem = InputError(
            f"{origin} is not JSON ({one_line(error)}); mend it, or pass --errors skip to leave such lines out"
        )
        if options.errors == "skip":
            log.note(str(problem), skipped=True)
            return None
        raise problem from error
    if not isinstance(record, dict):
        problem = InputError(
            f"{origin} holds a JSON {type(record).__name__}, not an object with a key {options.text_field!r}"
        )
        if options.errors == "skip":
            log.note(str(problem), skipped=True)
            return None
        raise problem
    return record


def document_of(record: Any, origin: str, options: ReadOptions, log: ReadLog) -> Iterator[Document]:
    """The document of a record: its text field, checked to be text that UTF-8 can hold."""
    try:
        if options.text_field not in record:
            raise missing_field(origin, options.text_field, list(record))
        value = record[options.text_field]
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError as error:
                if options.errors != "replace":
                    raise invalid_utf8(origin, error) from error
                log.note(f"{origin}: invalid UTF-8", skipped=False)
                value = value.decode(errors="replace")
        if not isinstance(value, str):
            raise InputError(
                f"{origin}: {options.text_field!r} holds {_kind(value)}, not text; pass --errors skip to "
                "leave "
                "such documents out"
            )
        try:
            value.encode()
        except UnicodeEncodeError as error:  # JSON may hold half of a surrogate pair: "\ud800"
            if options.errors != "replace":
                raise EncodingError(
                    f"{origin}: the text holds half of a surrogate pair, which UTF-8 can't; pass --errors "
                    "replace "
                    "or --errors skip"
                ) from error
            log.note(f"{origin}: half of a surrogate pair", skipped=False)
            value = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    except InputError as error:
        if options.errors != "skip":
            raise
        log.note(str(error), skipped=True)
        return
    yield Document(value, origin)


def invalid_utf8(origin: str, error: UnicodeDecodeError) -> EncodingError:
    """The sentence about bytes that are no text."""
    shown = error.object[error.start : error.start + 1].hex()
    return EncodingError(
        f"{origin}: invalid UTF-8 (byte 0x{shown}, {error.reason}); pass --errors replace to put U+FFFD "
        "there, "
        "or --errors skip to leave such documents out"
    )


def missing_field(origin: str, field: str, present: list[str]) -> InputError:
    """The sentence about a record without the text field."""
    names = ", ".join(map(repr, sorted(map(str, present))[:8])) or "none"
    return InputError(f"{origin}: there is no field {field!r}; pass --text-field with one of: {names}")


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def _is_view(kind: Any) -> bool:
    import pyarrow as pa

    test = getattr(pa.types, "is_string_view", None)
    return bool(test and test(kind))


def one_line(error: BaseException) -> str:
    """The first line of a library's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
