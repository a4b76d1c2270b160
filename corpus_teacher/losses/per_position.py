"""The losses of a chunk of positions: values and gradients in the logits, for the plain and the fused path.

Both paths walk over chunks of logits; what a loss is stands here once. In every one z are the student's
logits, q = softmax(z / T) the student, p the target, T the temperature, and T² the factor that keeps the
gradient's size (see `soft_cross_entropy`)::

    cross-entropy     − Σ p · log q                       gradient in z / T:  q − p
    reverse KL        Σ q · log(q / p)                                        q · (log(q / p) − value)
    JSD(β)            β · KL(p ‖ m) + (1 − β) · KL(q ‖ m)                     (1 − β) · q · (log(q / m) − KL(q ‖ m))
                      with m = β · p + (1 − β) · q

A student may have more outputs than the target has tokens. The cross-entropy is over all of them, with p = 0 beyond
V; in a divergence q is over the first V outputs, renormalised, and the others have no gradient.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from corpus_teacher.losses.rows import TargetRows

_INFINITE = -1e15
"""An expectation below this had a log-probability of −∞ in it: no logits reach so far."""

VOCABULARY_CHUNK = 1 << 13
"""Tokens of the target that a divergence makes dense at once, for the positions of a chunk."""


class PositionLoss(Protocol):
    """A loss of each of Q positions."""

    precision: torch.dtype
    num_parts: int  # rows of `values`

    def values(self, logits: Tensor, lo: int, hi: int, careful: bool = True) -> Tensor:
        """Of positions lo:hi, (parts, hi − lo): the loss, and below it the parts it is made of, if any.

        careful: where logits are −∞, 0 · log 0 is 0, and a part without a share may be infinite. Else that is NaN.
        """

    def gradient(self, logits: Tensor, scale: Tensor, lo: int, hi: int, out: Tensor | None) -> Tensor:
        """``scale · d loss / d logits``, (hi − lo, V), into `out` where given; logits stay as they are."""


class CrossEntropy:
    """``label_mass · H(onehot(label), q) + share · T² · H(p, q)``, either part alone, too; its parts are the two
    entropies.

    label_mass + share is 1 wherever a position counts: one softmax then serves both parts, unless T is not 1.
    """

    def __init__(
        self,
        precision: torch.dtype,
        rows: TargetRows | None = None,
        share: Tensor | None = None,
        labels: Tensor | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.precision = precision
        self.rows = rows
        self.share = share  # (Q,); 1 where there are no labels
        self.labels = labels  # (Q,), none negative
        self.temperature = temperature
        self.num_parts = 3 if rows is not None and labels is not None else 1

    def values(self, logits: Tensor, lo: int, hi: int, careful: bool = True) -> Tensor:
        """As in `PositionLoss`."""
        log_q = torch.log_softmax(logits, 1, dtype=self.precision)
        zeros = log_q.new_zeros(hi - lo)
        hard = soft = zeros
        if self.labels is not None:
            hard = -log_q.gather(1, self.labels[lo:hi, None])[:, 0]
        if self.rows is not None:
            if self.temperature != 1:
                log_q = torch.log_softmax(logits.to(self.precision) / self.temperature, 1)
            soft = expectation(self.rows, log_q, lo, hi, careful).mul_(-(self.temperature**2))
        if self.labels is None:
            return soft[None]
        if self.rows is None:
            return hard[None]
        if self.share is None:
            return torch.stack([soft, hard, soft])
        share = self.share[lo:hi]
        total = weighted(1 - share, hard, careful) + weighted(share, soft, careful)
        return torch.stack([total, hard, soft])

    def gradient(self, logits: Tensor, scale: Tensor, lo: int, hi: int, out: Tensor | None) -> Tensor:
        """As in `PositionLoss`."""
        soft = scale if self.share is None else scale * self.share[lo:hi]
        hard = scale - soft if self.rows is not None else scale
        if self.temperature == 1 or self.rows is None:
            out = torch.softmax(logits, 1, dtype=self.precision, out=out).mul_(scale[:, None])
        else:
            soft = soft * self.temperature  # T² from the loss, 1 / T from z / T
            out = torch.softmax(logits.to(self.precision) / self.temperature, 1, out=out).mul_(soft[:, None])
            if self.labels is not None:
                out.addcmul_(torch.softmax(logits, 1, dtype=self.precision), hard[:, None])
        if self.rows is not None:
            self.rows.subtract_(out, soft, lo, hi)
        if self.labels is not None:  # not scatter_add_: that has no deterministic form on a GPU
            starts = torch.arange(0, out.numel(), out.shape[1], device=out.device)
            out.view(-1).index_add_(0, starts + self.labels[lo:hi], hard, alpha=-1)
        return out

    def target(self, position: int, size: int) -> Tensor:
        """What a position is taught, (size,), unless it is nothing; for messages."""
        share = 1.0 if self.share is None else float(self.share[position])
        target = torch.zeros(size, dtype=self.precision)
        if self.rows is not None and share > 0:
            target[: self.rows.vocab_size] = share * self.rows.tile(position, position + 1, 0, self.rows.vocab_size)[0]
        if self.labels is not None and (self.rows is None or share < 1):
            target[self.labels[position]] += 1 - share if self.rows is not None else 1
        return target


def expectation(rows: TargetRows, log_q: Tensor, lo: int, hi: int, careful: bool) -> Tensor:
    """Σ p · log q; careful: 0 · log 0 is 0. (An accelerator isn't waited for: there a NaN stays one.)"""
    found = rows.expectation(log_q, lo, hi)
    if not careful or torch.compiler.is_compiling() or found.device.type != "cpu" or bool(found.isfinite().all()):
        return found
    found = rows.expectation(log_q.clamp_min(torch.finfo(log_q.dtype).min), lo, hi)
    return torch.where(found < _INFINITE, -torch.inf, found)


def weighted(weight: Tensor, part: Tensor, careful: bool) -> Tensor:
    """weight · part; careful: 0 where the weight is 0, whatever the part is."""
    return torch.where(weight > 0, weight * part, 0) if careful else weight * part


class Divergence:
    """``T² · JSD(β)(p, q)`` for 0 < β < 1, ``T² · KL(q ‖ p)`` for β = 1; p is made dense a few thousand tokens
    of one chunk at a time."""

    num_parts = 1

    def __init__(
        self, precision: torch.dtype, rows: TargetRows, beta: float, temperature: float, vocab_size: int
    ) -> None:
        self.precision = precision
        self.rows = rows
        self.beta = beta
        self.temperature = temperature
        self.vocab_size = vocab_size  # V of the target: the student's first V outputs, renormalised

    def _tiles(self, vocab_size: int) -> list[tuple[int, int]]:
        step = VOCABULARY_CHUNK
        return [(first, min(first + step, vocab_size)) for first in range(0, vocab_size, step)]

    def _log_mixture(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        """log m, or log p where β is 1."""
        if self.beta == 1:
            return log_p
        return torch.logaddexp(log_q + math.log1p(-self.beta), log_p + math.log(self.beta))

    def _log_q(self, logits: Tensor) -> Tensor:
        """log q over the first V outputs; the least float where it is −∞, so that 0 · log 0 is 0."""
        log_q = torch.log_softmax(logits[:, : self.vocab_size].to(self.precision) / self.temperature, 1)
        return log_q.clamp_min(torch.finfo(self.precision).min)

    def values(self, logits: Tensor, lo: int, hi: int, careful: bool = True) -> Tensor:
        """As in `PositionLoss`; always careful."""
        every_log_q = self._log_q(logits)
        total = every_log_q.new_zeros(hi - lo)
        weight_of_q = 1.0 if self.beta == 1 else 1 - self.beta
        for first, last in self._tiles(self.vocab_size):
            p, log_q = self.rows.tile(lo, hi, first, last), every_log_q[:, first:last]
            log_p = p.log()
            log_m = self._log_mixture(log_q, log_p)
            total += weight_of_q * (log_q.exp() * (log_q - log_m)).sum(1)
            if self.beta != 1:
                total += self.beta * (p * (log_p - log_m)).sum(1)
        return total.mul_(self.temperature**2)[None]

    def gradient(self, logits: Tensor, scale: Tensor, lo: int, hi: int, out: Tensor | None) -> Tensor:
        """As in `PositionLoss`."""
        every_log_q = self._log_q(logits)
        out = torch.empty_like(logits, dtype=self.precision) if out is None else out
        out[:, self.vocab_size :] = 0
        inside = out[:, : self.vocab_size]
        mean = every_log_q.new_zeros(hi - lo, 1)
        for first, last in self._tiles(self.vocab_size):
            log_q = every_log_q[:, first:last]
            log_m = self._log_mixture(log_q, self.rows.tile(lo, hi, first, last).log_())
            torch.mul(log_q.exp(), log_q - log_m, out=inside[:, first:last])
            mean += inside[:, first:last].sum(1, keepdim=True)
        inside.addcmul_(every_log_q.exp_(), mean, value=-1)
        factor = self.temperature if self.beta == 1 else self.temperature * (1 - self.beta)
        inside.mul_((scale * factor)[:, None])
        inside.masked_fill_((scale == 0)[:, None], 0)  # where nothing counts the target may be anything: 0 · ∞ is no 0
        return out
