"""DistillKit's columns of compressed logits: read, and written.

Each row of such a data set is a text with two columns beside its `input_ids`, of T byte strings each:

- `bytepacked_indices`: the k token ids of a position, ⌈log2 V⌉ bits each, the most significant bit first, filled up
  with zeros to whole bytes;
- `compressed_logprobs`: the log-probabilities of those tokens, the largest first, `exact` of them as they are
  (bfloat16, float16 or float32, little-endian).

DistillKit can replace the log-probabilities beyond the exact ones by the coefficients of a fitted polynomial and by
quantised residuals. That is lossy, depends on details of its fit, and is refused here in both directions: what we write
has all k exact, and what we read must have. The raw columns `token_ids` and `top_values`, lists of numbers, are read
too.

Verified against: a bit-by-bit reading in plain Python, and the sizes that DistillKit's documentation gives
(⌈k · ⌈log2 V⌉ / 8⌉ bytes of ids). Not verified against DistillKit itself, which no registry holds.
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

from corpus_teacher.errors import ConfigError, InputError, OutputError
from corpus_teacher.neural.coding import narrow_floats, wide_floats
from corpus_teacher.neural.formats import SparseRows, TargetFormat
from corpus_teacher.neural.live import LogitSource, kept_rows

IDS, LOGS, RAW_IDS, RAW_LOGS = "bytepacked_indices", "compressed_logprobs", "token_ids", "top_values"

Array = npt.NDArray[Any]


def pack_ids(token_ids: Array, vocab_size: int) -> npt.NDArray[np.uint8]:
    """Ids in ⌈log2 V⌉ bits each, most significant first.

    Parameters
    ----------
    token_ids : ndarray of shape (Q, k), integer
    vocab_size : int
        V.

    Returns
    -------
    ndarray of shape (Q, ⌈k · ⌈log2 V⌉ / 8⌉), uint8

    Examples
    --------
    >>> pack_ids(np.array([[5, 1]]), 8).tolist()  # 101 001, and two zeros
    [[164]]
    """
    bits = bits_of(vocab_size)
    shifts = np.arange(bits - 1, -1, -1)
    each = (token_ids.astype(np.int64)[..., None] >> shifts) & 1
    return np.packbits(each.astype(np.uint8).reshape(token_ids.shape[0], -1), axis=1)


def unpack_ids(packed: npt.NDArray[np.uint8], vocab_size: int, k: int) -> npt.NDArray[np.int64]:
    """The inverse of `pack_ids`, (Q, k).

    Raises
    ------
    InputError
        Another number of bytes than k ids take.
    """
    bits = bits_of(vocab_size)
    if packed.ndim != 2 or packed.shape[1] != (k * bits + 7) // 8:
        raise InputError(
            f"{IDS} has shape {packed.shape}: {k} ids of {bits} bits take {(k * bits + 7) // 8} bytes a position; "
            "check k and the vocabulary"
        )
    each = np.unpackbits(packed, axis=1, count=k * bits).reshape(len(packed), k, bits).astype(np.int64)
    return np.asarray(each @ (1 << np.arange(bits - 1, -1, -1)), np.int64)


def bits_of(vocab_size: int) -> int:
    """⌈log2 V⌉, at least 1."""
    return max(1, (vocab_size - 1).bit_length())


def to_distillkit(rows: SparseRows, vocab_size: int, precision: str = "bf16") -> dict[str, list[list[int]]]:
    """The two columns of T positions that keep the same number of tokens.

    Parameters
    ----------
    rows : SparseRows
        Of "top-k": every position keeps k.
    vocab_size : int
    precision : {"bf16", "fp16", "fp32"}

    Raises
    ------
    ConfigError
        Positions that keep different numbers of tokens, or another precision.
    """
    _check_precision(precision)
    lengths = set(rows.lengths.tolist())
    if len(lengths) != 1:
        raise ConfigError(f"DistillKit's columns hold one k for all positions, these keep {sorted(lengths)}: use top-k")
    k = lengths.pop()
    logs = rows.probs.cpu().float().clamp_min(torch.finfo(torch.float32).tiny).log().numpy()
    values = narrow_floats(logs, precision).reshape(-1, k)
    return {
        LOGS: np.ascontiguousarray(values).view(np.uint8).tolist(),
        IDS: pack_ids(rows.token_ids.cpu().numpy().reshape(-1, k), vocab_size).tolist(),
    }


def from_distillkit(columns: Mapping[str, Any], vocab_size: int, k: int, precision: str = "bf16") -> SparseRows:
    """T positions from DistillKit's columns, packed or raw.

    Parameters
    ----------
    columns : mapping
        `bytepacked_indices` and `compressed_logprobs`, or `token_ids` and `top_values`, each (T, …).
    vocab_size : int
    k : int
        Tokens a position.
    precision : {"bf16", "fp16", "fp32"}
        Of the packed values.

    Returns
    -------
    SparseRows
        The most probable first; the tail is what the probabilities leave of 1. Where they sum to more than 1 (rounding)
        they are scaled down.

    Raises
    ------
    InputError
        Missing columns, sizes that k doesn't explain (a polynomial or residuals, say), ids outside of the vocabulary,
        or values that are no log-probabilities.
    """
    _check_precision(precision)
    if IDS in columns and LOGS in columns:
        packed = np.asarray(columns[LOGS], np.uint8)
        width = 4 if precision == "fp32" else 2
        if packed.ndim != 2 or packed.shape[1] != k * width:
            raise InputError(
                f"{LOGS} has shape {packed.shape}: {k} exact values of {precision} take {k * width} bytes a "
                "position; polynomial terms and residual bins aren't read, so capture with all k exact"
            )
        ids = unpack_ids(np.asarray(columns[IDS], np.uint8), vocab_size, k)
        logs = wide_floats(np.ascontiguousarray(packed).reshape(-1), precision).reshape(-1, k)
    elif RAW_IDS in columns and RAW_LOGS in columns:
        ids = np.asarray(columns[RAW_IDS], np.int64)
        logs = np.asarray(columns[RAW_LOGS], np.float32)
    else:
        raise InputError(
            f"there are the columns {', '.join(sorted(columns))}: give {IDS} and {LOGS}, or {RAW_IDS} and {RAW_LOGS}"
        )
    return rows_from_logs(ids, logs, vocab_size)


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
    probs /= np.maximum(mass, 1)[:, None]
    columns = there.sum(1), ids[there], probs[there].astype(np.float32), np.maximum(1 - mass, 0).astype(np.float32)
    return SparseRows(*(torch.from_numpy(np.ascontiguousarray(column)) for column in columns))


def write_distillkit(
    source: LogitSource,
    windows: Iterable[Mapping[str, Any]],
    path: str | Path,
    *,
    k: int = 64,
    precision: str = "bf16",
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
    k, precision
        As in `to_distillkit`.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    ConfigError, OutputError
    """
    _check_precision(precision)
    path, kept = Path(path), TargetFormat("top-k", k=k)
    bytes_column = pa.list_(pa.list_(pa.uint8()))
    schema = pa.schema([("input_ids", pa.list_(pa.int64())), (LOGS, bytes_column), (IDS, bytes_column)])
    partial, count = path.with_name(f"{path.name}.partial"), 0
    try:
        with pq.ParquetWriter(partial, schema) as writer:
            for window in _upto(windows):
                ids = np.asarray(window["input_ids"], np.int64)
                columns = to_distillkit(kept_rows(source, ids[None], kept), source.vocab_size, precision)
                writer.write_table(
                    pa.table({"input_ids": [ids.tolist()], **{n: [c] for n, c in columns.items()}}, schema)
                )
                count += 1
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{path} can't be written ({error.strerror or error}): write elsewhere") from error
    return count


def read_distillkit(
    path: str | Path, vocab_size: int, k: int, precision: str = "bf16"
) -> Iterator[tuple[npt.NDArray[np.int64], SparseRows]]:
    """Windows and what is kept of them, row by row of a Parquet file.

    Yields
    ------
    input_ids : ndarray of shape (T,), int64
    rows : SparseRows
        Of T positions; see `from_distillkit`, whose errors it raises, and InputError for a file that is no Parquet.
    """
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} can't be read as Parquet: {str(error).splitlines()[0]}") from error
    with file:
        for batch in file.iter_batches(batch_size=16):
            for row in batch.to_pylist():
                if "input_ids" not in row:
                    raise InputError(f"{path} has no column input_ids: targets without their text can't be used")
                yield np.asarray(row["input_ids"], np.int64), from_distillkit(row, vocab_size, k, precision)


def _upto(windows: Any) -> Iterator[Mapping[str, Any]]:
    """A map-style dataset's rows; those of other iterables."""
    if hasattr(windows, "__getitem__") and hasattr(windows, "__len__"):
        return (windows[number] for number in range(len(windows)))
    return iter(windows)


def _check_precision(precision: str) -> None:
    if precision not in ("bf16", "fp16", "fp32"):
        raise ConfigError(f"precision is {precision!r}: DistillKit's values are bf16, fp16 or fp32")
