"""Names of documents: where each comes from, and what else is known of it; compact, and read a block at a time.

Naively: a list of D names and mappings. Here: 64 documents to a block, one line of JSON each (`"name"`, or
`["name", {"field": value}]`), packed by zlib; neighbours have much of their names in common, so a name takes some 5
to 20 bytes. One look-up unpacks one block. Documents that are merely numbered take no space: a rule says how.

The file: the magic `CINAMES1`; five unsigned 64-bit integers (little-endian): D, the number of blocks, where the
blocks' directory begins, where the rules begin and their length; the blocks; the directory, blocks + 1 offsets; the
rules, JSON: [[number of documents, what stands before the number, the first number], …], empty where there are blocks.
"""

from __future__ import annotations

import json
import mmap
import struct
import tempfile
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from corpus_index.errors import CorpusError, IndexFormatError, QueryError

__all__ = ["DocumentNames", "NamedDocument", "NamesWriter", "names_between", "numbered_names", "pack_names"]

NAMES_FILE = "documents.names"
_MAGIC = b"CINAMES1"
_HEADER = struct.Struct("<8s5Q")
_BLOCK = 64
_MOST_KEPT = 16  # blocks in memory
_LEVEL = 6


class NamedDocument(NamedTuple):
    """What a document is called, and more about it.

    Attributes
    ----------
    name : str
    fields : dict
        What the builder was asked to keep.
    """

    name: str
    fields: dict[str, Any]


class NamesWriter:
    """Packs names of documents, one after the other, into a nameless temporary file; a context manager.

    Parameters
    ----------
    folder : Path, optional
        Where that file lies; the system's place for temporary files by default.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._file.write(bytes(_HEADER.size))
        self._offsets = [_HEADER.size]
        self._lines: list[str] = []
        self.count = 0

    def __enter__(self) -> NamesWriter:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def add(self, name: str, fields: Mapping[str, Any] | None = None) -> None:
        """The next document's name, and fields that JSON can hold."""
        self._lines.append(json.dumps([name, dict(fields)] if fields else name, ensure_ascii=False))
        self.count += 1
        if len(self._lines) == _BLOCK:
            self._pack()

    def _pack(self) -> None:
        packed = zlib.compress("\n".join(self._lines).encode("utf-8", "replace"), _LEVEL)
        self._file.write(packed)
        self._offsets.append(self._offsets[-1] + len(packed))
        self._lines = []

    def finish(self) -> mmap.mmap:
        """The file's content, as a map that outlives the writer."""
        if self._lines:
            self._pack()
        directory = self._offsets[-1]
        blocks = len(self._offsets) - 1
        self._file.write(struct.pack(f"<{blocks + 1}Q", *self._offsets))
        rules = b"[]"
        self._file.write(rules)
        self._file.seek(0)
        place = directory + 8 * (blocks + 1)
        self._file.write(_HEADER.pack(_MAGIC, self.count, blocks, directory, place, len(rules)))
        self._file.flush()
        made = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self.close()
        return made

    def close(self) -> None:
        """Let go of the file."""
        with suppress(OSError):  # what is still in the buffer may find no space
            self._file.close()


def pack_names(names: Iterable[str]) -> mmap.mmap:
    """Names as the content of a file of names."""
    with NamesWriter() as writer:
        for name in names:
            if not isinstance(name, str):
                raise CorpusError(f"document_names holds {name!r}: a document's name is a text")
            writer.add(name)
        return writer.finish()


def numbered_names(rules: Sequence[tuple[int, str]], first: int = 1) -> bytes:
    """Names by rule: for each (number of documents, prefix) the prefix and a number, counted from `first`.

    >>> [DocumentNames(numbered_names([(2, "a.bin, document "), (1, "b.bin, document ")]))[k].name for k in (1, 2)]
    ['a.bin, document 2', 'b.bin, document 1']
    """
    return _ruled([(count, prefix, first) for count, prefix in rules])


def names_between(names: DocumentNames, first: int, end: int) -> bytes | mmap.mmap:
    """The names of documents first … end − 1 as the content of a file of names.

    >>> part = names_between(DocumentNames(numbered_names([(2, "a "), (2, "b ")])), 1, 3)
    >>> [one.name for one in DocumentNames(part)]
    ['a 2', 'b 1']
    """
    rules = names.rules_between(first, end)
    if rules is not None:
        return _ruled(rules)
    with NamesWriter() as writer:
        for number in range(first, end):
            writer.add(*names[number])
        return writer.finish()


def _ruled(rules: Sequence[tuple[int, str, int]]) -> bytes:
    """The content of a file of names that are rules alone: number of documents, prefix, first number."""
    text = json.dumps([list(rule) for rule in rules]).encode()
    directory = struct.pack("<Q", _HEADER.size)
    total = sum(count for count, _, _ in rules)
    header = _HEADER.pack(_MAGIC, total, 0, _HEADER.size, _HEADER.size + len(directory), len(text))
    return header + directory + text


class DocumentNames:
    """The names in a file's content, by number of document; nothing is read before it is asked for.

    Parameters
    ----------
    content : bytes, mmap or memoryview
    place : str
        What messages call the file.

    Raises
    ------
    IndexFormatError
        If it is damaged, here or when a name is read.

    Examples
    --------
    >>> names = DocumentNames(pack_names(["a.txt", "b.txt"]))
    >>> len(names), names[1].name
    (2, 'b.txt')
    """

    def __init__(self, content: bytes | mmap.mmap | memoryview, place: str = NAMES_FILE) -> None:
        self._content = memoryview(content)
        self._place = place
        self._kept: dict[int, list[NamedDocument]] = {}
        size = len(self._content)
        if size < _HEADER.size:
            raise self._damaged("it is cut short")
        magic, self._count, self._blocks, self._directory, rules, length = _HEADER.unpack_from(self._content)
        if magic != _MAGIC or rules != self._directory + 8 * (self._blocks + 1) or rules + length != size:
            raise self._damaged("its parts don't fit together")
        try:
            self._rules = [
                (int(count), str(prefix), int(first))
                for count, prefix, first in json.loads(self._content[rules:].tobytes())
            ]
        except (ValueError, TypeError, RecursionError) as error:
            raise self._damaged("its rules can't be read") from error
        self._ends = list(accumulate(count for count, _, _ in self._rules))
        held = self._ends[-1] if self._rules else min(self._count, self._blocks * _BLOCK)
        if held != self._count or (self._blocks and (self._count - 1) // _BLOCK + 1 != self._blocks):
            raise self._damaged(f"it names {held:,} documents, not {self._count:,}")

    def __len__(self) -> int:
        return int(self._count)

    def __getitem__(self, number: int) -> NamedDocument:
        if not 0 <= number < self._count:
            raise QueryError(f"there is no document {number:,}: documents are 0 .. {self._count - 1:,}")
        if self._rules:
            rule = bisect_right(self._ends, number)
            count, prefix, first = self._rules[rule]
            return NamedDocument(f"{prefix}{number - (self._ends[rule] - count) + first}", {})
        return self._block(number // _BLOCK)[number % _BLOCK]

    def __iter__(self) -> Iterator[NamedDocument]:
        return (self[number] for number in range(self._count))

    def rules_between(self, first: int, end: int) -> list[tuple[int, str, int]] | None:
        """Of documents that are merely numbered, the rules of first … end − 1; None where names are kept."""
        if not self._rules:
            return None
        found = []
        for (count, prefix, number), stop in zip(self._rules, self._ends, strict=True):
            begin = stop - count
            lo, hi = max(first, begin), min(end, stop)
            if lo < hi:
                found.append((hi - lo, prefix, number + lo - begin))
        return found

    def _block(self, number: int) -> list[NamedDocument]:
        block = self._kept.get(number)
        if block is None:
            begin, end = struct.unpack_from("<2Q", self._content, self._directory + 8 * number)
            wanted = min(_BLOCK, self._count - number * _BLOCK)
            if not _HEADER.size <= begin <= end <= self._directory:
                raise self._damaged(f"block {number:,} lies outside of it")
            try:
                lines = zlib.decompress(self._content[begin:end]).decode().split("\n")
                block = [_named(json.loads(line)) for line in lines]
            except (zlib.error, ValueError, TypeError, RecursionError) as error:
                raise self._damaged(f"block {number:,} can't be unpacked") from error
            if len(block) != wanted:
                raise self._damaged(f"block {number:,} names {len(block)} documents, not {wanted}")
            if len(self._kept) >= _MOST_KEPT:
                self._kept = {}
            self._kept[number] = block
        return block

    def _damaged(self, what: str) -> IndexFormatError:
        return IndexFormatError(f"{self._place} is no file of document names: {what}; build the index again")


def _named(line: Any) -> NamedDocument:
    name, fields = line if isinstance(line, list) else (line, {})
    if not isinstance(name, str) or not isinstance(fields, dict):
        raise ValueError("neither a name nor a name with fields")
    return NamedDocument(name, fields)
