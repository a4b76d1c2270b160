"""Smoothed hard labels, the control of a soft teacher: is it only the softness that helps?

Naive definition: ``-(((1 − epsilon) · onehot(label) + epsilon · base) * logits.log_softmax(-1)).sum(-1)`` with a
uniform base (label smoothing), or the corpus' unigrams (unigram smoothing). It is a target without pairs, all
of its rest on one base, beside the hard label, so it runs on the code of the soft targets.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from corpus_teacher.errors import TargetError
from corpus_teacher.losses.checks import known_labels, precision_of, reduce
from corpus_teacher.losses.from_logits import position_losses
from corpus_teacher.losses.per_position import CrossEntropy
from corpus_teacher.losses.rows import FlatRows

_MASS_TOLERANCE = 1e-4
_MIXTURES = 513


def label_smoothing_cross_entropy(
    logits: Tensor, labels: Tensor, epsilon: float = 0.0, *, base: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy to ``(1 − epsilon) · onehot(label) + epsilon · base``; with epsilon 0 the plain hard loss.

    Parameters
    ----------
    logits : Tensor of shape (B, T, V) or (Q, V)
        Of the student.
    labels : Tensor of shape (B, T) or (Q,), int64
        The token that follows each position; -100 where none counts.
    epsilon : float
        Mass of the base, 0 to 1.
    base : Tensor of shape (≤ V,), optional
        A distribution: `SoftTargets.base` of a corpus teacher gives unigram smoothing. Uniform over the
        student's V tokens by default.
    reduction : {"mean", "sum", "none"}
        "mean" is over the counted positions.

    Returns
    -------
    Tensor
        In nats, float32 (float64 for float64 logits); 0 with a gradient path where no position counts.

    Raises
    ------
    TargetError
        An epsilon outside [0, 1], a base that is no distribution, or shapes or labels that don't fit.

    Notes
    -----
    Less time and memory than torch's cross_entropy: the softmax isn't kept, but made again for the gradient.

    Examples
    --------
    >>> round(float(label_smoothing_cross_entropy(torch.zeros(1, 4), torch.tensor([2]), 0.1)), 4)
    1.3863
    """
    flat = logits.reshape(-1, logits.shape[-1])
    loss, counted = smoothing_of(flat.shape[0], flat.shape[1], flat.dtype, labels, epsilon, base)
    rows, _ = position_losses(flat, loss)
    return reduce(rows, counted, reduction, logits.shape[:-1])


def smoothing_of(
    num_positions: int, vocab_size: int, dtype: torch.dtype, labels: Tensor, epsilon: float, base: Tensor | None
) -> tuple[CrossEntropy, Tensor]:
    """The smoothed loss of the plain and of the fused path, and which positions count, (Q,) of 0 and 1."""
    _check_epsilon(epsilon)
    labels, counted = known_labels(labels, num_positions, vocab_size)
    precision = precision_of(dtype)
    if epsilon == 0:
        return CrossEntropy(precision, labels=labels), counted.to(precision)
    if base is None:
        base = torch.full((vocab_size,), 1 / vocab_size, dtype=precision, device=labels.device)
    elif base.shape[0] > vocab_size:
        raise TargetError(f"base has {base.shape[0]} tokens and the student {vocab_size}: give at most as many")
    else:
        _check_base(base)
    no_pairs = labels.new_zeros(num_positions + 1)
    ones = torch.ones(num_positions, dtype=precision, device=labels.device)
    rows = FlatRows(no_pairs, labels[:0], ones[:0], ones, base, precision)
    return CrossEntropy(precision, rows, ones * epsilon, labels), counted.to(precision)


def label_smoothing_entropy(epsilon: float, vocab_size: int, base: Tensor | None = None) -> float:
    """Entropy of a smoothed label, in nats.

    Parameters
    ----------
    epsilon : float
        Mass of the base, 0 to 1.
    vocab_size : int
        V.
    base : Tensor of shape (V,), optional
        Uniform by default. Otherwise the entropy depends on the label: it is the mean over labels drawn from
        the base.

    Returns
    -------
    float
        0 at epsilon = 0, the base's entropy (log V) at epsilon = 1, ascending between.

    Raises
    ------
    TargetError
        An epsilon outside [0, 1], or a base that is no distribution over V tokens.

    Examples
    --------
    >>> round(label_smoothing_entropy(1.0, 8) - math.log(8), 6)
    0.0
    """
    _check_epsilon(epsilon)
    if base is None:
        each = epsilon / vocab_size
        own_mass = 1 - epsilon + each
        others = (vocab_size - 1) * each * math.log(each) if each > 0 else 0.0
        return -(others + (own_mass * math.log(own_mass) if own_mass > 0 else 0.0))
    if base.shape != (vocab_size,):
        raise TargetError(f"base has shape {tuple(base.shape)} for {vocab_size} tokens: give one probability a token")
    _check_base(base)
    spread = epsilon * base.double()
    surprise = torch.special.xlogy(spread, spread)
    own = 1 - epsilon + spread
    # of label w: all of the base's terms, but its own is another
    entropies = -(surprise.sum() - surprise + torch.special.xlogy(own, own))
    return float(base.double() @ entropies)


def epsilon_of_entropy(entropy: float, vocab_size: int, base: Tensor | None = None) -> float:
    """The epsilon whose smoothed label has a given entropy: the control of a soft teacher's softness.

    Parameters
    ----------
    entropy : float
        In nats, 0 to log V (to the base's entropy).
    vocab_size : int
        V.
    base : Tensor of shape (V,), optional
        As in `label_smoothing_entropy`; uniform by default.

    Returns
    -------
    float
        By bisection, to the last bit that matters.

    Raises
    ------
    TargetError
        An entropy that no smoothed label has.

    Notes
    -----
    The entropy of a mixture is concave in epsilon and its slope at 1 is not negative, so it ascends throughout.

    Examples
    --------
    >>> epsilon = epsilon_of_entropy(2.0, 4096)
    >>> round(label_smoothing_entropy(epsilon, 4096), 6)
    2.0
    """
    most = label_smoothing_entropy(1.0, vocab_size, base)
    if not 0 <= entropy <= most + 1e-9:
        over = f"{vocab_size} tokens" if base is None else "this base"
        raise TargetError(
            f"an entropy of {entropy:.4f} nats is impossible with {over}: give a number from 0 to {most:.4f}"
        )
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if label_smoothing_entropy(middle, vocab_size, base) < entropy:
            low = middle
        else:
            high = middle
    return (low + high) / 2


class MatchedSmoothing:
    """For many entropies at once: `epsilon_of_entropy` of each, the control of a soft teacher position by position.

    Parameters
    ----------
    base : Tensor of shape (V,)
        What is mixed in; over labels drawn from it, the mean entropy is that asked for.

    Raises
    ------
    TargetError
        A base that is no distribution.

    Notes
    -----
    Interpolates between 513 mixtures, made once: O(513 · distinct values of the base), then O(Q) a call.

    Examples
    --------
    >>> matched = MatchedSmoothing(torch.full((4096,), 1 / 4096))
    >>> abs(float(matched(torch.tensor([2.0]))) - epsilon_of_entropy(2.0, 4096)) < 1e-4
    True
    """

    def __init__(self, base: Tensor) -> None:
        _check_base(base)
        self.base = base
        values, counts = base.double().unique(return_counts=True)
        # finer where the entropy is steep
        self._epsilons = torch.linspace(0, 1, _MIXTURES, dtype=torch.float64, device=base.device).square()
        spread = self._epsilons[:, None] * values
        surprise = torch.special.xlogy(spread, spread)
        own = 1 - self._epsilons[:, None] + spread
        each = surprise - torch.special.xlogy(own, own) - (surprise @ counts.double())[:, None]
        self._entropies = torch.cummax(each @ (values * counts), 0).values

    def __call__(self, entropies: Tensor) -> Tensor:
        """The epsilon of every entropy, (Q,) nats in and (Q,) out; more than the base's own counts as the base's."""
        low_to_high = self._entropies
        wanted = entropies.to(low_to_high).clamp(0, float(low_to_high[-1]))
        right = torch.searchsorted(low_to_high, wanted).clamp(1, _MIXTURES - 1)
        low, high = low_to_high[right - 1], low_to_high[right]
        part = torch.where(high > low, (wanted - low) / torch.where(high > low, high - low, 1), 0)
        begin, end = self._epsilons[right - 1], self._epsilons[right]
        return (begin + part * (end - begin)).to(entropies.dtype)


def _check_epsilon(epsilon: float) -> None:
    if not 0 <= epsilon <= 1:
        raise TargetError(f"epsilon is {epsilon}: give a number from 0 to 1")


def _check_base(base: Tensor) -> None:
    total = float(base.double().sum())
    if abs(total - 1) > _MASS_TOLERANCE or bool((base < 0).any()):
        raise TargetError(f"base sums to {total:.6f}: it has to be a distribution")
