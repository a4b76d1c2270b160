"""DistillKit's columns of compressed logits: read, and written.

Each row of such a data set is a text with two columns beside its `input_ids`, of T byte strings each:

- `bytepacked_indices`: the k token ids of a position, ⌈log2 V⌉ bits each, the most significant bit first, filled up
  with zeros to whole bytes;
- `compressed_logprobs`: the log-probabilities of those tokens, the largest first, as a `ColumnFormat` says: exact ones,
  the coefficients of a curve, quantised residuals, all of it plain or as differences.

Nothing in such a file tells its format: take it from the configuration of the run that wrote it. The raw columns
`token_ids` and `top_values`, lists of numbers, are read too; DistillKit's older columns (`packed_indices`) aren't.

Verified against DistillKit itself where it is installed (no registry holds it; its repository does): each reads the
other's bytes to the same values, bit for bit. Everywhere: against a bit-by-bit reading in plain Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from corpus_teacher.data.records import one_line
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.files import whole_file
from corpus_teacher.neural.distillkit_format import ColumnFormat, pack_bits, unpack_bits
from corpus_teacher.neural.formats import SparseRows, TargetFormat
from corpus_teacher.neural.live import LogitSource, kept_rows

IDS, LOGS, RAW_IDS, RAW_LOGS = "bytepacked_indices", "compressed_logprobs", "token_ids", "top_values"

Array = npt.NDArray[Any]
_MOST_MASS = 1.25
"""Of a position's kept tokens: what rounding to 16 bits, or a fitted curve, may make of 1."""


def to_distillkit(rows: SparseRows, form: ColumnFormat) -> dict[str, list[list[int]]]:
    """The two columns of T positions that keep k tokens each.

    Parameters
    ----------
    rows : SparseRows
        Of "top-k": every position keeps k.
    form : ColumnFormat

    Raises
    ------
    ConfigError
        Positions that keep another number of tokens, or a format that is only read.
    """
    lengths = set(rows.lengths.tolist())
    if lengths != {form.k}:
        raise ConfigError(
            f"DistillKit's columns hold {form.k} tokens a position, these keep {sorted(lengths)}: use top-k"
        )
    logs = rows.probs.cpu().float().clamp_min(torch.finfo(torch.float32).tiny).log().reshape(-1, form.k)
    ids = rows.token_ids.cpu().numpy().reshape(-1, form.k)
    return {LOGS: form.encode(logs).tolist(), IDS: pack_bits(ids, form.id_bits).tolist()}


def from_distillkit(columns: Mapping[str, Any], form: ColumnFormat) -> SparseRows:
    """T positions from DistillKit's columns, packed or raw.

    Parameters
    ----------
    columns : mapping
        `bytepacked_indices` and `compressed_logprobs`, or `token_ids` and `top_values`, each (T, …).
    form : ColumnFormat
        Of raw columns only its vocabulary counts.

    Returns
    -------
    SparseRows
        The most probable first; the tail is what the probabilities leave of 1. Where they sum to more than 1 (rounding)
        they are scaled down.

    Raises
    ------
    InputError
        Missing columns, sizes that the format doesn't explain, ids outside of the vocabulary, or values that are no
        log-probabilities of one distribution (as those of another format are).
    """
    if IDS in columns and LOGS in columns:
        logs = form.decode(_numbers(columns[LOGS], np.uint8, LOGS)).double().numpy()
        packed = _numbers(columns[IDS], np.uint8, IDS)
        if packed.ndim != 2 or packed.shape[1] != form.id_bytes:
            raise InputError(
                f"{IDS} has shape {packed.shape}: {form.k} ids of {form.id_bits} bits take {form.id_bytes} bytes a "
                "position; check k and the vocabulary"
            )
        ids = unpack_bits(packed, form.id_bits, form.k)
    elif RAW_IDS in columns and RAW_LOGS in columns:
        ids = _numbers(columns[RAW_IDS], np.int64, RAW_IDS)
        logs = _numbers(columns[RAW_LOGS], np.float32, RAW_LOGS)
    else:
        raise InputError(
            f"there are the columns {', '.join(sorted(columns))}: give {IDS} and {LOGS}, or {RAW_IDS} and {RAW_LOGS}"
        )
    return rows_from_logs(ids, logs, form.vocab_size)


def rows_from_logs(ids: Array, logs: Array, vocab_size: int, counted: Array | None = None) -> SparseRows:
    """Top-k ids and log-probabilities (Q, k) of anybody's as kept tokens, the most probable first.

    Parameters
    ----------
    counted : ndarray of shape (Q, k), bool, optional
        False for entries that aren't there.

    Raises
    ------
    InputError
        Shapes that differ, ids outside of the vocabulary, or values that are no log-probabilities.
    """
    if ids.shape != logs.shape or ids.ndim != 2:
        raise InputError(f"ids have shape {ids.shape} and log-probabilities {logs.shape}: give both as (positions, k)")
    there = np.ones(ids.shape, bool) if counted is None else counted
    if there.any() and not 0 <= ids[there].min() <= ids[there].max() < vocab_size:
        raise InputError(
            f"ids run from {ids[there].min()} to {ids[there].max()}: the vocabulary has {vocab_size} tokens"
        )
    if bool((logs[there] > 1e-2).any()) or bool(np.isnan(logs[there]).any()):
        raise InputError(
            f"the largest value is {np.nanmax(logs[there])}: log-probabilities are at most 0, these may be logits"
        )
    order = np.argsort(-np.where(there, logs, -np.inf), axis=1, kind="stable")
    ids, logs, there = (np.take_along_axis(part, order, 1) for part in (ids, logs, there))
    probs = np.where(there, np.exp(logs.astype(np.float64)), 0)
    mass = probs.sum(1)
    if bool((mass > _MOST_MASS).any()):
        raise InputError(
            f"the probabilities of a position sum to {mass.max():.3f}: these are no log-probabilities of one "
            "distribution; check the format (DistillKit's delta_encoding, say)"
        )
    probs /= np.maximum(mass, 1)[:, None]
    columns = there.sum(1), ids[there], probs[there].astype(np.float32), np.maximum(1 - mass, 0).astype(np.float32)
    return SparseRows(*(torch.from_numpy(np.ascontiguousarray(column)) for column in columns))


def write_distillkit(
    source: LogitSource,
    windows: Iterable[Mapping[str, Any]],
    path: str | Path,
    *,
    form: ColumnFormat,
) -> int:
    """Write a Parquet file of windows with DistillKit's columns.

    Parameters
    ----------
    source : LogitSource
        A `NeuralTeacher`, or a `CachedTeacher` of hidden states.
    windows : iterable of mappings
        With "input_ids", as `TokenWindows` gives them.
    path : path
        Replaced in one step when it is whole.
    form : ColumnFormat
        Of the source's vocabulary.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    ConfigError, OutputError
    """
    if form.vocab_size != source.vocab_size:
        raise ConfigError(f"the format has {form.vocab_size} tokens and the teacher {source.vocab_size}: give its own")
    path, kept = Path(path), TargetFormat("top-k", k=form.k)
    bytes_column = pa.list_(pa.list_(pa.uint8()))
    schema = pa.schema([("input_ids", pa.list_(pa.uint64())), (LOGS, bytes_column), (IDS, bytes_column)])
    count = 0
    with whole_file(path) as file, pq.ParquetWriter(file, schema) as writer:
        for window in _upto(windows):
            ids = np.asarray(window["input_ids"], np.int64)
            columns = to_distillkit(kept_rows(source, ids[None], kept), form)
            writer.write_table(pa.table({"input_ids": [ids.tolist()], **{n: [c] for n, c in columns.items()}}, schema))
            count += 1
    return count


def read_distillkit(path: str | Path, form: ColumnFormat) -> Iterator[tuple[npt.NDArray[np.int64], SparseRows]]:
    """Windows and what is kept of them, row by row of a Parquet file.

    Yields
    ------
    input_ids : ndarray of shape (T,), int64
    rows : SparseRows
        Of T positions; see `from_distillkit`, whose errors it raises, and InputError for a file that is no Parquet.
    """
    try:
        file = pq.ParquetFile(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path} can't be read as Parquet: {one_line(error)}") from error
    with file:
        batches = file.iter_batches(batch_size=16)
        while True:
            try:
                batch = next(batches, None)
                rows = [] if batch is None else batch.to_pylist()
            except (OSError, ValueError, pa.ArrowException) as error:  # damage shows where it is read
                raise InputError(f"{path} can't be read as Parquet: {one_line(error)}") from error
            if batch is None:
                return
            for row in rows:
                if "input_ids" not in row:
                    raise InputError(f"{path} has no column input_ids: targets without their text can't be used")
                yield _numbers(row["input_ids"], np.int64, "input_ids"), from_distillkit(row, form)


def _numbers(values: Any, dtype: Any, name: str) -> Array:
    """The numbers of a column, of which none may be missing or too large for the type."""
    try:
        return np.asarray(values, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} is no array of {np.dtype(dtype)} ({one_line(error)}): check the format") from error


def _upto(windows: Any) -> Iterator[Mapping[str, Any]]:
    """A map-style dataset's rows; those of other iterables."""
    if hasattr(windows, "__getitem__") and hasattr(windows, "__len__"):
        return (windows[number] for number in range(len(windows)))
    return iter(windows)
