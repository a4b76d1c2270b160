"""How DistillKit's columns hold the log-probabilities of a position: all that its `logprob_compressor` may say.

The k log-probabilities of a position, the largest first, are one string of bytes, little-endian, nothing between the
parts:

1. the first `exact_k` of them, each an `exact_dtype`;
2. of the n = k − exact_k others the coefficients of a fitted curve, each a `term_dtype`: the value at place
   t = 0 … n − 1 is the sum of coefficient · term(t), a term being a power of t, its root or its exponential;
3. of what the curve leaves, for each residual bin a scale and `element_bits` bits a value, the most significant bit
   first, filled up to whole bytes: value = (code − 2^(bits − 1)) · scale, with 1 bit ± scale.

With `delta_encoding` these aren't the log-probabilities but their differences, the first one as it is. Sums and
products are in the types that DistillKit computes in, so that what is read is what DistillKit reads, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.settings import check_keys, check_known, check_whole, make_from, within

FLOATS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
_SHORT = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
_MOST_BITS = 32

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ResidualBin:
    """Some of the values after the exact ones, what the curve leaves of them: a scale, and so many bits each."""

    num_elements: int
    element_bits: int
    scale_dtype: str = "float32"

    def __post_init__(self) -> None:
        check_whole(self.num_elements, "num_elements", 1)
        check_whole(self.element_bits, "element_bits", 1)
        if self.element_bits > _MOST_BITS:
            raise ConfigError(f"element_bits is {self.element_bits}: give at most {_MOST_BITS}")
        check_known(self.scale_dtype, FLOATS, "scale_dtype")


@dataclass(frozen=True)
class ColumnFormat:
    """The format of DistillKit's columns; by default all k values exact, in bfloat16.

    Parameters
    ----------
    vocab_size : int
        V; DistillKit's d.
    k : int
        Tokens of a position.
    exact_k : int, optional
        So many of them are kept as they are; all by default.
    exact_dtype, term_dtype : str
        "float16", "bfloat16", "float32" or "float64" (also "fp16", "bf16", "fp32").
    polynomial_terms : tuple of int or "sqrt" or "exp"
    residual_bins : tuple of ResidualBin
    delta_encoding, normalize_t : bool
        Differences instead of values; t from 0 to 1 instead of 0 to n − 1.
    error_diffusion : bool
        How DistillKit rounded; reading is the same. Nothing is written so.

    Raises
    ------
    ConfigError
        A setting out of range, or values that are neither exact nor of a curve nor in a bin.

    Examples
    --------
    >>> form = ColumnFormat(50_000, k=16)
    >>> values = torch.arange(-16.0, 0.0).flip(0)[None]
    >>> form.value_bytes, torch.equal(form.decode(form.encode(values)), values)
    (32, True)
    """

    vocab_size: int
    k: int
    exact_k: int | None = None
    exact_dtype: str = "bfloat16"
    polynomial_terms: tuple[int | str, ...] = ()
    term_dtype: str = "float32"
    residual_bins: tuple[ResidualBin, ...] = ()
    delta_encoding: bool = False
    error_diffusion: bool = False
    normalize_t: bool = False

    def __post_init__(self) -> None:
        check_whole(self.vocab_size, "vocab_size", 1)
        check_whole(self.k, "k", 1)
        exact = self.k if self.exact_k is None else self.exact_k
        check_whole(exact, "exact_k", 0)
        object.__setattr__(self, "exact_k", exact)
        for name in ("exact_dtype", "term_dtype"):
            dtype = getattr(self, name)
            dtype = _SHORT.get(dtype, dtype) if isinstance(dtype, str) else dtype
            check_known(dtype, FLOATS, name)
            object.__setattr__(self, name, dtype)
        for name in ("polynomial_terms", "residual_bins"):
            if not isinstance(getattr(self, name), (list, tuple, type(None))):
                raise ConfigError(f"{name} is {getattr(self, name)!r}: give a list")
            object.__setattr__(self, name, tuple(getattr(self, name) or ()))
        for term in self.polynomial_terms:
            is_power = isinstance(term, int) and not isinstance(term, bool) and abs(term) < 2**31
            if not is_power and term not in ("sqrt", "exp"):
                raise ConfigError(f"polynomial_terms has {term!r}: give whole numbers, 'sqrt' or 'exp'")
        in_bins = sum(one.num_elements for one in self.residual_bins)
        if exact > self.k or in_bins > self.num_fitted:
            raise ConfigError(f"exact_k is {exact} and the bins hold {in_bins}: together at most k, {self.k}")
        if self.num_fitted and not self.polynomial_terms and not self.residual_bins:
            raise ConfigError(f"exact_k is {exact} of {self.k}: give polynomial_terms or residual_bins for the others")

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> ColumnFormat:
        """The format of a `logprob_compressor` table of DistillKit's configuration, with its defaults.

        Raises
        ------
        ConfigError
            An unknown key (with the nearest one), or a value out of range.
        """
        known = ("d", "k", "exact_k", "exact_dtype", "polynomial_terms", "term_dtype", "residual_bins",
                 "delta_encoding", "error_diffusion", "normalize_t")  # fmt: skip
        made: dict[str, Any] = {
            "exact_dtype": "float32",
            "delta_encoding": True,
            **check_keys(table, known, "logprob_compressor"),
        }
        for name in ("d", "k", "exact_k"):
            if name not in made:
                raise ConfigError(f"logprob_compressor has no {name}: give it")
        bins = made.get("residual_bins") or ()
        if not isinstance(bins, (list, tuple)):
            raise ConfigError(f"logprob_compressor.residual_bins is {bins!r}: give a list of tables")
        made["residual_bins"] = tuple(
            make_from(ResidualBin, one, f"logprob_compressor.residual_bins[{number}]")
            for number, one in enumerate(bins)
        )
        made["vocab_size"] = made.pop("d")
        with within("logprob_compressor"):
            return cls(**made)

    @property
    def num_fitted(self) -> int:
        """n, the values after the exact ones."""
        return self.k - int(self.exact_k or 0)

    @property
    def id_bits(self) -> int:
        """⌈log2 V⌉, at least 1."""
        return max(1, (self.vocab_size - 1).bit_length())

    @property
    def id_bytes(self) -> int:
        """Bytes of the ids of a position."""
        return -(-self.k * self.id_bits // 8)

    @property
    def value_bytes(self) -> int:
        """Bytes of the values of a position."""
        return sum(size for _, size in self._parts())

    def decode(self, packed: Bytes) -> Tensor:
        """Log-probabilities of Q positions.

        Parameters
        ----------
        packed : ndarray of shape (Q, value_bytes), uint8

        Returns
        -------
        Tensor of shape (Q, k), float32 or float64

        Raises
        ------
        InputError
            Another number of bytes.
        """
        if packed.ndim != 2 or packed.shape[1] != self.value_bytes:
            raise InputError(
                f"the values have shape {packed.shape} and {self.k} of them, {self.exact_k} exact, take "
                f"{self.value_bytes} bytes a position: check the format against the run that wrote them"
            )
        parts, at = [], 0
        for _, size in self._parts():
            parts.append(np.ascontiguousarray(packed[:, at : at + size]))
            at += size
        exact = _floats(parts[0], self.exact_dtype)
        values = exact
        if self.num_fitted:
            others = self._residuals(parts[2:], len(packed)).to(exact.dtype)
            if self.polynomial_terms:
                others = self._curve(_floats(parts[1], self.term_dtype)) + others
            values = torch.cat([exact, others], 1)
        if self.delta_encoding:
            values = values.float().cumsum(1).to(exact.dtype)
        return values if values.dtype == torch.float64 else values.float()

    def encode(self, logs: Tensor) -> Bytes:
        """The bytes of (Q, k) log-probabilities, the largest first; the inverse of `decode` up to rounding.

        Raises
        ------
        ConfigError
            Values of another number, or a format with error diffusion.
        """
        if self.error_diffusion:
            raise ConfigError("error_diffusion is true: it is read, but nothing is written so; set it to false")
        if logs.ndim != 2 or logs.shape[1] != self.k:
            raise ConfigError(f"log-probabilities have shape {tuple(logs.shape)}: the format has {self.k} a position")
        values = logs.float()
        if self.delta_encoding:
            values = torch.cat([values[:, :1], values.diff(dim=1)], 1)
        exact, others = values[:, : self.exact_k], values[:, self.exact_k :]
        parts = [_bytes(exact.to(FLOATS[self.exact_dtype]))]
        if self.num_fitted and self.polynomial_terms:
            solved = torch.linalg.pinv(self._terms(torch.float64)) @ others.double().T
            coefficients = solved.T.to(FLOATS[self.term_dtype]).contiguous()
            parts.append(_bytes(coefficients))
            others = others - self._curve(coefficients).float()
        at = 0
        for one in self.residual_bins:
            part = others[:, at : at + one.num_elements]
            at += one.num_elements
            scale = part.abs().amax(1, keepdim=True) / 2 ** (one.element_bits - 1)
            scale = torch.where(scale > 0, scale, 1).to(FLOATS[one.scale_dtype])
            least, most = -(2 ** (one.element_bits - 1)), 2 ** (one.element_bits - 1) - 1
            codes = (part / scale.float()).round().clamp(least, most).long() - least
            if one.element_bits == 1:
                codes = (part >= 0).long()
            parts += [_bytes(scale), pack_bits(codes.numpy(), one.element_bits)]
        return np.concatenate(parts, 1)

    def _parts(self) -> list[tuple[str, int]]:
        """Name and bytes of each part of a position, in order."""
        terms = len(self.polynomial_terms) if self.num_fitted else 0
        parts = [
            ("exact", int(self.exact_k or 0) * FLOATS[self.exact_dtype].itemsize),
            ("terms", terms * FLOATS[self.term_dtype].itemsize),
        ]
        for one in self.residual_bins:
            parts.append(("scale", FLOATS[one.scale_dtype].itemsize))
            parts.append(("codes", -(-one.num_elements * one.element_bits // 8)))
        return parts

    def _terms(self, dtype: torch.dtype) -> Tensor:
        """The terms of the curve at every place, (n, terms)."""
        size = self.num_fitted
        places = torch.linspace(0, 1, size, dtype=dtype) if self.normalize_t else torch.arange(size, dtype=dtype)
        each = {"sqrt": torch.sqrt, "exp": torch.exp}
        return torch.stack(
            [each[term](places) if isinstance(term, str) else places**term for term in self.polynomial_terms], 1
        )

    def _curve(self, coefficients: Tensor) -> Tensor:
        """The curve of each position, (Q, n), in the type of the coefficients."""
        return (self._terms(coefficients.dtype) * coefficients[:, None]).sum(-1)

    def _residuals(self, parts: list[Bytes], positions: int) -> Tensor:
        """What the bins add to the curve, (Q, n); 0 beyond them."""
        found = []
        for number, one in enumerate(self.residual_bins):
            scale = _floats(parts[2 * number], one.scale_dtype)
            codes = torch.from_numpy(unpack_bits(parts[2 * number + 1], one.element_bits, one.num_elements))
            least = -(2 ** (one.element_bits - 1))
            whole = codes.float() * 2 - 1 if one.element_bits == 1 else (codes + least).float()
            found.append(whole * scale)
        missing = self.num_fitted - sum(one.num_elements for one in self.residual_bins)
        return torch.cat([*found, torch.zeros(positions, missing)], 1)


def pack_bits(values: npt.NDArray[Any], bits: int) -> Bytes:
    """(Q, n) whole numbers in so many bits each, the most significant first: (Q, ⌈n · bits / 8⌉), filled with zeros."""
    each = (values.astype(np.int64)[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(each.astype(np.uint8).reshape(values.shape[0], -1), axis=1)


def unpack_bits(packed: Bytes, bits: int, count: int) -> npt.NDArray[np.int64]:
    """The inverse of `pack_bits`, (Q, count)."""
    each = np.unpackbits(packed, axis=1, count=count * bits).reshape(len(packed), count, bits).astype(np.int64)
    return np.asarray(each @ (1 << np.arange(bits - 1, -1, -1)), np.int64)


def _floats(stored: Bytes, dtype: str) -> Tensor:
    """The floats that bytes stand for, (Q, …)."""
    kind = FLOATS[dtype]
    return torch.from_numpy(stored).reshape(-1).view(kind).reshape(len(stored), stored.shape[1] // kind.itemsize)


def _bytes(values: Tensor) -> Bytes:
    """The bytes of (Q, n) floats."""
    return np.asarray(values.contiguous().view(torch.uint8).numpy())
