"""A teacher's word in its plainest form: logits over the whole vocabulary, as a live model gives them.

Everything else in this project avoids a (Q, V) teacher; where a model has just made one there is no reason to throw it
away, and a temperature or a reverse KL is exact on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from corpus_teacher.errors import TargetError

CHUNK_ELEMENTS = {"cpu": 1 << 19}
"""Logits that are worked on at once: what the processor's cache holds."""
CHUNK_ELEMENTS_OF_AN_ACCELERATOR = 1 << 24


class DenseTargets:
    """A teacher's logits over the whole vocabulary, as a live model gives them.

    Parameters
    ----------
    logits : Tensor of shape (B, T, V) or (Q, V)
        Of any floating type; no gradient flows into them.
    valid : Tensor of shape (B, T) or (Q,), bool, optional
        False where there is no target; all are valid by default.

    Raises
    ------
    TargetError
        Shapes that don't fit together.

    Examples
    --------
    >>> teacher = DenseTargets(torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0]]))
    >>> [round(p, 3) for p in teacher.probability_of(torch.tensor([1, 0])).tolist()], teacher.top_tokens().tolist()
    ([0.576, 0.787], [1, 0])
    """

    def __init__(self, logits: Tensor, valid: Tensor | None = None) -> None:
        if logits.ndim not in (2, 3) or not logits.is_floating_point():
            raise TargetError(
                f"a dense teacher is {logits.dtype} of shape {tuple(logits.shape)}: give logits, (B, T, V) or (Q, V)"
            )
        self.logits = logits.detach().reshape(-1, logits.shape[-1])
        if valid is None:
            valid = torch.ones(self.logits.shape[0], dtype=torch.bool, device=logits.device)
        if valid.dtype != torch.bool or valid.numel() != self.logits.shape[0]:
            raise TargetError(
                f"valid is {valid.dtype} of shape {tuple(valid.shape)}: give {self.logits.shape[0]} booleans"
            )
        self.valid = valid.reshape(-1)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> DenseTargets:
        """On another device."""
        logits, valid = (one.to(device, non_blocking=non_blocking) for one in (self.logits, self.valid))
        return DenseTargets(logits, valid)

    @property
    def num_positions(self) -> int:
        """Q."""
        return self.logits.shape[0]

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.logits.shape[1]

    def __repr__(self) -> str:
        return f"DenseTargets(Q={self.num_positions}, V={self.vocab_size}, device={self.logits.device})"

    def take(self, positions: Tensor) -> DenseTargets:
        """Positions by number, (P,) int64, in any order and any number of times."""
        return DenseTargets(self.logits[positions], self.valid[positions])

    def silent(self) -> DenseTargets:
        """One position without a target, in the form of these targets."""
        return DenseTargets(self.logits.new_zeros(1, self.vocab_size), self.valid.new_zeros(1))

    @staticmethod
    def concatenate(parts: Sequence[DenseTargets]) -> DenseTargets:
        """Join the positions of several targets, at least one."""
        return DenseTargets(torch.cat([part.logits for part in parts]), torch.cat([part.valid for part in parts]))

    @cached_property
    def log_total(self) -> Tensor:
        """logsumexp of each position, (Q,) float32; float64 of float64 logits."""
        precision = torch.float64 if self.logits.dtype == torch.float64 else torch.float32
        total = self.logits.new_empty(self.num_positions, dtype=precision)
        for lo, hi in cache_chunks(self.logits):
            total[lo:hi] = torch.logsumexp(self.logits[lo:hi].to(precision), 1)
        return total

    def entropy(self) -> Tensor:
        """Entropy of each position, (Q,) float32, nats; 0 where it isn't valid. O(Q · V), in chunks."""
        entropy = torch.zeros_like(self.log_total)
        for lo, hi in cache_chunks(self.logits):
            log_p = self.logits[lo:hi] - self.log_total[lo:hi, None]
            entropy[lo:hi] = torch.special.entr(log_p.exp_()).sum(1)
        return torch.where(self.valid, entropy, 0).float()

    def probability_of(self, tokens: Tensor) -> Tensor:
        """Probability of one token a position, (Q,) float32; tokens are (Q,) int64."""
        return self.probabilities_at(torch.arange(self.num_positions, device=tokens.device), tokens)

    def probabilities_at(self, positions: Tensor, tokens: Tensor) -> Tensor:
        """Probabilities of some tokens at some positions: all three (entries,)."""
        return (self.logits[positions, tokens] - self.log_total[positions]).exp().float()

    def top_tokens(self) -> Tensor:
        """The most probable token of each position, (Q,) int64."""
        return self.logits.argmax(1)


def cache_chunks(logits: Tensor) -> list[tuple[int, int]]:
    """Ranges of the rows of (Q, V) logits that the processor's cache holds."""
    elements = CHUNK_ELEMENTS.get(logits.device.type, CHUNK_ELEMENTS_OF_AN_ACCELERATOR)
    return chunks(logits.shape[0], logits.shape[1], elements)


def chunks(num_positions: int, vocab_size: int, elements: int) -> list[tuple[int, int]]:
    """Ranges of positions whose logits are about so many elements."""
    step = max(1, elements // max(1, vocab_size))
    return [(lo, min(lo + step, num_positions)) for lo in range(0, num_positions, step)]
