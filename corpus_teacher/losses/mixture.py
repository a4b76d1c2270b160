"""Cross-entropy to a mixture of targets, a weight for each at every position, with one softmax of the student.

The naive definition: make ``Σ_i weight_i · target_i`` as a (Q, V) tensor and take the cross-entropy to it. That is
linear in its target, so the mixture is never made: each target adds its own few gathers (or, a dense one, one pass
over its logits) to the same softmax, and to the same gradient. Only targets at another temperature than 1 need a
softmax more, one a temperature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from corpus_teacher.losses.per_position import expectation, weighted
from corpus_teacher.losses.rows import TargetRows


class Part(NamedTuple):
    """One target of a mixture.

    Attributes
    ----------
    rows : TargetRows
        p of each position. Where its weight is 0 it may be anything but NaN.
    weight : Tensor of shape (Q,)
    temperature : float
        T of the student against it: its loss is T² · H(p, softmax(z / T)). The target is at T already.
    """

    rows: TargetRows
    weight: Tensor
    temperature: float = 1.0


class Mixture:
    """``hard · H(onehot(label), q) + Σ_i weight_i · T_i² · H(p_i, q at T_i)``, a `PositionLoss` whose parts are the
    entropies: of the label, then of each target.

    Parameters
    ----------
    precision : torch.dtype
    labels : Tensor of shape (Q,), int64
        None negative.
    hard : Tensor of shape (Q,)
        The weight of the label.
    parts : sequence of Part
    """

    def __init__(self, precision: torch.dtype, labels: Tensor, hard: Tensor, parts: Sequence[Part]) -> None:
        self.precision = precision
        self.labels = labels
        self.hard = hard
        self.parts = parts
        self.num_parts = 2 + len(parts)
        plain = [part.weight for part in parts if part.temperature == 1]
        self._by_temperature = {1.0: torch.stack([hard, *plain]).sum(0)}  # of each softmax, the sum of its weights
        for part in parts:
            if part.temperature != 1:  # T² of the loss, 1 / T of z / T
                weight = part.weight * part.temperature
                before = self._by_temperature.get(part.temperature)
                self._by_temperature[part.temperature] = weight if before is None else before + weight

    def values(self, logits: Tensor, lo: int, hi: int, careful: bool = True) -> Tensor:
        """As in `PositionLoss`: the loss, that of the label, those of the targets."""
        log_q = {t: torch.log_softmax(_at(logits, t), 1, dtype=self.precision) for t in self._by_temperature}
        every = [-log_q[1.0].gather(1, self.labels[lo:hi, None])[:, 0]]
        loss = weighted(self.hard[lo:hi], every[0], careful)
        for rows, weight, temperature in self.parts:
            every.append(expectation(rows, log_q[temperature], lo, hi, careful).mul_(-(temperature**2)))
            loss = loss + weighted(weight[lo:hi], every[-1], careful)
        return torch.stack([loss, *every])

    def gradient(self, logits: Tensor, scale: Tensor, lo: int, hi: int, out: Tensor | None) -> Tensor:
        """As in `PositionLoss`."""
        weight = scale * self._by_temperature[1.0][lo:hi]
        out = torch.softmax(logits, 1, dtype=self.precision, out=out).mul_(weight[:, None])
        for temperature, every in self._by_temperature.items():
            if temperature != 1:
                q = torch.softmax(_at(logits, temperature), 1, dtype=self.precision)
                out.addcmul_(q, (scale * every[lo:hi])[:, None])
        for rows, weight, temperature in self.parts:
            rows.subtract_(out, scale * weight[lo:hi] * temperature, lo, hi)
        starts = torch.arange(0, out.numel(), out.shape[1], device=out.device)
        out.view(-1).index_add_(0, starts + self.labels[lo:hi], scale * self.hard[lo:hi], alpha=-1)
        return out

    def target(self, position: int, size: int) -> Tensor:
        """What a position is taught, (size,), unless it is nothing; for messages."""
        target = torch.zeros(size, dtype=self.precision)
        target[self.labels[position]] += self.hard[position]
        for rows, weight, _ in self.parts:
            if weight[position] > 0:
                target[: rows.vocab_size] += weight[position] * rows.tile(position, position + 1, 0, rows.vocab_size)[0]
        return target


def _at(logits: Tensor, temperature: float) -> Tensor:
    """z / T, in no less than float32."""
    return logits if temperature == 1 else logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
