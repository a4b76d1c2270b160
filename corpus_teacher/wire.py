"""Batches and targets as bytes, for `/v1/targets`: Arrow's IPC stream, or safetensors.

A batch is named arrays of any shape and a few settings; targets are the flat arrays of `SoftTargets`. As JSON a target
of 64 pairs is some 1,500 bytes and a millisecond of parsing; here it is 540 bytes that are mapped, not parsed. Token
ids travel as int32. What isn't an array (settings, the teacher's description) is one JSON object beside the arrays.

Cost: one copy of the arrays on either side.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus_teacher.errors import InputError, is_panic

Array = npt.NDArray[Any]

ARROW, SAFETENSORS = "application/vnd.apache.arrow.stream", "application/vnd.safetensors"
"""Content types of the two forms."""

FORMS = {"arrow": ARROW, "safetensors": SAFETENSORS}

PAIRS = ("token_ids", "probs")
"""Arrays with an entry for each explicit pair; those of `POSITIONS` have one for each position."""
POSITIONS = ("rest", "match_len", "context_count", "cut_mass", "valid")
_TYPES = {
    "offsets": np.int64,
    "token_ids": np.int32,
    "probs": np.float32,
    "rest": np.float32,
    "match_len": np.int32,
    "context_count": np.int64,
    "cut_mass": np.float32,
    "valid": np.bool_,
}
_ABOUT = "corpus_teacher"


def pack_targets(arrays: Mapping[str, Array], about: Mapping[str, Any], content_type: str) -> bytes:
    """Targets as bytes.

    Parameters
    ----------
    arrays : mapping
        offsets, `PAIRS` and `POSITIONS` as in `SoftTargets`; "base", of shape (V,), if it is to travel; and evidence,
        arrays of shape (Q,) under names of their own.
    about : mapping
        What JSON can hold.
    content_type : str
        `ARROW` or `SAFETENSORS`.
    """
    typed = {name: np.ascontiguousarray(array, _TYPES.get(name)) for name, array in arrays.items()}
    if content_type == SAFETENSORS:
        return _to_safetensors(typed, about)
    import pyarrow as pa

    offsets = pa.array(typed.pop("offsets"))
    base = typed.pop("base", None)
    columns = {name: pa.LargeListArray.from_arrays(offsets, pa.array(typed.pop(name))) for name in PAIRS}
    columns |= {name: pa.array(array) for name, array in typed.items()}
    metadata = {_ABOUT: json.dumps(dict(about))}
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    beside = metadata if base is None else {**metadata, "base": base.astype("<f4").tobytes()}
    with pa.ipc.new_stream(sink, batch.schema.with_metadata(beside)) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def unpack_targets(content: bytes, content_type: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """The inverse of `pack_targets`: arrays, as views of the bytes where that can be, and what is said beside them.

    Raises
    ------
    InputError
        Bytes of another form.
    """
    if content_type == SAFETENSORS:
        return _from_safetensors(content)
    import pyarrow as pa

    with _reading("stream of Arrow's IPC"):
        table = _table_of(content).combine_chunks()
        metadata = table.schema.metadata or {}
        about = _object(metadata.get(_ABOUT.encode(), b"{}"))
        arrays: dict[str, Array] = {}
        for name in table.column_names:
            column = table.column(name)
            chunk = column.chunk(0) if column.num_chunks else pa.array([], column.type)
            if pa.types.is_large_list(chunk.type):
                arrays["offsets"] = chunk.offsets.to_numpy()
                arrays[name] = chunk.values.to_numpy()
            else:
                arrays[name] = chunk.to_numpy(zero_copy_only=False)
        if b"base" in metadata:
            arrays["base"] = np.frombuffer(metadata[b"base"], "<f4")
    _check_numbers(arrays)
    return arrays, about


def pack_batch(arrays: Mapping[str, Array], settings: Mapping[str, Any], content_type: str = SAFETENSORS) -> bytes:
    """A batch as bytes: arrays by name, of any shape, and settings. Arrow holds each flat, with its shape beside it."""
    if content_type == SAFETENSORS:
        return _to_safetensors(arrays, settings)
    import pyarrow as pa

    shapes = {name: list(array.shape) for name, array in arrays.items()}
    columns = {
        name: pa.array([np.ascontiguousarray(array).reshape(-1)], pa.large_list(pa.from_numpy_dtype(array.dtype)))
        for name, array in arrays.items()
    }
    batch = pa.record_batch(columns)
    schema = batch.schema.with_metadata({_ABOUT: json.dumps({**settings, "shapes": shapes})})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def unpack_batch(content: bytes, content_type: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """The inverse of `pack_batch`; of Arrow also a table with one row of token ids in each row, as others make them.

    Raises
    ------
    InputError
    """
    if content_type == SAFETENSORS:
        return _from_safetensors(content)
    import pyarrow as pa

    with _reading("stream of Arrow's IPC"):
        table = _table_of(content)
        settings = _object((table.schema.metadata or {}).get(_ABOUT.encode(), b"{}"))
        shapes = settings.pop("shapes", None)
        if shapes is None:
            return {name: _rows_of(table.column(name).to_pylist(), name) for name in table.column_names}, settings
        arrays = {}
        for name in table.column_names:
            values = table.column(name).combine_chunks()
            flat = (values.chunk(0) if isinstance(values, pa.ChunkedArray) else values).values.to_numpy(
                zero_copy_only=False
            )
            arrays[name] = flat.reshape(shapes[name])
    _check_numbers(arrays)
    return arrays, settings


def rows_as_array(rows: list[Any], fill: int = -1) -> Array:
    """Rows of different lengths as one array, filled up on the right; negative ids are padding."""
    length = max((len(row) for row in rows), default=0)
    made = np.full((len(rows), length), fill, np.int64)
    for number, row in enumerate(rows):
        made[number, : len(row)] = row
    return made


def _rows_of(values: list[Any], name: str) -> Array:
    try:
        if values and isinstance(values[0], list):
            return rows_as_array(values)
        return np.array(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"the column {name!r} is no array of numbers: {_line(error)}") from error


def _to_safetensors(arrays: Mapping[str, Array], about: Mapping[str, Any]) -> bytes:
    from safetensors.numpy import save

    flat = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return save(flat, metadata={_ABOUT: json.dumps(dict(about))})


def _from_safetensors(content: bytes) -> tuple[dict[str, Array], dict[str, Any]]:
    from safetensors.numpy import load

    with _reading("file of safetensors"):
        arrays = load(content)
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size]).get("__metadata__", {})
        about = _object(metadata.get(_ABOUT, "{}"))
    _check_numbers(arrays)
    return arrays, about


def _table_of(content: bytes) -> Any:
    """The table of an IPC stream; what its buffers say is checked, since reading trusts it: offsets are addresses."""
    import pyarrow as pa

    with pa.ipc.open_stream(content) as reader:
        table = reader.read_all()
    table.validate(full=True)
    return table


def _object(text: str | bytes) -> dict[str, Any]:
    said = json.loads(text)
    if not isinstance(said, dict):
        raise ValueError(f"what is said beside the arrays is a JSON {type(said).__name__}, not an object")
    return said


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Whatever a library says of foreign bytes, in one sentence: their errors are of many kinds."""
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        raise InputError(f"the bytes are no {what}, or not one of ours: {_line(error)}") from error


def _check_numbers(arrays: Mapping[str, Array]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise InputError(f"{name!r} holds {array.dtype}, not numbers")


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
