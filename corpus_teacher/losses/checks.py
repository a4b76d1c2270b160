"""What the losses share: labels, the checks of shapes, chunks of positions, and how rows become one number."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from corpus_teacher.errors import TargetError
from corpus_teacher.targets.dense import DenseTargets
from corpus_teacher.targets.mixed import AnyTargets, MixedTargets
from corpus_teacher.targets.soft import SoftTargets

IGNORE_INDEX = -100
"""The label of a position that doesn't count, as in torch and transformers."""


class BlendedLoss(NamedTuple):
    """A blended loss, and the two parts it is made of (detached, for logging), all in nats."""

    loss: Tensor
    hard: Tensor
    soft: Tensor


def shift_labels(labels: Tensor) -> Tensor:
    """Move labels from the convention of Hugging Face to the position that predicts them.

    Parameters
    ----------
    labels : Tensor of shape (B, T), int64
        Usually the input_ids themselves; -100 where a token isn't to be predicted.

    Returns
    -------
    Tensor of shape (B, T), int64
        At t the label t + 1; -100 at the last position, whose next token is not in the row.
    """
    return F.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)


def precision_of(dtype: torch.dtype) -> torch.dtype:
    """What a loss of such logits is computed in: never less than float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_targets(num_positions: int, vocab_size: int, targets: AnyTargets) -> None:
    """Refuse targets of another batch, and a student that lacks tokens of the teacher."""
    if not isinstance(targets, (SoftTargets, MixedTargets, DenseTargets)):
        raise TargetError(f"the targets are {type(targets).__name__}: give SoftTargets or MixedTargets")
    if num_positions != targets.num_positions:
        raise TargetError(
            f"the student has {num_positions} positions and the targets {targets.num_positions}: "
            "give targets of the same batch"
        )
    if vocab_size < targets.vocab_size:
        raise TargetError(
            f"the student knows {vocab_size} tokens and the teacher {targets.vocab_size}: "
            "train a student whose vocabulary is at least the teacher's"
        )


def flat_logits(logits: Tensor) -> Tensor:
    """Logits as (Q, V)."""
    if not isinstance(logits, Tensor) or logits.ndim < 1:
        raise TargetError(f"the logits are {type(logits).__name__}: give a tensor of shape (B, T, V)")
    return logits.reshape(-1, logits.shape[-1])


def one_a_position(values: Tensor, name: str, num_positions: int) -> Tensor:
    """Labels or weights as (Q,)."""
    if not isinstance(values, Tensor):
        raise TargetError(f"the {name} are {type(values).__name__}: give a tensor with one a position")
    if values.numel() != num_positions:
        raise TargetError(f"{values.numel()} {name} for {num_positions} positions: give one a position")
    return values.reshape(-1)


def known_labels(labels: Tensor, num_positions: int, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Labels as (Q,), none negative, and whether each counts, (Q,) bool.

    An accelerator checks the range by itself, when it gathers; asking here would wait for it.
    """
    labels = one_a_position(labels, "labels", num_positions)
    counted = labels != IGNORE_INDEX
    if torch.compiler.is_compiling():  # no look at values inside of a graph; the gather checks the range
        return torch.where(counted, labels, 0), counted
    if labels.device.type == "cpu" and bool((counted & ((labels < 0) | (labels >= vocab_size))).any()):
        wrong = labels[counted & ((labels < 0) | (labels >= vocab_size))]
        raise TargetError(
            f"label {int(wrong[0])} is outside of the student's {vocab_size} tokens: "
            f"give {IGNORE_INDEX} where there is none"
        )
    return torch.where(counted, labels, 0), counted


def position_weights(valid: Tensor, weights: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The weight of every position, (Q,): 0 where it isn't valid."""
    counted = valid.to(dtype)
    return counted if weights is None else counted * one_a_position(weights, "weights", len(valid)).to(dtype)


def reduce(rows: Tensor, weights: Tensor, reduction: str, shape: torch.Size) -> Tensor:
    """One number, or one a position, of a weighted loss; 0 with a gradient path where nothing counts."""
    if not isinstance(reduction, str):
        raise TargetError(f"reduction is {type(reduction).__name__}: give 'mean', 'sum' or 'none'")
    weighted = torch.where(weights != 0, rows, 0) * weights
    if reduction == "none":
        return weighted.reshape(shape)
    if reduction == "sum":
        return weighted.sum()
    if reduction == "mean":
        return weighted.sum() / weight_sum(weights)
    raise TargetError(f"reduction {reduction!r} is unknown: give 'mean', 'sum' or 'none'")


def weight_sum(weights: Tensor) -> Tensor:
    """What a mean divides by; not 0 where nothing counts."""
    return weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)
