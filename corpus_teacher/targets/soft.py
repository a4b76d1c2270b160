"""Soft targets: what a teacher says at every position of a batch, without a tensor over the vocabulary.

The naive definition is one dense row a position, ``p(w | q)`` of shape (Q, V). A smoothed teacher never needs
it: at position q it gives a few explicit (token, probability) pairs, and the remaining mass ``rest[q]`` goes
to one base distribution over V that all positions share::

    p(w | q) = sparse_q(w) + rest[q] · base[w]          Σ_w p(w | q) = 1

The pairs of all positions lie in two flat arrays, those of position q at ``offsets[q] : offsets[q + 1]``.
Cost: O(K) numbers a position for K pairs, instead of O(V).

Positions follow the alignment of Hugging Face: the target at position t of a row is the distribution of the
token after ``input_ids[:, : t + 1]``. Shape letters: Q positions (= B · T), V vocabulary, ``entries`` pairs
in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corpus_teacher.errors import TargetError

_PER_POSITION = ("rest", "match_len", "context_count", "cut_mass", "valid")
_MASS_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class SoftTargets:
    """One distribution over the vocabulary at each of Q positions, as sparse + rest · base.

    Parameters
    ----------
    offsets : Tensor of shape (Q + 1,), int64
        Where the pairs of each position begin; ``offsets[0] = 0``, ``offsets[Q]`` is the number of pairs.
    token_ids : Tensor of shape (entries,), int32 or int64
        Tokens of the pairs, each at most once a position.
    probs : Tensor of shape (entries,), float32
        Their explicit mass, beside what the base gives them. It may be a little negative (a corrected label)
        as long as the whole probability is not.
    rest : Tensor of shape (Q,), float32
        Mass that is spread over the vocabulary as `base`.
    base : Tensor of shape (V,), float32
        The shared distribution, sums to 1.
    match_len : Tensor of shape (Q,), int32
        Evidence: tokens of the context that the corpus holds.
    context_count : Tensor of shape (Q,), int64
        Evidence: occurrences of that context.
    cut_mass : Tensor of shape (Q,), float32
        Mass of the pairs beyond the teacher's top_k, which was moved to the base.
    valid : Tensor of shape (Q,), bool
        False where there is no target: such positions count in no loss and no mean.

    Raises
    ------
    TargetError
        Shapes that don't fit together. `validate` checks the values too.

    Examples
    --------
    >>> targets = SoftTargets.from_arrays(
    ...     offsets=[0, 2], token_ids=[0, 2], probs=[0.5, 0.3], rest=[0.2], base=[0.25] * 4
    ... )
    >>> [round(p, 2) for p in targets.dense()[0].tolist()]
    [0.55, 0.05, 0.35, 0.05]
    """

    offsets: Tensor
    token_ids: Tensor
    probs: Tensor
    rest: Tensor
    base: Tensor
    match_len: Tensor
    context_count: Tensor
    cut_mass: Tensor
    valid: Tensor

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name).ndim != 1:
                shape = tuple(getattr(self, field.name).shape)
                raise TargetError(f"{field.name} has shape {shape}: soft targets are made of flat arrays")
        positions = self.offsets.shape[0] - 1
        for name in _PER_POSITION:
            if getattr(self, name).shape[0] != positions:
                raise TargetError(
                    f"{name} has {getattr(self, name).shape[0]} values for {positions} positions: "
                    "give one a position (offsets holds one more than there are positions)"
                )
        if self.token_ids.shape != self.probs.shape:
            raise TargetError(
                f"token_ids has {self.token_ids.shape[0]} entries and probs {self.probs.shape[0]}: "
                "give one probability a token"
            )

    @classmethod
    def from_arrays(
        cls,
        offsets: Any,
        token_ids: Any,
        probs: Any,
        rest: Any,
        base: Any,
        match_len: Any = None,
        context_count: Any = None,
        cut_mass: Any = None,
        valid: Any = None,
    ) -> SoftTargets:
        """Make targets from numpy arrays or lists; evidence that isn't given is 0, and every position valid.

        Parameters
        ----------
        offsets, token_ids, probs, rest, base, match_len, context_count, cut_mass, valid : array_like
            As in the class; memory that can be shared with numpy is shared.

        Returns
        -------
        SoftTargets
            On the CPU.
        """
        positions = len(offsets) - 1
        token_ids = np.asarray(token_ids)
        return cls(
            offsets=_tensor(offsets, np.int64),
            token_ids=_tensor(token_ids, token_ids.dtype if token_ids.dtype == np.int32 else np.int64),
            probs=_tensor(probs, np.float32),
            rest=_tensor(rest, np.float32),
            base=_tensor(base, np.float32),
            match_len=_tensor(np.zeros(positions) if match_len is None else match_len, np.int32),
            context_count=_tensor(np.zeros(positions) if context_count is None else context_count, np.int64),
            cut_mass=_tensor(np.zeros(positions) if cut_mass is None else cut_mass, np.float32),
            valid=_tensor(np.ones(positions) if valid is None else valid, np.bool_),
        )

    @property
    def num_positions(self) -> int:
        """Q."""
        return self.rest.shape[0]

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.base.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.rest.device

    def __len__(self) -> int:
        return self.num_positions

    def __repr__(self) -> str:
        return (
            f"SoftTargets(Q={self.num_positions}, V={self.vocab_size}, entries={self.token_ids.shape[0]}, "
            f"device={self.device})"
        )

    def rows(self) -> Tensor:
        """The position of every pair, (entries,) int64, ascending."""
        positions = torch.arange(self.num_positions, device=self.device)
        return positions.repeat_interleave(self.offsets.diff(), output_size=self.token_ids.shape[0])

    def validate(self) -> SoftTargets:
        """Check every value, and return the targets themselves.

        Raises
        ------
        TargetError
            Offsets that don't ascend from 0 to the number of pairs, a token outside the vocabulary or twice
            at one position, a negative probability, a base or a position that doesn't sum to 1.

        Notes
        -----
        O(entries log entries + V); it waits for the device. Meant for targets from outside, and for tests.
        """
        self.check_addresses()
        entries, tokens = self.token_ids.shape[0], self.token_ids.long()
        keys = self.rows() * self.vocab_size + tokens
        if keys.unique().shape[0] != entries:
            raise TargetError("a token stands twice at one position: merge its probabilities first")
        if abs(float(self.base.double().sum()) - 1) > _MASS_TOLERANCE or bool((self.base < 0).any()):
            raise TargetError(f"base sums to {float(self.base.sum()):.6f}: it has to be a distribution")
        if bool((self.rest < -_MASS_TOLERANCE).any()) or bool((self._entry_probs() < -_MASS_TOLERANCE).any()):
            raise TargetError("a probability is negative: sparse + rest · base has to be at least 0 everywhere")
        mass = self.rest.double().index_add(0, self.rows(), self.probs.double())
        wrong_mass = ((mass - 1).abs() > _MASS_TOLERANCE) & self.valid
        if bool(wrong_mass.any()):
            first = int(wrong_mass.nonzero()[0])
            raise TargetError(
                f"the target at position {first} sums to {float(mass[first]):.6f}: "
                "its pairs and its rest have to sum to 1"
            )
        return self

    def check_addresses(self) -> SoftTargets:
        """Check the values that others are looked up by, and return the targets themselves: what `validate` does first.

        Raises
        ------
        TargetError
            Offsets that don't ascend from 0 to the number of pairs, or a token outside of the vocabulary.

        Notes
        -----
        O(entries); it waits for the device.
        """
        entries = self.token_ids.shape[0]
        whole = self.offsets.shape[0] > 0 and self.offsets[0] == 0 and self.offsets[-1] == entries
        if not whole or bool((self.offsets.diff() < 0).any()):
            ends = (
                f"{int(self.offsets[0])} to {int(self.offsets[-1])}" if self.offsets.shape[0] else "nothing to nothing"
            )
            raise TargetError(f"offsets runs from {ends}: it has to ascend from 0 to the number of pairs, {entries}")
        tokens = self.token_ids.long()
        if entries and (int(tokens.min()) < 0 or int(tokens.max()) >= self.vocab_size):
            wrong = int(tokens.min()) if int(tokens.min()) < 0 else int(tokens.max())
            raise TargetError(f"token id {wrong} is outside of the vocabulary of {self.vocab_size}")
        return self

    def _entry_probs(self) -> Tensor:
        """Whole probability of the token of every pair, (entries,) float64."""
        base = self.base.double()[self.token_ids.long()]
        return self.probs.double() + self.rest.double()[self.rows()] * base

    def dense(self) -> Tensor:
        """All probabilities, (Q, V) float32: for tests and for looking at a few positions.

        Returns
        -------
        Tensor of shape (Q, V), float32
            O(Q · V) memory, which everything else here avoids.
        """
        dense = self.rest[:, None] * self.base
        return dense.index_put((self.rows(), self.token_ids.long()), self.probs, accumulate=True)

    def probability_of(self, tokens: Tensor) -> Tensor:
        """Probability that each target gives to one token.

        Parameters
        ----------
        tokens : Tensor of shape (Q,) or (B, T), int64
            A token a position.

        Returns
        -------
        Tensor of shape (Q,), float32
            O(entries).

        Raises
        ------
        TargetError
            Another number of tokens than of positions.
        """
        tokens = tokens.reshape(-1).long()
        if tokens.shape[0] != self.num_positions:
            raise TargetError(f"{tokens.shape[0]} tokens for {self.num_positions} targets: give one a position")
        rows = self.rows()
        explicit = torch.where(self.token_ids.long() == tokens[rows], self.probs, 0)
        return (self.rest * self.base[tokens]).index_add(0, rows, explicit)

    def entropy(self) -> Tensor:
        """Entropy of every target, exact over the whole vocabulary.

        Returns
        -------
        Tensor of shape (Q,), float32
            In nats; 0 where the target isn't valid.

        Notes
        -----
        O(entries + V): the tokens without a pair have p = rest · base, so their part is
        ``−rest · Σ base log base − rest log rest · Σ base`` over them, both sums being those over V less
        those over the pairs.
        """
        rows, rest, base = self.rows(), self.rest.double(), self.base.double()
        zeros = torch.zeros_like(rest)
        explicit = self._entry_probs().clamp_min(0)
        base_log_base = torch.special.xlogy(base, base)
        tokens = self.token_ids.long()
        entropy = -zeros.index_add(0, rows, torch.special.xlogy(explicit, explicit))
        hidden_log = base_log_base.sum() - zeros.index_add(0, rows, base_log_base[tokens])
        hidden_base = base.sum() - zeros.index_add(0, rows, base[tokens])
        entropy -= rest * hidden_log + torch.special.xlogy(rest, rest) * hidden_base
        return torch.where(self.valid, entropy, zeros).clamp_min(0).float()

    @property
    def mean_entropy(self) -> float:
        """Mean entropy of the valid positions, nats; 0 where there is none."""
        return float(self.entropy().double().sum() / self.valid.sum().clamp_min(1))

    def with_labels(self, labels: Tensor, label_weight: float) -> SoftTargets:
        """Mix every target with the hard label: ``label_weight · onehot(label) + (1 − label_weight) ·
        target``.

        Parameters
        ----------
        labels : Tensor of shape (Q,) or (B, T), int64
            The token that truly follows each position; a negative label leaves its position as it is.
        label_weight : float
            Between 0 and 1.

        Returns
        -------
        SoftTargets
            With at most one more pair a position.

        Raises
        ------
        TargetError
            A weight outside [0, 1], or labels that don't fit.
        """
        if not 0 <= label_weight <= 1:
            raise TargetError(f"label_weight is {label_weight}: give a number from 0 to 1")
        labels = labels.reshape(-1).long()
        if labels.shape[0] != self.num_positions:
            raise TargetError(f"{labels.shape[0]} labels for {self.num_positions} targets: give one a position")
        if labels.shape[0] and int(labels.max()) >= self.vocab_size:
            raise TargetError(f"label {int(labels.max())} is outside of the vocabulary of {self.vocab_size}")
        rows, known = self.rows(), labels >= 0
        weight = known * float(label_weight)
        is_label = self.token_ids.long() == labels[rows]
        probs = self.probs * (1 - weight[rows]) + is_label * weight[rows]
        present = torch.zeros_like(known).index_put((rows[is_label],), known.new_ones(()))
        added = known & ~present
        lengths = self.offsets.diff() + added
        offsets = torch.cat([self.offsets[:1], lengths.cumsum(0)])
        place = torch.arange(rows.shape[0], device=self.device) + (offsets[:-1] - self.offsets[:-1])[rows]
        token_ids = self.token_ids.new_empty(rows.shape[0] + int(added.sum()))
        new_probs = probs.new_empty(token_ids.shape)
        token_ids[place], new_probs[place] = self.token_ids, probs
        last = offsets[1:][added] - 1
        token_ids[last], new_probs[last] = labels[added].to(token_ids.dtype), weight[added]
        return replace(self, offsets=offsets, token_ids=token_ids, probs=new_probs, rest=self.rest * (1 - weight))

    def select(self, mask: Tensor) -> SoftTargets:
        """Keep some positions.

        Parameters
        ----------
        mask : Tensor of shape (Q,), bool

        Returns
        -------
        SoftTargets
            Of the positions where the mask is True, in their order.

        Raises
        ------
        TargetError
            A mask of another shape or type.
        """
        if mask.dtype != torch.bool or mask.shape != (self.num_positions,):
            raise TargetError(f"mask is {mask.dtype} of shape {tuple(mask.shape)}: give {self.num_positions} booleans")
        entries = mask[self.rows()]
        lengths = self.offsets.diff()[mask]
        kept = {name: getattr(self, name)[mask] for name in _PER_POSITION}
        return replace(
            self,
            offsets=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
            token_ids=self.token_ids[entries],
            probs=self.probs[entries],
            **kept,
        )

    def take(self, positions: Tensor) -> SoftTargets:
        """Positions by number, in any order and any number of times.

        Parameters
        ----------
        positions : Tensor of shape (P,), int64

        Returns
        -------
        SoftTargets
            Of P positions.
        """
        offsets, entries = take_entries(self.offsets, positions)
        kept = {name: getattr(self, name)[positions] for name in _PER_POSITION}
        return replace(self, offsets=offsets, token_ids=self.token_ids[entries], probs=self.probs[entries], **kept)

    def silent(self) -> SoftTargets:
        """One position without a target, in the form of these targets."""
        zero = self.offsets[:1] * 0
        return replace(
            self,
            offsets=torch.cat([zero, zero]),
            token_ids=self.token_ids[:0],
            probs=self.probs[:0],
            rest=torch.ones_like(zero, dtype=self.rest.dtype),
            match_len=zero.to(self.match_len.dtype),
            context_count=zero.to(self.context_count.dtype),
            cut_mass=zero.to(self.cut_mass.dtype),
            valid=zero.bool(),
        )

    @staticmethod
    def concatenate(parts: Sequence[SoftTargets]) -> SoftTargets:
        """Join the positions of several targets that share one base.

        Parameters
        ----------
        parts : sequence of SoftTargets
            At least one; they come from the same teacher.

        Returns
        -------
        SoftTargets
            Q is the sum of theirs.

        Raises
        ------
        TargetError
            Nothing to join, or parts with different bases.
        """
        if not parts:
            raise TargetError("there are no targets to concatenate: give at least one part")
        base = parts[0].base
        for part in parts[1:]:
            if part.base is not base and not torch.equal(part.base, base):
                raise TargetError("the parts have different base distributions: concatenate one teacher's only")
        lengths = torch.cat([part.offsets.diff() for part in parts])
        joined = {
            name: torch.cat([getattr(part, name) for part in parts]) for name in ("token_ids", "probs", *_PER_POSITION)
        }
        return SoftTargets(offsets=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]), base=base, **joined)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SoftTargets:
        """Copy to a device, as `Tensor.to` does; dtypes stay."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> SoftTargets:
        """Copy to page-locked memory, so that `to` can run beside the computation."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Any) -> SoftTargets:
        """Every tensor changed by a function."""
        return SoftTargets(**{field.name: change(getattr(self, field.name)) for field in fields(self)})


def take_entries(offsets: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets of some positions' entries once they are taken, and which entries those are."""
    lengths = offsets.diff()[positions]
    taken = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    entries = int(taken[-1])
    shift = (offsets[:-1][positions] - taken[:-1]).repeat_interleave(lengths, output_size=entries)
    return taken, torch.arange(entries, device=offsets.device) + shift


def _tensor(values: Any, dtype: Any) -> Tensor:
    """A tensor over an array's memory, or over a copy where that is read-only or of another type."""
    return torch.from_numpy(np.require(values, dtype=dtype, requirements=["C", "W"]))
