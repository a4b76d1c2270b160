"""What may teach a position, what each of them says in this batch, and why a position is taught as it is.

The components are the hard label, the corpus teacher, a neural teacher, the student itself (an average or an earlier
checkpoint of it), and the base distribution of the corpus. Each is silent at some positions. Shape letters: Q
positions (= B · T), V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import torch
from torch import Tensor

from corpus_teacher.errors import TargetError
from corpus_teacher.losses import IGNORE_INDEX
from corpus_teacher.targets import SoftTargets

COMPONENTS = ("hard", "corpus", "neural", "self", "base")
"""Who may teach; the columns of a blend's weights, in this order."""

CHUNK_ELEMENTS = {"cpu": 1 << 19}
"""Logits of a dense teacher that are worked on at once: what the processor's cache holds."""
CHUNK_ELEMENTS_OF_AN_ACCELERATOR = 1 << 24


class Reason(IntEnum):
    """Why a position is taught as it is.

    NONE: it has no label and counts in no loss. HARD … BASE: as the policy asks, and this component has the most
    weight beside the label (HARD: none has any). CORPUS_SHORTER: by the corpus, from a shorter context than the policy
    asks for. …_FALLBACK: the component that should teach is silent here, and this one teaches in its place. ROUTED:
    one of the most certain positions, left to the hard label.
    """

    NONE = 0
    HARD = 1
    CORPUS = 2
    NEURAL = 3
    SELF = 4
    BASE = 5
    CORPUS_SHORTER = 6
    HARD_FALLBACK = 7
    CORPUS_FALLBACK = 8
    NEURAL_FALLBACK = 9
    SELF_FALLBACK = 10
    BASE_FALLBACK = 11
    ROUTED = 12

    @property
    def label(self) -> str:
        """Its name in logs: "corpus-shorter"."""
        return self.name.lower().replace("_", "-")


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

    @cached_property
    def _log_total(self) -> Tensor:
        """logsumexp of each position, (Q,) float32."""
        parts = [torch.logsumexp(self.logits[lo:hi].float(), 1) for lo, hi in position_chunks(self.logits)]
        return torch.cat(parts) if parts else self.logits.new_zeros(0, dtype=torch.float32)

    def entropy(self) -> Tensor:
        """Entropy of each position, (Q,) float32, nats; 0 where it isn't valid. O(Q · V), in chunks."""
        entropy = torch.zeros_like(self._log_total)
        for lo, hi in position_chunks(self.logits):
            log_p = self.logits[lo:hi].float() - self._log_total[lo:hi, None]
            entropy[lo:hi] = torch.special.entr(log_p.exp_()).sum(1)
        return torch.where(self.valid, entropy, 0)

    def probability_of(self, tokens: Tensor) -> Tensor:
        """Probability of one token a position, (Q,) float32; tokens are (Q,) int64."""
        return self.probabilities_at(torch.arange(self.num_positions, device=tokens.device), tokens)

    def probabilities_at(self, positions: Tensor, tokens: Tensor) -> Tensor:
        """Probabilities of some tokens at some positions: all three (entries,)."""
        return (self.logits[positions, tokens].float() - self._log_total[positions]).exp()

    def top_tokens(self) -> Tensor:
        """The most probable token of each position, (Q,) int64."""
        return self.logits.argmax(1)


Targets = SoftTargets | DenseTargets
"""What a teacher says of a batch."""


@dataclass(frozen=True, eq=False)
class Components:
    """All that is known of a batch before its positions are given to teachers.

    Parameters
    ----------
    labels : Tensor of shape (B, T) or (Q,), int64
        The token that follows each position (`corpus_teacher.losses.shift_labels`); -100 where it doesn't count.
    corpus : SoftTargets, optional
        Of the corpus teacher. Its base is the component "base".
    neural, self_teacher : SoftTargets, DenseTargets, or logits of shape (B, T, V) or (Q, V), optional
        Of a neural teacher, live or cached (a window that the cache lacks isn't valid), and of the student's own
        average or earlier checkpoint.
    distinct : Tensor of shape (B, T) or (Q,), optional
        Distinct continuations of each context in the corpus, for policies that ask for them.
    student : logits of shape (B, T, V) or (Q, V), optional
        Of the student, for policies that ask how certain it is.

    Raises
    ------
    TargetError
        Another number of positions than labels.
    """

    labels: Tensor
    corpus: SoftTargets | None = None
    neural: Targets | Tensor | None = None
    self_teacher: Targets | Tensor | None = None
    distinct: Tensor | None = None
    student: Targets | Tensor | None = None

    def __post_init__(self) -> None:
        labels = self.labels.reshape(-1)
        object.__setattr__(self, "labels", labels)
        for name in ("neural", "self_teacher", "student"):
            object.__setattr__(self, name, as_targets(getattr(self, name)))
        if self.distinct is not None:
            object.__setattr__(self, "distinct", self.distinct.reshape(-1))
        for name in ("corpus", "neural", "self_teacher", "student", "distinct"):
            value = getattr(self, name)
            if value is None:
                continue
            positions = value.shape[0] if isinstance(value, Tensor) else value.num_positions
            if positions != labels.shape[0]:
                raise TargetError(
                    f"{name} has {positions} positions and labels {labels.shape[0]}: give both of one batch"
                )

    @property
    def counted(self) -> Tensor:
        """Whether each position has a label, and so counts, (Q,) bool."""
        return self.labels != IGNORE_INDEX

    def targets_of(self, name: str) -> Targets | None:
        """What "corpus", "neural", "self" or "student" says; None where it isn't given."""
        made: Targets | None = getattr(self, "self_teacher" if name == "self" else name)
        return made

    @property
    def given(self) -> tuple[str, ...]:
        """The components that there are, in the order of `COMPONENTS`."""
        there = {"hard", *(name for name in ("corpus", "neural", "self") if self.targets_of(name) is not None)}
        return tuple(name for name in COMPONENTS if name in there or (name == "base" and self.corpus is not None))


def as_targets(said: Targets | Tensor | None) -> Targets | None:
    """Logits as `DenseTargets`, all else as it is."""
    return DenseTargets(said) if isinstance(said, Tensor) else said


def position_chunks(logits: Tensor) -> list[tuple[int, int]]:
    """Ranges of the rows of (Q, V) logits that are worked on at once."""
    positions, vocab_size = logits.shape
    elements = CHUNK_ELEMENTS.get(logits.device.type, CHUNK_ELEMENTS_OF_AN_ACCELERATOR)
    step = max(1, elements // max(1, vocab_size))
    return [(lo, min(lo + step, positions)) for lo in range(0, positions, step)]
