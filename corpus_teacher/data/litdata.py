"""Chunks of litdata (`optimize`) → records; the index.json beside them says what a sample is made of.

A chunk: the number of samples and their offsets, the samples. A sample: the sizes of its leaves, 32 bits each, and the
leaves; with a TokensLoader, one leaf without a size. Samples that are dicts of plain values have no bytes there: newer
versions write them as an Arrow file at the chunk's end.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from corpus_teacher.data.documents import ReadLog
from corpus_teacher.data.records import one_line
from corpus_teacher.data.shards import INDEX_FILE, Record, Shard, integers, read_index, split_columns
from corpus_teacher.errors import InputError
from corpus_teacher.storage import Place

_TORCH_TYPES = {11: "uint8", 12: "int8", 13: "int16", 14: "int16", 15: "int32", 16: "int32", 17: "int64", 18: "int64",
                20: "uint16"}  # fmt: skip
_NUMPY_TYPES = dict(enumerate(("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")))
_NUMBERS = {"int": "int64", "float": "float64", "bool": "?"}
_TEXTS = ("str", "string", "text", "bytes")
_ARROW_MAGIC = b"LDARW01\0"
_ARROW_ROWS = 256


def read_litdata(path: Place, fields: Sequence[str] | None, log: ReadLog) -> Iterator[tuple[str, Record]]:
    """The samples of a chunk, each with its place; a sample that is one array has it as `tokens`, one text as `text`.

    Parameters
    ----------
    path : Path or UrlPath
        A chunk, beside its index.json.
    fields : sequence of str, optional
        Leaves that are read; all that can be by default.
    log : ReadLog

    Raises
    ------
    InputError
        If the chunk or its index is damaged, encrypted, or packed by samples; if a leaf that is asked for isn't read.
    """
    config, packed = _config(path)
    formats = config["data_format"]
    names = _leaf_names(config, path)
    wanted = None if fields is None else {*fields, *(field.partition(".")[0] for field in fields)}
    with Shard(path, log, packed=packed) as shard:
        if len(shard.offsets) > 1 and shard.offsets[0] == shard.offsets[-1] and packed == ".":
            yield from _arrow_records(path, len(shard.offsets) - 1, log)
            return
        flat = config.get("item_loader") == "TokensLoader"
        for place, sample in shard.samples():
            leaves = [sample] if flat else split_columns(sample, [None] * len(formats), place)
            record: Record = {}
            for name, kind, data in zip(names, formats, leaves, strict=True):
                if wanted is None or name in wanted:
                    record[name] = _decoded(kind, data, f"{place}, leaf {name!r}", strict=wanted is not None)
                else:
                    record[name] = None
            yield place, record


def _config(path: Place) -> tuple[dict[str, Any], str]:
    """What the index.json beside a chunk says of all chunks, and how they are packed ("." for not at all)."""
    place = path.parent / INDEX_FILE
    config = read_index(place).get("config")
    formats = config.get("data_format") if isinstance(config, dict) else None
    if not isinstance(formats, list) or not formats or not all(isinstance(one, str) for one in formats):
        raise InputError(f"{place} is no index of litdata's chunks: it doesn't say what a sample is made of")
    assert isinstance(config, dict)
    if config.get("encryption"):
        raise InputError(f"{place}: the chunks are encrypted, which can't be read")
    compression = config.get("compression")
    if compression is None:
        return config, "."
    if str(compression).partition(":")[0] != "zstd" or config.get("compression_level") not in (None, "chunk"):
        raise InputError(
            f"{place}: the chunks are packed with {compression!r}, each {config.get('compression_level')}; only whole "
            "chunks of zstd can be read: optimize anew without compression"
        )
    return config, ".zstd"


def _leaf_names(config: dict[str, Any], path: Place) -> list[str]:
    """What the leaves of a sample are called: keys of dicts, numbers in lists, "a.b" for inner ones."""
    formats = config["data_format"]
    try:
        spec = json.loads(config.get("data_spec") or "[1, null]")[1]
        names = [".".join(name) for name in _names_below(spec)] if spec else [""]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise InputError(f"{path.parent / INDEX_FILE}: its data_spec can't be read ({one_line(error)})") from error
    if len(names) != len(formats):
        raise InputError(f"{path.parent / INDEX_FILE}: it names {len(names)} leaves, but has {len(formats)} formats")
    return [name or ("text" if formats[0] in _TEXTS else "tokens") for name in names]


def _names_below(spec: Any) -> Iterator[tuple[str, ...]]:
    children = spec["children_spec"]
    if not children:
        yield ()
        return
    context = spec.get("context")
    keys = json.loads(context) if isinstance(context, str) else context
    named = keys if isinstance(keys, list) and len(keys) == len(children) else range(len(children))
    for key, child in zip(named, children, strict=True):
        for rest in _names_below(child):
            yield (str(key), *rest)


def _decoded(kind: str, data: bytes, place: str, *, strict: bool) -> Any:
    """The value of a leaf; None for one that isn't read, unless it is asked for."""
    name, _, code = kind.partition(":")
    if name in _TEXTS:
        return data
    if name in _NUMBERS:
        numbers = integers(data, _NUMBERS[name], place)
        if len(numbers) != 1:
            raise InputError(f"{place} is damaged: it should be one {name}, and has {len(data)} bytes")
        return numbers[0].item()
    types = _TORCH_TYPES if name.endswith("tensor") else _NUMPY_TYPES
    if name in ("no_header_tensor", "no_header_numpy") and code.isdecimal() and int(code) in types:
        return integers(data, types[int(code)], place)
    if name in ("tensor", "numpy") and len(data) >= 8:
        number, axes = struct.unpack(">2I" if name == "tensor" else "<2I", data[:8])
        if number in types and axes < 64:
            return integers(data[8 + 4 * axes :], types[number], place)
    if strict:
        raise InputError(f"{place} is of the format {kind!r}, which isn't read")
    return None


def _arrow_records(path: Place, count: int, log: ReadLog) -> Iterator[tuple[str, Record]]:
    """The samples of a chunk that stand in an Arrow file at its end."""
    import pyarrow as pa

    damaged = f"{path} is damaged: its samples have no bytes, and no Arrow file follows them"
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 12))
        tail = file.read(12)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != _ARROW_MAGIC or not 0 < length <= size - 12:
            raise InputError(damaged)
        file.seek(size - 12 - length)
        content = file.read(length)
    number = 0
    try:
        stored = content.startswith(b"ARROW1")
        reader = pa.ipc.open_file(content) if stored else pa.ipc.open_stream(content)
        batches = (reader.get_batch(k) for k in range(reader.num_record_batches)) if stored else iter(reader)
        for batch in batches:
            for begin in range(0, batch.num_rows, _ARROW_ROWS):
                for record in batch.slice(begin, _ARROW_ROWS).to_pylist():
                    number += 1
                    yield f"{path}, sample {number}", record
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged: its Arrow file can't be read ({one_line(error)})") from error
    if number != count:
        raise InputError(f"{path} is damaged: it has {number:,} samples in Arrow, and tells of {count:,}")
