"""Cross-entropy and forward KL of a student to soft targets, exact over the vocabulary, without a dense
teacher.

The naive definition is ``-(targets.dense() * logits.log_softmax(-1)).sum(-1)``, which needs the teacher's
probabilities as a (Q, V) tensor. With p = sparse + rest · base it is the same as::

    cross-entropy(teacher, student) = − Σ_sparse p · log q − rest · (base · log q)      q = softmax(z)
    its gradient in the logits z    = q − p

so the teacher costs O(pairs) gathers and one product with `base`. Directions: the target stands first,
H(target, student) and KL(target ‖ student); they differ by the target's entropy, a constant, and have the
same gradient. All are in nats.

Logits of a lower precision are read as float32, also under autocast. Rows are worked off in chunks that fit
the processor's cache, so nothing of the size of the logits is made, except their gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from corpus_teacher.errors import TargetError
from corpus_teacher.losses.checks import (
    BlendedLoss,
    check_targets,
    flat_logits,
    known_labels,
    one_a_position,
    position_weights,
    precision_of,
    reduce,
)
from corpus_teacher.losses.from_logits import check_finite, position_losses
from corpus_teacher.losses.per_position import CrossEntropy
from corpus_teacher.losses.rows import rows_of
from corpus_teacher.settings import is_number
from corpus_teacher.targets.mixed import AnyTargets
from corpus_teacher.targets.transforms import check_temperature


def soft_cross_entropy(
    logits: Tensor,
    targets: AnyTargets,
    *,
    weights: Tensor | None = None,
    temperature: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy T² · H(targets, softmax(logits / T)), exact over the vocabulary, without a dense teacher.

    Parameters
    ----------
    logits : Tensor of shape (B, T, V) or (Q, V)
        Of the student; any floating type. V may exceed the targets' vocabulary (padded embeddings): the
        tokens beyond it have target 0.
    targets : SoftTargets
        Of Q = B · T positions, in the order of the logits.
    weights : Tensor of shape (B, T) or (Q,), optional
        A weight a position, 1 by default; positions that aren't valid weigh 0 whatever is given.
    temperature : float
        T, of the student; 1 leaves everything as it is. The targets are taken as they are: give them the same
        temperature with `temper_targets`, which keeps them exact. The loss is multiplied by T²: both softmaxes
        at T have gradients 1/T² the size, so with it the weight beside a hard label means the same at every T
        (Hinton, Vinyals and Dean 2015, section 2). Divide by T² for the entropy itself.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the sum of the weights.

    Returns
    -------
    Tensor
        In nats, float32 (float64 for float64 logits): a scalar, or for "none" of shape (B, T) or (Q,). Where
        no position counts, "mean" is 0 and keeps its gradient path.

    Raises
    ------
    TargetError
        Shapes, vocabularies, a temperature or a reduction that don't fit.

    Notes
    -----
    One pass over the logits forward and one backward. Differs from `forward_kl` by the targets' entropy.

    Examples
    --------
    >>> targets = SoftTargets.from_arrays([0, 1], [2], [0.6], [0.4], [0.25] * 4)
    >>> logits = torch.tensor([[0.0, 1.0, 2.0, 0.5]])
    >>> expected = -(targets.dense() * logits.log_softmax(-1)).sum()
    >>> bool(torch.isclose(soft_cross_entropy(logits, targets), expected))
    True
    """
    rows, counted = _soft_rows(logits, targets, weights, temperature)
    return reduce(rows, counted, reduction, logits.shape[:-1])


def forward_kl(
    logits: Tensor,
    targets: AnyTargets,
    *,
    weights: Tensor | None = None,
    temperature: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Forward divergence T² · KL(targets ‖ softmax(logits / T)), exact over the vocabulary.

    Parameters
    ----------
    logits, targets, weights, temperature, reduction
        As in `soft_cross_entropy`.

    Returns
    -------
    Tensor
        As there, less the entropy of the targets: 0 where student and target are equal. Same gradient.

    Raises
    ------
    TargetError
        As there.

    Notes
    -----
    Targets may have zeros: 0 · log 0 is 0. O(pairs + V) more than the cross-entropy.

    Examples
    --------
    >>> targets = SoftTargets.from_arrays([0, 1], [2], [0.6], [0.4], [0.25] * 4)
    >>> abs(round(float(forward_kl(targets.dense().log(), targets)), 6))
    0.0
    """
    rows, counted = _soft_rows(logits, targets, weights, temperature)
    rows = rows - targets.entropy().to(rows.dtype) * temperature**2
    return reduce(rows, counted, reduction, logits.shape[:-1])


def blended_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    targets: AnyTargets,
    *,
    corpus_weight: float | Tensor = 0.5,
    temperature: float = 1.0,
    reduction: str = "mean",
) -> BlendedLoss:
    """``(1 − corpus_weight) · H(onehot(label), student) + corpus_weight · T² · H(target, student at T)``.

    Parameters
    ----------
    logits : Tensor of shape (B, T, V) or (Q, V)
        Of the student; V as in `soft_cross_entropy`.
    labels : Tensor of shape (B, T) or (Q,), int64
        The token that follows each position (see `shift_labels`); a position with label -100 doesn't count.
    targets : SoftTargets
        Of the same positions. Where one isn't valid the hard label has the whole weight.
    corpus_weight : float or Tensor of shape (B, T) or (Q,)
        Share of the soft target, 0 to 1.
    temperature : float
        T of the student against the soft target, with its T², as in `soft_cross_entropy`; the hard label sees
        the student at 1.
    reduction : {"mean", "sum", "none"}
        "mean" is over the counted positions.

    Returns
    -------
    BlendedLoss
        loss, and its parts: hard is H(onehot, student), soft is T² · H(target, student) over the positions that
        have both; nats, reduced alike. The parts are detached.

    Raises
    ------
    TargetError
        Shapes, vocabularies, labels, a temperature or a reduction that don't fit.

    Notes
    -----
    Cross-entropy is linear in its target, so at T = 1 one softmax serves both parts: the blend costs the same as
    soft labels alone, and hard cross-entropy plus soft cross-entropy give the same number and gradient.

    Examples
    --------
    >>> targets = SoftTargets.from_arrays([0, 1], [2], [0.6], [0.4], [0.25] * 4)
    >>> blend = blended_cross_entropy(torch.zeros(1, 4), torch.tensor([2]), targets)
    >>> [round(float(part), 4) for part in blend]
    [1.3863, 1.3863, 1.3863]
    """
    flat = flat_logits(logits)
    loss, counted, taught = blend_of(
        flat.shape[0], flat.shape[1], flat.dtype, labels, targets, corpus_weight, temperature
    )
    rows, parts = position_losses(flat, loss)
    check_finite(flat, rows, counted, loss)
    return reduce_blend(rows, parts, counted, taught, reduction, logits.shape[:-1])


def soft_loss_of(
    num_positions: int, vocab_size: int, dtype: torch.dtype, targets: AnyTargets, temperature: float
) -> CrossEntropy:
    """The soft loss of the plain and of the fused path, its arguments checked."""
    check_targets(num_positions, vocab_size, targets)
    check_temperature(temperature)
    precision = precision_of(dtype)
    return CrossEntropy(precision, rows_of(targets, precision), temperature=temperature)


def blend_of(
    num_positions: int,
    vocab_size: int,
    dtype: torch.dtype,
    labels: Tensor,
    targets: AnyTargets,
    corpus_weight: float | Tensor,
    temperature: float,
) -> tuple[CrossEntropy, Tensor, Tensor]:
    """The blend of the plain and of the fused path, and which positions count in it and in its soft part, (Q,)
    of 0 and 1."""
    check_targets(num_positions, vocab_size, targets)
    check_temperature(temperature)
    precision = precision_of(dtype)
    labels, counted = known_labels(labels, num_positions, vocab_size)
    if not isinstance(corpus_weight, Tensor) and not is_number(corpus_weight):
        raise TargetError(f"corpus_weight is {corpus_weight!r}: give a number, or a tensor with one a position")
    share = torch.as_tensor(corpus_weight, dtype=precision, device=labels.device)
    if share.ndim:
        share = one_a_position(share, "corpus weights", num_positions)
    share = torch.where(targets.valid & counted, share, 0.0)
    loss = CrossEntropy(precision, rows_of(targets, precision), share, labels, temperature)
    return loss, counted.to(precision), (share > 0).to(precision)


def reduce_blend(
    total: Tensor, parts: Tensor, counted: Tensor, taught: Tensor, reduction: str, shape: torch.Size
) -> BlendedLoss:
    """Rows of a blend and of its parts, (Q,) and (3, Q), reduced alike."""
    return BlendedLoss(
        reduce(total, counted, reduction, shape),
        reduce(parts[1], counted, reduction, shape),
        reduce(parts[2], taught, reduction, shape),
    )


def _soft_rows(
    logits: Tensor, targets: AnyTargets, weights: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor]:
    """The soft loss of every position and its weight, (Q,) both."""
    flat = flat_logits(logits)
    loss = soft_loss_of(flat.shape[0], flat.shape[1], flat.dtype, targets, temperature)
    rows, counted = position_losses(flat, loss)[0], position_weights(targets.valid, weights, loss.precision)
    check_finite(flat, rows, counted, loss)
    return rows, counted
