"""Files as streams of bytes, unpacked where they are packed, and never more of them than was agreed to.

A few kilobytes of gzip or zstd can unpack to gigabytes. So what comes out is counted: a file that gives more than
`unpack_ratio` times what was read of it is refused, once that is more than 256 MiB. Blocks are unpacked a few kilobytes
at a time, so that memory stays bounded whatever they hold. Lines are bounded too, by the memory that there is.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import zstandard

from corpus_teacher.data.documents import ReadLog
from corpus_teacher.data.memory import free_memory_bytes
from corpus_teacher.data.records import one_line
from corpus_teacher.errors import InputError
from corpus_teacher.storage import Place

FREE_BYTES = 1 << 28
"""That any file may unpack to, whatever its ratio."""

_BLOCK_BYTES = 1 << 20
_ZSTD_STEP_BYTES = 1 << 11  # four bytes of zstd can stand for 128 KiB, so a step gives 64 MiB at most
_COPIES = 10  # of a line in memory at once: bytes, text (up to four times as long), the values parsed from it


@contextmanager
def opened(path: Place, log: ReadLog, *, packed: str | None = None) -> Iterator[BinaryIO]:
    """A file, unpacked where its name ends in .gz, .zst or .zstd, as a buffered stream of bytes.

    Parameters
    ----------
    path : Path or UrlPath
    log : ReadLog
        Advances by the bytes read; its `unpack_ratio` bounds what comes out of a packed file.
    packed : str, optional
        The suffix that counts, where the name doesn't end in it.

    Raises
    ------
    InputError
        If it can't be read, or is not what its name says, is cut short, or unpacks to too much (also later, while it is
        read).
    """
    try:
        with path.open("rb") as raw:
            source = _CountedFile(raw, log)
            counted = io.BufferedReader(source, _BLOCK_BYTES)
            suffix = packed or path.suffix
            if suffix == ".gz":
                with gzip.GzipFile(fileobj=counted) as file:
                    yield io.BufferedReader(_BoundedFile(file, source, path, log), _BLOCK_BYTES)
            elif suffix in (".zst", ".zstd"):
                yield io.BufferedReader(_BoundedFile(_ZstdFile(counted), source, path, log), _BLOCK_BYTES)
            else:
                yield counted
    except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise InputError(f"{path} can't be unpacked, it is damaged or cut short: {one_line(error)}") from error
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from error


def most_line_bytes() -> int:
    """Bytes of a line that can be read and parsed in the memory that is free."""
    return max(_BLOCK_BYTES, free_memory_bytes() // _COPIES)


def too_long(origin: str, most: int) -> str:
    """What is wrong with a longer line."""
    return f"{origin} is longer than {most / 1e6:,.0f} MB, a tenth of the free memory, and a line is parsed as a whole"


def lines_of(file: BinaryIO, most: int) -> Iterator[bytes | None]:
    """The lines of a file; None for one of more than `most` bytes, whose rest is passed over.

    >>> list(lines_of(io.BytesIO(b"one\\nthe second\\nthree"), 5))
    [b'one\\n', None, b'three']
    """
    while line := file.readline(most + 1):
        if len(line) <= most:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(_BLOCK_BYTES)
        yield None


class _CountedFile(io.RawIOBase):
    """A raw file that counts what was read, and adds it to the log."""

    def __init__(self, file: BinaryIO, log: ReadLog) -> None:
        self._file = file
        self._log = log
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        self._log.done += len(data)
        return len(data)


class _BoundedFile(io.RawIOBase):
    """What an unpacked file holds, until it is too much for what was read."""

    def __init__(self, file: Any, source: _CountedFile, path: Place, log: ReadLog) -> None:
        self._file, self._source, self._path = file, source, path
        self._ratio = log.unpack_ratio
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = int(self._file.readinto(buffer))
        self._count += size
        if self._count > FREE_BYTES and self._count > self._ratio * self._source.count:
            raise InputError(
                f"{self._path} unpacks to more than {self._ratio:g} times its size ({self._source.count:,} bytes of it "
                f"gave {self._count:,}): leave it out, or raise unpack_ratio (inf: no limit) where that is meant"
            )
        return size


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
                self._packed = self._file.read(_ZSTD_STEP_BYTES)
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
