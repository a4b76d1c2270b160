"""The corpus inside a student: its n-gram probabilities are a part of what the student says, in training and after it.

Two ways, both of a student's logits z and the corpus' distribution p at the same position:

- a *residual*: ``softmax(z + g · log p)``; the student learns what the counts don't know; g is a number, learnt or not;
- a *mixture*: ``λ · softmax(z) + (1 − λ) · p``; λ is given, or by evidence.

The residual needs no (Q, V) tensor of p: with p = sparse + rest · base, ``log p = log rest + log base`` but for the few
explicit tokens, and log rest, the same for all tokens of a position, changes no softmax. The mixture is made densely:
some passes over (Q, V) more. Shape letters: Q positions, V tokens of the index, V' ≥ V outputs of the student.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from corpus_teacher.blend.adaptive import Adaptive, make_adaptive
from corpus_teacher.errors import ConfigError
from corpus_teacher.settings import check_share, is_number, make_switched
from corpus_teacher.targets.soft import SoftTargets
from corpus_teacher.teacher import CorpusTeacher

UNBOUNDED_CONTEXT = 64
"""Tokens of a context that are looked at where the estimator has no bound."""

_LEAST = 1e-12
"""A probability below it counts as this: log 0 could never be outweighed."""


@dataclass(frozen=True)
class Residual:
    """The corpus' log-probabilities, added to a student's logits.

    Parameters
    ----------
    gate : float
        g, at first.
    trained : bool
        Whether g is learnt with the student, or stays.

    Raises
    ------
    ConfigError
        A gate that is no number.
    """

    gate: float = 1.0
    trained: bool = True

    def __post_init__(self) -> None:
        if not is_number(self.gate):
            raise ConfigError(f"gate is {self.gate!r}: give a number, 1 for the corpus as it is")
        if not isinstance(self.trained, bool):
            raise ConfigError(f"trained is {self.trained!r}: give true or false")


def make_residual(said: Any, where: str = "residual") -> Residual | None:
    """A residual of a table, or of true for all defaults; of false none.

    Raises
    ------
    ConfigError
        Anything else, an unknown key or a value out of range.
    """
    return make_switched(Residual, said, where, "gate and trained")


def make_mixture(said: Any, where: str = "mixture") -> float | Adaptive | None:
    """The student's weight in a mixture: a number, or what "evidence" and a table of `Adaptive` say; of None none.

    Raises
    ------
    ConfigError
        Anything else.
    """
    if said is None:
        return None
    if said == "evidence":
        return Adaptive()
    if isinstance(said, Mapping):
        return make_adaptive(said, where)
    if isinstance(said, bool) or not is_number(said):
        raise ConfigError(f"{where} is {said!r}: give the student's weight, 0 to 1, 'evidence', or a table of it")
    check_share(said, where)
    return float(said)


def add_residual(logits: Tensor, targets: SoftTargets, gate: Tensor) -> Tensor:
    """``z + g · log p``, up to a constant of each position.

    Parameters
    ----------
    logits : Tensor of shape (Q, V')
    targets : SoftTargets of Q positions
        On the same device. A position that isn't valid keeps its logits.
    gate : Tensor of one number
        Its gradient is told.

    Returns
    -------
    Tensor of shape (Q, V'), at least float32
        Outputs beyond V get the log of the least probability there is.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    base = logits.new_full((logits.shape[1],), _LEAST)
    base[: targets.vocab_size] = targets.base.to(logits).clamp_min(_LEAST)
    rows, tokens = targets.rows(), targets.token_ids.long()
    shared = targets.rest.to(logits).clamp_min(_LEAST)[rows] * base[tokens]
    explicit = (targets.probs.to(logits) + shared).clamp_min(_LEAST).log() - shared.log()
    gates = gate.to(logits) * targets.valid.to(logits)
    made = torch.addr(logits, gates, base.log())
    return made.index_put_((rows, tokens), gates[rows] * explicit, accumulate=True)


def mix_in(logits: Tensor, targets: SoftTargets, share: Tensor) -> Tensor:
    """``log(λ · softmax(z) + (1 − λ) · p)``.

    Parameters
    ----------
    logits : Tensor of shape (Q, V')
    targets : SoftTargets of Q positions
        Where one isn't valid the student is alone.
    share : Tensor of shape (Q,)
        λ, the student's weight.

    Returns
    -------
    Tensor of shape (Q, V'), float32
        Its softmax is itself. On the device of the logits.
    """
    own = torch.log_softmax(logits.float(), -1)
    targets = targets.to(own.device)
    share = torch.where(targets.valid, share.to(own), 1.0)[:, None]
    ours = own + share.log()
    theirs = targets.dense().clamp_min(0).log() + (1 - share).log()
    known = torch.logaddexp(ours[:, : targets.vocab_size], theirs)
    return torch.cat([known, ours[:, targets.vocab_size :]], 1)


def context_tokens(teacher: CorpusTeacher) -> int:
    """Tokens of a context that count."""
    return UNBOUNDED_CONTEXT if teacher.max_order is None else max(1, teacher.max_order)


def corpus_targets(teacher: CorpusTeacher, rows: npt.NDArray[Any], *, only_last: bool = False) -> SoftTargets:
    """What the corpus says after every token of some rows, or after each row's last one.

    Parameters
    ----------
    teacher : CorpusTeacher
        Of new text: one that leaves nothing out.
    rows : ndarray of shape (B, T), int64
        Token ids; negative ones are padding. After one that is none of the index's, contexts begin anew.
    only_last : bool

    Returns
    -------
    SoftTargets
        Of B · T positions, or of B.
    """
    if only_last and (rows < teacher.vocab_size).all() and (rows >= 0).all():
        answer = teacher.index.smoothed_targets(rows, estimator=teacher.estimator, top_k=teacher.top_k, only_last=True)
        return SoftTargets.from_arrays(
            answer.offsets,
            answer.token_ids,
            answer.probs,
            answer.rest,
            answer.base,
            answer.match_len,
            answer.context_count,
            answer.cut_mass,
        )
    said = teacher(rows, np.full(rows.shape, -1))
    return said.take(torch.arange(1, rows.shape[0] + 1) * rows.shape[1] - 1) if only_last else said
