"""Rows that hold token ids, not text: tables, JSON lines, data sets and shards of samples → pieces of tokens.

A row's field decides. The text field, if there is one, is text where it holds text; where it holds integers it is
tokens. Where rows have no field `text` and no other was named, `input_ids`, `tokens`, `token_ids` (and `npy`, `json` in
tar archives) are looked for. Each row is a document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus_teacher.data.documents import ReadLog
from corpus_teacher.data.hf_datasets import load_hub, load_saved
from corpus_teacher.data.readers import json_records, parquet_faults
from corpus_teacher.data.records import ReadOptions, one_line, value_of
from corpus_teacher.data.shard_readers import SHARD_READERS
from corpus_teacher.data.sources import Source
from corpus_teacher.data.token_streams import Piece, TokenRows, gathered
from corpus_teacher.errors import InputError
from corpus_teacher.storage import Place, place_of

TOKEN_FIELDS = ("input_ids", "tokens", "token_ids", "npy", "json")
"""Where ids are looked for in rows without text."""

_ARROW_ROWS = 256
_Records = Iterator[tuple[str, Mapping[str, Any]]]


def token_field(source: Source, options: ReadOptions) -> str | None:
    """The field of a source's rows that holds token ids; None where they are text, or what they are can't be told."""
    try:
        first = _first(source, options)
    except InputError:  # what reads the text says what is wrong
        return None
    if first is None:
        return None
    try:
        return options.text_field if holds_ids(value_of(first, options.text_field, "")) else None
    except InputError:
        wanted = TOKEN_FIELDS if options.text_field == "text" else ()
        return next((name for name in wanted if name in first and holds_ids(first[name], name)), None)


def holds_ids(value: Any, name: str = "") -> bool:
    """Whether a value is a list or an array of integers; bytes count where the field's name speaks of tokens.

    >>> holds_ids([1, 2]), holds_ids("text"), holds_ids([0.5]), holds_ids(b"1234", "tokens")
    (True, False, False, True)
    """
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "iu"
    if isinstance(value, bytes):
        return name in TOKEN_FIELDS
    return isinstance(value, list) and all(type(one) is int for one in value) and (len(value) > 0 or bool(name))


def open_token_rows(source: Source, field: str, options: ReadOptions, *, dtype: str = "auto") -> TokenRows:
    """The rows of a source as a stream of tokens.

    Parameters
    ----------
    source : Source
    field : str
        The one that holds ids.
    options : ReadOptions
    dtype : {"auto", "uint16", "uint32"}
        Of a field of bytes; "auto": int64 where every upper half is 0, else uint32 or uint16 by the look of the first.
    """

    alone = replace(options, text_field=field, name_field=None, keep_fields=(), render=None)

    def read() -> Iterable[Piece]:
        if source.kind == "parquet":
            return _arrow_pieces(_parquet_columns(place_of(source.name), field), dtype, options)
        if source.kind == "dataset":
            return _arrow_pieces(_dataset_columns(source.name, alone), dtype, options)
        records = _records(source, alone, (field,))
        return gathered(_documents(records, field, dtype, options))

    return TokenRows(source.name, read, f"{source.kind}, token ids in {field!r}")


def _records(source: Source, options: ReadOptions, fields: Sequence[str] | None) -> _Records:
    """The rows of any source, each with its place."""
    path, log = place_of(source.name), ReadLog(unpack_ratio=options.unpack_ratio)
    if source.kind in SHARD_READERS:
        yield from SHARD_READERS[source.kind](path, fields, log)
    elif source.kind == "jsonl":
        yield from json_records(path, options, log)
    else:
        rows = iter(load_hub(source.name, options, log, select=fields is not None))
        number = 0
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except Exception as error:  # of any kind: the library reads dozens of formats
                raise InputError(f"{source.name} can't be read after row {number}: {one_line(error)}") from error
            number += 1
            yield f"{source.name}, row {number}", row


def _first(source: Source, options: ReadOptions) -> Mapping[str, Any] | None:
    """The first row, or a row of the same types."""
    if source.kind == "parquet":
        return _types_of(_parquet_schema(place_of(source.name)))
    if source.kind == "dataset":
        return _types_of(load_saved(source.name, options, ReadLog(), select=False).features.arrow_schema)
    if source.kind in (*SHARD_READERS, "jsonl", "hub"):
        return next((record for _, record in _records(source, options, None)), None)
    return None


def _documents(records: _Records, field: str, dtype: str, options: ReadOptions) -> Iterator[npt.NDArray[Any]]:
    """The ids of each row."""
    for place, record in records:
        value = value_of(record, field, place)
        if isinstance(value, bytes):
            if dtype == "auto" and value:
                dtype = _type_of_bytes(value)
            kind = np.dtype("u1" if dtype == "auto" else dtype).newbyteorder("<")
            if len(value) % kind.itemsize:
                raise InputError(
                    f"{place}: {len(value):,} bytes in {field!r} are no whole number of {dtype}: set the dtype"
                )
            value = np.frombuffer(value, kind)
        elif not holds_ids(value, field):
            problem = f"{place}: {field!r} holds {_shown(value)}, not a list of token ids"
            if options.errors != "skip":
                raise InputError(f"{problem}; such rows can be left out: set errors to skip")
            continue
        ids = np.asarray(value, None if len(value) else np.int64).reshape(-1)
        if ids.dtype.kind not in "iu":  # numbers of more than 64 bits
            raise InputError(f"{place}: {field!r} holds a number that is no token id")
        yield ids.astype(np.int64) if ids.dtype == np.uint64 else ids  # one too large is then negative


def _type_of_bytes(value: bytes) -> str:
    """The integers of a row of bytes, by the look of the first row: int64 is what llm-foundry writes."""
    for dtype, halves in (("int64", "<u4"), ("uint32", "<u2")):
        if len(value) % np.dtype(dtype).itemsize == 0:
            upper = np.frombuffer(value, halves)[1::2]
            if int(upper.max()) < (1 if dtype == "int64" else 64):
                return dtype
    return "uint16"


def _shown(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


# Arrow


def _parquet_schema(path: Place) -> Any:
    import pyarrow.parquet as pq

    with parquet_faults(path), path.open("rb") as file:
        schema = pq.read_schema(file)
        _ = schema.names  # decoded here, where the file can be named
        return schema


def _types_of(schema: Any) -> dict[str, Any]:
    """A row as a table's schema has it: an empty array of integers for lists of them, a text for all else."""
    import pyarrow as pa

    row: dict[str, Any] = {}
    for field in schema:
        kind = field.type
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if lists and pa.types.is_integer(kind.value_type):
            row[field.name] = np.zeros(0, np.int64)
        else:
            row[field.name] = b"" if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else ""
    return row


def _parquet_columns(path: Place, field: str) -> Iterator[tuple[str, int, Any]]:
    """A column of a Parquet file, some hundred rows at a time: the file's name, rows before, the column."""
    import pyarrow.parquet as pq

    with parquet_faults(path), path.open("rb") as raw, pq.ParquetFile(raw) as file:
        number = 0
        for batch in file.iter_batches(batch_size=_ARROW_ROWS, columns=[field]):
            yield str(path), number, batch.column(0)
            number += batch.num_rows


def _dataset_columns(name: str, options: ReadOptions) -> Iterator[tuple[str, int, Any]]:
    rows = load_saved(name, options, ReadLog()).with_format("arrow")
    number = 0
    for table in rows.iter(batch_size=_ARROW_ROWS):
        yield name, number, table.column(options.text_field)
        number += table.num_rows


def _arrow_pieces(columns: Iterator[tuple[str, int, Any]], dtype: str, options: ReadOptions) -> Iterator[Piece]:
    """Columns of lists as tokens and ends of documents, without a Python object per row."""
    import pyarrow as pa

    for name, before, column in columns:
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        for chunk in chunks:
            if not hasattr(chunk, "flatten") or not pa.types.is_integer(getattr(chunk.type, "value_type", None)):
                records = ((f"{name}, row {before + k}", {"": row.as_py()}) for k, row in enumerate(chunk, start=1))
                yield from gathered(_documents(records, "", dtype, options))
            else:
                yield _list_piece(chunk, name, before, options)
            before += len(chunk)


def _list_piece(chunk: Any, name: str, before: int, options: ReadOptions) -> Piece:
    """A chunk of lists of integers: their numbers one after the other, and where lists end."""
    import pyarrow.compute as pc

    if chunk.null_count:
        place = chunk.is_null().to_pylist().index(True) + 1
        if options.errors != "skip":
            raise InputError(
                f"{name}, row {before + place}: there is null, not a list of token ids; such rows can be left out: "
                "set errors to skip"
            )
        chunk = chunk.drop_null()
    values = chunk.flatten()
    lengths = pc.list_value_length(chunk).to_numpy(zero_copy_only=False).astype(np.int64)
    ends = np.cumsum(lengths)
    if values.null_count:
        place = int(np.searchsorted(ends, values.is_null().to_pylist().index(True), side="right")) + 1
        raise InputError(f"{name}, row {before + place}: there is a null among the token ids")
    return values.to_numpy(zero_copy_only=False), ends
