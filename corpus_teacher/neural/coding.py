"""One window of kept targets, or of hidden states, as bytes and back.

A record holds the columns of T positions one after the other, little-endian, nothing between them:

| column | what | kinds |
|---|---|---|
| tail | float16 (fp32: float32) (T,): mass beyond the kept tokens, never rounded to 0 | top-k, top-p |
| length | uint8 or uint16 (T,): kept tokens | top-p, sample, systematic |
| scale | float16 (T,): step of the 8-bit codes | precision int8 (hidden: float32) |
| token | uint16 (entries,) where V ≤ 65,536, else 3 bytes, else 4 | all but hidden |
| value | (entries,) or (T, H), see below | all |

| precision | a probability | a hidden state |
|---|---|---|
| fp32 | itself | itself |
| fp16 | its logarithm: at most 1 part in a thousand off to p = 0.02, 2 to 3.4e-4, 4 to 1.2e-7, 8 to 1.3e-14 | itself |
| bf16 | itself: at most 4 parts in a thousand off at any size | itself |
| int8 | its logarithm under the position's largest, in 255 equal steps | in 127 steps of the position's largest |

Counts of draws are uint8 (n ≤ 255) or uint16. Probabilities are read back scaled so that they and the tail sum to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from corpus_teacher.errors import CacheError
from corpus_teacher.neural.formats import SparseRows, TargetFormat

_LOG_STEPS = 255
_HIDDEN_STEPS = 127
_DEEPEST = 25.0  # nats under the largest that 8 bits reach: e^-25 is what float32 sums lose anyway
_LEAST = float(np.finfo(np.float32).tiny)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RecordCodec:
    """How a cache writes the windows of one format.

    Parameters
    ----------
    kept : TargetFormat
    vocab_size : int
        V.
    length : int
        T.
    hidden_size : int
        H, of hidden states.
    """

    kept: TargetFormat
    vocab_size: int
    length: int
    hidden_size: int = 0

    @property
    def most(self) -> int:
        """The most tokens that a position may keep."""
        kept = self.kept
        return min(self.vocab_size, kept.draws) if kept.is_drawn else kept.k

    @property
    def value_bytes(self) -> int:
        """Bytes of a stored float."""
        return 4 if self.kept.precision == "fp32" else 2

    @property
    def tail_type(self) -> str:
        """Of the mass beyond the kept tokens."""
        return "<f4" if self.kept.precision == "fp32" else "<f2"

    def encode_sparse(self, rows: SparseRows) -> bytes:
        """The record of T positions."""
        lengths = rows.lengths.cpu().numpy()
        columns: list[Array] = []
        if not self.kept.is_drawn:
            tail = rows.tail.cpu().numpy()
            least = np.finfo(self.tail_type).smallest_subnormal  # a tail that is there stays there
            columns.append(np.where(tail > 0, np.maximum(tail, least), 0).astype(self.tail_type))
        if self.kept.kind != "top-k":
            columns.append(lengths.astype(_count_type(self.most)))
        tokens = encode_tokens(rows.token_ids.cpu().numpy(), self.vocab_size)
        probs = rows.probs.cpu().float().numpy()
        if self.kept.is_drawn:
            columns += [tokens, np.rint(probs * self.kept.draws).astype(_count_type(self.kept.draws))]
        elif self.kept.precision == "int8":
            scale, codes = _encode_logs(probs, lengths)
            columns += [scale, tokens, codes]
        else:
            values = np.log(np.maximum(probs, _LEAST)) if self.kept.precision == "fp16" else probs
            columns += [tokens, narrow_floats(values, self.kept.precision)]
        return b"".join(column.tobytes() for column in columns)

    def decode_sparse(self, record: Array) -> SparseRows:
        """T positions from the bytes of their record.

        Raises
        ------
        CacheError
            A record of another format.
        """
        read = _Reader(record)
        if self.kept.is_drawn:
            tail = np.zeros(self.length, np.float32)
        else:
            tail = read.take(self.tail_type, self.length).astype(np.float32)
        if self.kept.kind == "top-k":
            lengths = np.full(self.length, self.kept.k, np.int64)
        else:
            lengths = read.take(_count_type(self.most), self.length).astype(np.int64)
        entries = int(lengths.sum())
        scale = read.take("<f2", self.length) if not self.kept.is_drawn and self.kept.precision == "int8" else None
        tokens = decode_tokens(read, entries, self.vocab_size)
        if int(lengths.max(initial=0)) > self.most or int(tokens.max(initial=0)) >= self.vocab_size:
            raise _foreign()
        if self.kept.is_drawn:
            probs = read.take(_count_type(self.kept.draws), entries).astype(np.float32) / np.float32(self.kept.draws)
        else:
            probs = self._probabilities(read, lengths, scale)
            position = np.repeat(np.arange(self.length), lengths)
            mass = np.bincount(position, probs, self.length)
            probs = (probs * ((1 - tail) / np.maximum(mass, _LEAST))[position]).astype(np.float32)
        read.finish()
        return SparseRows(*(torch.from_numpy(column) for column in (lengths, tokens, probs, tail)))

    def _probabilities(self, read: _Reader, lengths: Array, scale: Array | None) -> Array:
        """Probabilities of a record, up to a factor a position."""
        entries = int(lengths.sum())
        if scale is not None:
            steps = read.take("u1", entries).astype(np.float32)
            return np.exp(-steps * np.repeat(scale.astype(np.float32), lengths))
        values = wide_floats(read.take("u1", entries * self.value_bytes), self.kept.precision)
        return np.exp(values) if self.kept.precision == "fp16" else values

    def encode_hidden(self, hidden: Tensor) -> bytes:
        """The record of (T, H) hidden states."""
        values = hidden.cpu().float().numpy()
        if self.kept.precision != "int8":
            return narrow_floats(values, self.kept.precision).tobytes()
        scale = np.maximum(np.abs(values).max(1) / _HIDDEN_STEPS, _LEAST).astype("<f4")
        return scale.tobytes() + np.rint(values / scale[:, None]).astype("i1").tobytes()

    def decode_hidden(self, record: Array) -> Tensor:
        """(T, H) float32 from the bytes of their record; CacheError as `decode_sparse`."""
        read, size = _Reader(record), self.length * self.hidden_size
        if self.kept.precision == "int8":
            scale = read.take("<f4", self.length)
            values = read.take("i1", size).reshape(self.length, -1).astype(np.float32) * scale[:, None]
        else:
            values = wide_floats(read.take("u1", size * self.value_bytes), self.kept.precision).reshape(self.length, -1)
        read.finish()
        return torch.from_numpy(np.ascontiguousarray(values))


class _Reader:
    """Takes typed columns off the front of a record."""

    def __init__(self, record: Array) -> None:
        self.record, self.at = record, 0

    def take(self, dtype: str, count: int) -> Array:
        kind = np.dtype(dtype)
        end = self.at + count * kind.itemsize
        if end > len(self.record):
            raise _foreign()
        column = self.record[self.at : end].view(kind)
        self.at = end
        return column

    def finish(self) -> None:
        """Refuse what is left over."""
        if self.at != len(self.record):
            raise _foreign()


def _foreign() -> CacheError:
    return CacheError("a record of the cache isn't of the format that its manifest names: write the cache again")


def encode_tokens(tokens: Array, vocab_size: int) -> Array:
    """Ids in 2, 3 or 4 bytes, whatever V needs."""
    if vocab_size <= 1 << 16:
        return tokens.astype("<u2")
    whole = tokens.astype("<u4")
    return np.ascontiguousarray(whole.view("u1").reshape(-1, 4)[:, :3]) if vocab_size <= 1 << 24 else whole


def decode_tokens(read: _Reader, entries: int, vocab_size: int) -> Array:
    """The inverse, int64."""
    if vocab_size <= 1 << 16:
        return read.take("<u2", entries).astype(np.int64)
    if vocab_size > 1 << 24:
        return read.take("<u4", entries).astype(np.int64)
    low, middle, high = read.take("u1", 3 * entries).reshape(-1, 3).T.astype(np.int64)
    return np.asarray(low | (middle << 8) | (high << 16), np.int64)


def _encode_logs(probs: Array, lengths: Array) -> tuple[Array, Array]:
    """The 8-bit codes of each position's log-probabilities under its largest one, and their steps."""
    logs = np.log(np.maximum(probs, _LEAST))
    starts = np.cumsum(lengths) - lengths
    down = np.minimum(np.repeat(np.maximum.reduceat(logs, starts), lengths) - logs, _DEEPEST)
    scale = (np.maximum.reduceat(down, starts) / _LOG_STEPS).astype("<f2")
    wide = np.repeat(np.maximum(scale.astype(np.float32), _LEAST), lengths)
    return scale, np.minimum(np.rint(down / wide), _LOG_STEPS).astype("u1")


def narrow_floats(values: Array, precision: str) -> Array:
    """Floats as stored: bf16 as the upper half of float32, rounded to even."""
    if precision == "bf16":
        narrow = torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(torch.bfloat16)
        return narrow.view(torch.int16).numpy().astype("<i2", copy=False)
    return values.astype("<f2" if precision == "fp16" else "<f4")


def wide_floats(stored: npt.NDArray[np.uint8], precision: str) -> Array:
    """The bytes of stored floats as float32."""
    if precision == "bf16":
        return np.asarray((stored.view("<u2").astype(np.uint32) << 16).view(np.float32))
    return np.asarray(stored.view("<f2" if precision == "fp16" else "<f4").astype(np.float32))


def _count_type(most: int) -> str:
    return "u1" if most <= np.iinfo(np.uint8).max else "<u2"
