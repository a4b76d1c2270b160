"""Readers: one format each, from a file to a stream of documents.

A reader is a function `(path, options, log) -> iterator of Document`. It holds one document (or one part of a
long one) at a time, reports the bytes of the file that it has used up, and knows the place of each document
for the sentence that a user needs when it is broken: the file, the line or row, and the way out.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from corpus_teacher.data.documents import PART_CHARS, Document, ReadLog, best_cut
from corpus_teacher.data.records import (
    OnErrors,
    ReadOptions,
    document_of,
    invalid_utf8,
    missing_field,
    one_line,
)
from corpus_teacher.data.unpacking import lines_of, most_line_bytes, opened, too_long
from corpus_teacher.errors import EncodingError, InputError
from corpus_teacher.storage import Place

__all__ = ["OnErrors", "ReadOptions", "json_records", "opened", "read_json_lines", "read_parquet", "read_text"]

_BLOCK_BYTES = 1 << 20
_PARQUET_ROWS = 256


def read_text(path: Place, options: ReadOptions, log: ReadLog) -> Iterator[Document]:
    """A plain text file: one document, in parts where it is long; no newline is touched.

    A byte order mark in front is no part of the text.
    """
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
        while len(held) >= PART_CHARS:
            cut = best_cut(held, PART_CHARS)
            yield Document(held[:cut], str(path), ends=False)
            held = held[cut:]
    yield Document(held, str(path))


def read_json_lines(path: Place, options: ReadOptions, log: ReadLog) -> Iterator[Document]:
    """One JSON object a line; empty lines are passed over, and a byte order mark in front."""
    for origin, record in json_records(path, options, log):
        yield from document_of(record, origin, options, log)


def json_records(path: Place, options: ReadOptions, log: ReadLog) -> Iterator[tuple[str, dict[str, Any]]]:
    """The object of each line, with its place; see `read_json_lines`."""
    most = most_line_bytes()
    with opened(path, log) as file:
        for number, line in enumerate(lines_of(file, most), start=1):
            if line is None:
                _too_long(f"{path}, line {number}", most, options, log)
                continue
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
                wide = _wide_encoding(line)
                if wide and options.errors == "fail":
                    raise wide_text(path, wide)
                if wide:
                    log.note(str(wide_text(path, wide)), skipped=True)
                    return
            if line.isspace():
                continue
            origin = f"{path}, line {number}"
            record = _record(line, origin, options, log)
            if record is not None:
                yield origin, record


@contextmanager
def parquet_faults(path: Place) -> Iterator[None]:
    """Name the file in what goes wrong while Parquet is read; names of columns are text too."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read as Parquet: {one_line(error)}") from error


def read_parquet(path: Place, options: ReadOptions, log: ReadLog) -> Iterator[Document]:
    """A text column of a Parquet file, a few hundred rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    size, begin = path.stat().st_size, log.done
    with parquet_faults(path), path.open("rb") as raw, pq.ParquetFile(raw) as file:
        schema = file.schema_arrow
        kinds = [_column_type(schema, field, path) for field in options.fields]
        text = kinds[0].value_type if pa.types.is_dictionary(kinds[0]) else kinds[0]
        is_text = any(test(text) for test in (pa.types.is_string, pa.types.is_large_string, _is_view))
        if not is_text and options.render is None:
            hint = "; ask for chat to make text of messages" if pa.types.is_list(text) else ""
            raise InputError(f"{path}: the column {options.text_field!r} holds {kinds[0]}, not text{hint}")
        in_bytes = is_text and options.text_field in schema.names  # so that broken UTF-8 can be named with its row
        rows, number = max(1, file.metadata.num_rows), 0
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=options.fields):
            if in_bytes:
                place = batch.schema.names.index(options.text_field)
                column = batch.column(place).cast(pa.large_binary())
                batch = batch.set_column(place, options.text_field, column)
            try:
                records = batch.to_pylist()
            except UnicodeDecodeError as error:
                where = f"{path}, rows {number + 1} to {number + batch.num_rows}"
                if options.errors != "skip":
                    raise invalid_utf8(where, error) from error
                log.note(str(invalid_utf8(where, error)), skipped=True)
                records = []
            for offset, record in enumerate(records, start=1):
                yield from document_of(record, f"{path}, row {number + offset}", options, log)
            number += batch.num_rows
            log.done = begin + size * number / rows


def _column_type(schema: Any, field: str, path: Place) -> Any:
    """The type of a column, or of one inside a column of structs ("a.b")."""
    import pyarrow as pa

    if field in schema.names:
        return schema.field(field).type
    first, *others = field.split(".")
    if first not in schema.names:
        raise missing_field(str(path), field, schema.names)
    kind = schema.field(first).type
    for name in others:
        present = [kind.field(place).name for place in range(kind.num_fields)] if pa.types.is_struct(kind) else []
        if name not in present:
            raise missing_field(str(path), field, schema.names)
        kind = kind.field(name).type
    return kind


def _decoded(path: Place, errors: str, log: ReadLog) -> Iterator[str]:
    """The text of a file, block by block; invalid UTF-8 is named with its line, or replaced and counted."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    lines_before = 1
    replaced = False
    begins = True
    with opened(path, log) as file:
        pending = b""
        while True:
            block = file.read(_BLOCK_BYTES)
            data = pending + block
            if begins and len(data) >= 2:
                wide = _wide_encoding(data)
                if wide:
                    raise wide_text(path, wide)
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
                yield text.removeprefix("\ufeff") if begins else text
                begins = False
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


def _too_long(origin: str, most: int, options: ReadOptions, log: ReadLog) -> None:
    """Refuse a line that the free memory can't hold, or leave it out."""
    problem = InputError(
        f"{too_long(origin, most)}; cut the document, set errors to skip to leave such lines out, or use a machine "
        "with more"
    )
    if options.errors == "fail":
        raise problem
    log.note(str(problem), skipped=True)


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
            f"{origin} is not JSON ({one_line(error)}); mend it, or set errors to skip to leave such lines out"
        )
        if options.errors != "fail":
            log.note(str(problem), skipped=True)
            return None
        raise problem from error
    if not isinstance(record, dict):
        problem = InputError(
            f"{origin} holds a JSON {type(record).__name__}, not an object with a key {options.text_field!r}"
        )
        if options.errors != "fail":
            log.note(str(problem), skipped=True)
            return None
        raise problem
    return record


def _wide_encoding(head: bytes) -> str | None:
    """The name of the encoding of a text that isn't UTF-8 but UTF-16 or UTF-32, judged by its first bytes."""
    for mark, name in (
        (codecs.BOM_UTF32_LE, "UTF-32"),
        (codecs.BOM_UTF32_BE, "UTF-32"),
        (codecs.BOM_UTF16_LE, "UTF-16"),
        (codecs.BOM_UTF16_BE, "UTF-16"),
    ):
        if head.startswith(mark):
            return name
    sample = head[:4096]
    zeros = sample[0::2].count(0), sample[1::2].count(0)
    if len(sample) >= 16 and min(zeros) == 0 and max(zeros) > len(sample) // 3:
        return "UTF-16"  # without a mark: every second byte of most letters is 0
    return None


def wide_text(path: Place, encoding: str) -> EncodingError:
    """The sentence about a text in another encoding."""
    return EncodingError(
        f"{path} is {encoding}, not UTF-8; convert it first, for example with iconv -f {encoding} -t UTF-8"
    )


def _is_view(kind: Any) -> bool:
    import pyarrow as pa

    test = getattr(pa.types, "is_string_view", None)
    return bool(test and test(kind))
