"""How a loss reads soft targets: a few operations on a chunk of positions, whatever form they are stored in.

The naive definition of all of them is on the dense (Q, V) probabilities p: ``(p * values).sum(1)``,
``values -= scale[:, None] * p``, ``p[lo:hi, first:last]``, ``(p > 0).sum(1)``. None of them needs p.

`rows_of` picks the reader of a form; the losses know `TargetRows` only, so a new form of `SoftTargets` needs a
class here and nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from corpus_teacher.targets.dense import DenseTargets
from corpus_teacher.targets.mixed import AnyTargets, MixedTargets, References

_DENSE_ELEMENTS = 1 << 22  # probabilities written out at once where only that tells


class TargetRows(Protocol):
    """The targets p of Q positions over V tokens; chunks of values may have more columns than V, which p
    gives 0."""

    @property
    def vocab_size(self) -> int:
        """V."""

    def expectation(self, values: Tensor, lo: int, hi: int) -> Tensor:
        """``Σ_w p(w) · values[w]`` of positions lo:hi, (hi − lo,); values are contiguous (hi − lo, ≥ V)."""

    def subtract_(self, values: Tensor, scale: Tensor, lo: int, hi: int) -> None:
        """``values[q, w] -= scale[q] · p_q(w)`` in place, of positions lo:hi."""

    def tile(self, lo: int, hi: int, first: int, last: int) -> Tensor:
        """Dense probabilities of positions lo:hi and tokens first:last, (hi − lo, last − first)."""

    def num_positive(self) -> Tensor:
        """How many tokens have a probability above 0, (Q,) int64."""


def rows_of(targets: AnyTargets, precision: torch.dtype) -> TargetRows:
    """The reader of these targets, which computes in a precision."""
    if isinstance(targets, DenseTargets):
        return DenseRows(targets, precision)
    if isinstance(targets, MixedTargets):
        return MixedRows(targets, precision)
    return FlatRows(targets.offsets, targets.token_ids, targets.probs, targets.rest, targets.base, precision)


def sound_where(targets: AnyTargets, taught: Tensor) -> AnyTargets:
    """Targets that hold no NaN where they aren't taught: there they may hold anything, and 0 · NaN is no 0."""
    if isinstance(targets, DenseTargets):
        return DenseTargets(targets.logits, targets.valid & taught)
    if isinstance(targets, MixedTargets):
        return targets  # made by the index, never read from outside
    if targets.device.type == "cpu" and bool(targets.probs.isfinite().all() & targets.rest.isfinite().all()):
        return targets  # a look is cheaper than a copy; an accelerator would have to be waited for
    probs = torch.where(taught[targets.rows()], targets.probs, 0)
    return replace(targets, probs=probs, rest=torch.where(taught, targets.rest, 0))


class FlatRows:
    """Of the flat form: pairs of (token, probability) a position, and rest · base. O(pairs) + one product with
    base a chunk."""

    def __init__(
        self, offsets: Tensor, token_ids: Tensor, probs: Tensor, rest: Tensor, base: Tensor, precision: torch.dtype
    ) -> None:
        self.offsets = offsets
        self.token_ids = token_ids.long()
        self.probs = probs.to(precision)
        self.rest = rest.to(precision)
        self.base = base.to(precision)
        positions = torch.arange(rest.shape[0], device=rest.device)
        self.positions = positions.repeat_interleave(offsets.diff(), output_size=token_ids.shape[0])

    @property
    def vocab_size(self) -> int:
        """As in `TargetRows`."""
        return self.base.shape[0]

    @cached_property
    def _edges(self) -> list[int]:
        """The offsets, readable without waiting for the device each time."""
        return self.offsets.tolist()

    def _pairs(self, lo: int, hi: int) -> tuple[Tensor, Tensor, Tensor]:
        """Position within the chunk, token and probability of the pairs of positions lo:hi."""
        if lo == 0 and hi == self.rest.shape[0]:
            return self.positions, self.token_ids, self.probs
        pairs = slice(self._edges[lo], self._edges[hi])
        return self.positions[pairs] - lo, self.token_ids[pairs], self.probs[pairs]

    def _every_pair(self, lo: int, hi: int) -> tuple[Tensor, Tensor, Tensor]:
        """`_pairs`, and what a form doesn't keep as pairs."""
        return self._pairs(lo, hi)

    def expectation(self, values: Tensor, lo: int, hi: int) -> Tensor:
        """As in `TargetRows`."""
        positions, tokens, probs = self._pairs(lo, hi)
        picked = values.view(-1).index_select(0, tokens.add(positions, alpha=values.shape[1])).mul_(probs)
        spread = torch.mv(values[:, : self.base.shape[0]], self.base).mul_(self.rest[lo:hi])
        return spread.index_add_(0, positions, picked)

    def subtract_(self, values: Tensor, scale: Tensor, lo: int, hi: int) -> None:
        """As in `TargetRows`."""
        positions, tokens, probs = self._pairs(lo, hi)
        values[:, : self.base.shape[0]].addr_(scale * self.rest[lo:hi], self.base, alpha=-1)
        taken = probs * scale.index_select(0, positions)
        values.view(-1).index_add_(0, tokens.add(positions, alpha=values.shape[1]), taken, alpha=-1)

    def tile(self, lo: int, hi: int, first: int, last: int) -> Tensor:
        """As in `TargetRows`."""
        positions, tokens, probs = self._every_pair(lo, hi)
        dense = torch.outer(self.rest[lo:hi], self.base[first:last])
        # A pair outside of the tile adds 0 to a token inside: no boolean mask, whose size an accelerator would have
        # to tell.
        inside = (tokens >= first) & (tokens < last)
        places = (tokens - first).clamp_(0, last - first - 1).add_(positions, alpha=last - first)
        dense.view(-1).index_add_(0, places, torch.where(inside, probs, 0))
        return dense

    def num_positive(self) -> Tensor:
        """As in `TargetRows`."""
        positive_base = self.base > 0
        pair_base = self.base[self.token_ids]
        whole = self.probs.double() + self.rest.double()[self.positions] * pair_base.double()
        hidden = positive_base.sum() - torch.zeros_like(self.offsets[1:]).index_add_(
            0, self.positions, positive_base[self.token_ids].long()
        )
        return torch.where(self.rest > 0, hidden, 0).index_add_(0, self.positions, (whole > 0).long())


class MixedRows(FlatRows):
    """Of the mixed form: on the CPU rows are read where they lie; elsewhere a chunk's rows are written out."""

    def __init__(self, targets: MixedTargets, precision: torch.dtype) -> None:
        pairs = targets.pairs
        super().__init__(pairs.offsets, pairs.token_ids, pairs.probs, pairs.rest, pairs.base, precision)
        self.targets = targets

    @property
    def _reads_rows(self) -> bool:
        return self.rest.device.type == "cpu" and not torch.compiler.is_compiling()

    @cached_property
    def _references(self) -> list[References]:
        return self.targets.references()

    def _pairs(self, lo: int, hi: int) -> tuple[Tensor, Tensor, Tensor]:
        return super()._pairs(lo, hi) if self._reads_rows else self._every_pair(lo, hi)

    def _every_pair(self, lo: int, hi: int) -> tuple[Tensor, Tensor, Tensor]:
        positions, tokens, probs = self.targets.entries(lo, hi)
        return positions, tokens, probs.to(self.probs.dtype)

    def expectation(self, values: Tensor, lo: int, hi: int) -> Tensor:
        """As in `TargetRows`."""
        found = super().expectation(values, lo, hi)
        if self._reads_rows:
            for references in self._references:
                references.add_expectations(values.numpy(), lo, found.numpy())
        return found

    def subtract_(self, values: Tensor, scale: Tensor, lo: int, hi: int) -> None:
        """As in `TargetRows`."""
        super().subtract_(values, scale, lo, hi)
        if self._reads_rows:
            for references in self._references:
                references.subtract(scale.contiguous().numpy(), lo, values.numpy())

    def num_positive(self) -> Tensor:
        """As in `TargetRows`."""
        size, vocabulary = self.rest.shape[0], self.base.shape[0]
        step = max(1, _DENSE_ELEMENTS // vocabulary)
        parts = [(self.tile(lo, min(size, lo + step), 0, vocabulary) > 0).sum(1) for lo in range(0, size, step)]
        return torch.cat(parts) if parts else self.offsets[:0]


class DenseRows:
    """Of a dense teacher's logits: the softmax of a chunk is made when it is read, and again for the gradient."""

    def __init__(self, targets: DenseTargets, precision: torch.dtype) -> None:
        self.targets = targets
        self.precision = precision

    @property
    def vocab_size(self) -> int:
        """As in `TargetRows`."""
        return self.targets.vocab_size

    def _probs(self, lo: int, hi: int) -> Tensor:
        # what isn't valid may hold anything, and counts nowhere
        probs = torch.softmax(self.targets.logits[lo:hi], 1, dtype=self.precision)
        return probs.masked_fill_(~self.targets.valid[lo:hi, None], 0)

    def expectation(self, values: Tensor, lo: int, hi: int) -> Tensor:
        """As in `TargetRows`."""
        return self._probs(lo, hi).mul_(values[:, : self.targets.vocab_size]).sum(1)

    def subtract_(self, values: Tensor, scale: Tensor, lo: int, hi: int) -> None:
        """As in `TargetRows`."""
        values[:, : self.targets.vocab_size].addcmul_(self._probs(lo, hi), scale[:, None], value=-1)

    def tile(self, lo: int, hi: int, first: int, last: int) -> Tensor:
        """As in `TargetRows`."""
        size = self.targets.vocab_size
        probs = self.targets.logits[lo:hi, first:last].to(self.precision)
        probs = (probs - self.targets.log_total[lo:hi, None].to(self.precision)).exp_()
        probs = probs.masked_fill_(~self.targets.valid[lo:hi, None], 0)
        return torch.nn.functional.pad(probs, (0, last - max(first, min(last, size))))

    def num_positive(self) -> Tensor:
        """As in `TargetRows`: a softmax has no zeros but those of logits that are −∞."""
        return (self.targets.logits > -torch.inf).sum(1)
