"""Reverse KL and the generalised Jensen–Shannon divergence of a student and soft targets.

The naive definitions are on dense rows p of the target and q = softmax(z / T) of the student::

    reverse KL      KL(q ‖ p) = Σ q · log(q / p)
    JSD(β)          β · KL(p ‖ m) + (1 − β) · KL(q ‖ m),    m = β · p + (1 − β) · q

q is over the V tokens of the target: of a student with more outputs (padded or added tokens) the first V, renormalised,
since a target that gives them 0 would make the divergence infinite. The other outputs have no gradient here.

They need log p at every token, so here the target is made dense, but only a few thousand tokens of a few
positions at a time (`per_position.VOCABULARY_CHUNK`). A target that gives 0 to a token of the student is
refused: its reverse KL is infinite. (JSD(β) would be finite, at most log 2 for such a token, whatever the
student does: that hides a target that was never smoothed.) JSD(β) is that of Agarwal et al. 2023
(arXiv:2306.13649, equation 1), with 0 and 1 as the two KL divergences, as TRL has it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from corpus_teacher.errors import TargetError
from corpus_teacher.losses.checks import (
    check_targets,
    flat_logits,
    position_weights,
    precision_of,
    reduce,
)
from corpus_teacher.losses.cross_entropy import forward_kl
from corpus_teacher.losses.from_logits import position_losses
from corpus_teacher.losses.per_position import Divergence
from corpus_teacher.losses.rows import TargetRows, rows_of
from corpus_teacher.targets.mixed import AnyTargets
from corpus_teacher.targets.transforms import check_temperature


def reverse_kl(
    logits: Tensor,
    targets: AnyTargets,
    *,
    weights: Tensor | None = None,
    temperature: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Reverse divergence T² · KL(softmax(logits / T) ‖ targets), exact over the vocabulary.

    Parameters
    ----------
    logits, targets, weights, temperature, reduction
        As in `soft_cross_entropy`; the student's distribution is that over its first V outputs, renormalised.

    Returns
    -------
    Tensor
        In nats; shape, dtype and masks as in `soft_cross_entropy`. 0 where student and target are equal.

    Raises
    ------
    TargetError
        A valid target that gives 0 to a token; shapes, a temperature or a reduction that don't fit.

    Notes
    -----
    O(Q · V) time, as the student has; O(chunk) memory beside the gradient. The check for zeros takes
    O(pairs + V) and waits for the device.

    Examples
    --------
    >>> targets = SoftTargets.from_arrays([0, 1], [2], [0.6], [0.4], [0.25] * 4)
    >>> round(float(reverse_kl(torch.zeros(1, 4), targets)), 4)
    0.4298
    """
    return generalized_jsd(logits, targets, beta=1.0, weights=weights, temperature=temperature, reduction=reduction)


def generalized_jsd(
    logits: Tensor,
    targets: AnyTargets,
    *,
    beta: float = 0.5,
    weights: Tensor | None = None,
    temperature: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """T² · JSD(β)(targets, softmax(logits / T)), exact over the vocabulary.

    Parameters
    ----------
    logits, targets, weights, temperature, reduction
        As in `soft_cross_entropy`; unless beta is 0 the student's distribution is that over its first V outputs,
        renormalised.
    beta : float
        0 to 1. Between them the generalised Jensen–Shannon divergence, 0.5 the symmetric one; 0 is the forward
        KL(targets ‖ student) and 1 the reverse KL(student ‖ targets), which are not its limits (those are 0).

    Returns
    -------
    Tensor
        In nats; shape, dtype and masks as in `soft_cross_entropy`. 0 where student and target are equal.

    Raises
    ------
    TargetError
        A beta outside [0, 1]; with beta > 0 a valid target that gives 0 to a token; shapes, a temperature or a
        reduction that don't fit.

    Notes
    -----
    As in `reverse_kl`.

    Examples
    --------
    >>> targets = SoftTargets.from_arrays([0, 1], [2], [0.6], [0.4], [0.25] * 4)
    >>> round(float(generalized_jsd(torch.zeros(1, 4), targets)), 4)
    0.1053
    """
    if beta == 0:
        return forward_kl(logits, targets, weights=weights, temperature=temperature, reduction=reduction)
    flat = flat_logits(logits)
    loss = divergence_of(flat.shape[0], flat.shape[1], flat.dtype, targets, beta, temperature)
    counted = position_weights(targets.valid, weights, loss.precision)
    return reduce(position_losses(flat, loss)[0], counted, reduction, logits.shape[:-1])


def divergence_of(
    num_positions: int, vocab_size: int, dtype: torch.dtype, targets: AnyTargets, beta: float, temperature: float
) -> Divergence:
    """The divergence of the plain and of the fused path, its arguments checked; beta > 0."""
    if not 0 <= beta <= 1:
        raise TargetError(f"beta is {beta}: give a number from 0 (forward KL) to 1 (reverse KL)")
    check_targets(num_positions, vocab_size, targets)
    check_temperature(temperature)
    precision = precision_of(dtype)
    rows = rows_of(targets, precision)
    if not torch.compiler.is_compiling():
        _check_positive(targets, rows)
    return Divergence(precision, rows, beta, temperature, targets.vocab_size)


def _check_positive(targets: AnyTargets, rows: TargetRows) -> None:
    """Refuse targets that give 0 to a token."""
    missing = torch.where(targets.valid, targets.vocab_size - rows.num_positive(), 0)
    if bool((missing > 0).any()):
        first = int((missing > 0).nonzero()[0])
        raise TargetError(
            f"the target at position {first} gives 0 to {int(missing[first])} of its {targets.vocab_size} tokens, "
            "where this divergence has no finite answer: smooth the targets (rest > 0 on a base without zeros), or "
            "use forward_kl"
        )
