"""The items of benchmarks: JSON lines and Parquet, some named fields of each record as texts of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus_teacher.data.documents import UNPACK_RATIO, ReadLog, check_unpack_ratio
from corpus_teacher.data.records import one_line, value_of
from corpus_teacher.data.sources import find_sources
from corpus_teacher.data.unpacking import lines_of, most_line_bytes, opened, too_long
from corpus_teacher.errors import InputError


@dataclass(frozen=True)
class BenchmarkItem:
    """One item: what it is called, and its texts, a field's each."""

    name: str
    texts: tuple[str, ...]


def read_benchmark(
    specs: Sequence[str],
    fields: Sequence[str] = (),
    *,
    name_field: str | None = None,
    unpack_ratio: float = UNPACK_RATIO,
) -> Iterator[BenchmarkItem]:
    """Items of benchmarks, in order.

    Parameters
    ----------
    specs : sequence of str
        Files, folders or globs of JSON lines (also packed) and Parquet.
    fields : sequence of str
        The fields whose texts count; "a.b" is the field b inside of a. Lists and objects give all texts in them. By
        default all texts of a record.
    name_field : str, optional
        The field that names an item; by default its file and line do.
    unpack_ratio : float
        Of packed files; see `ReadOptions`.

    Raises
    ------
    InputError
        A file of another kind, a record that is not an object, a field that there isn't, an item without text.
    """
    check_unpack_ratio(unpack_ratio)
    for source in find_sources(list(specs)).sources:
        if source.kind not in ("jsonl", "parquet"):
            raise InputError(f"{source.name} is not JSON lines or Parquet: give a benchmark as one of these")
        path = Path(source.name)
        rows = _json_rows(path, unpack_ratio) if source.kind == "jsonl" else _parquet_rows(path)
        for origin, record in rows:
            name = origin if name_field is None else str(value_of(record, name_field, origin))
            values = [value_of(record, field, origin) for field in fields] if fields else list(record.values())
            texts = tuple(text for value in values for text in _texts(value) if text.strip())
            if not texts:
                raise InputError(f"{origin} holds no text in {', '.join(fields) or 'any field'}: name other fields")
            yield BenchmarkItem(name, texts)


def _texts(value: Any) -> Iterator[str]:
    """All texts inside of a value, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)


def _json_rows(path: Path, unpack_ratio: float) -> Iterator[tuple[str, dict[str, Any]]]:
    most = most_line_bytes()
    with opened(path, ReadLog(unpack_ratio=unpack_ratio)) as file:
        for number, line in enumerate(lines_of(file, most), start=1):
            origin = f"{path}, line {number}"
            if line is None:
                raise InputError(f"{too_long(origin, most)}; cut the item, or use a machine with more")
            if line.isspace():
                continue
            try:
                record = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                raise InputError(f"{origin} is not JSON ({one_line(error)})") from error
            if not isinstance(record, dict):
                raise InputError(f"{origin} holds a JSON {type(record).__name__}, not an object with named fields")
            yield origin, record


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=256):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", record
    except (pa.ArrowException, UnicodeDecodeError) as error:  # names of columns and values are text
        raise InputError(f"{path} can't be read as Parquet ({one_line(error)})") from error
