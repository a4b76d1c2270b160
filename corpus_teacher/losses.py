"""Losses of a student against labels and soft targets: pure functions, exact over the vocabulary.

The naive definition of the main one is ``-(targets.dense() * logits.log_softmax(-1)).sum(-1)``, which needs
the teacher's probabilities as a (Q, V) tensor. With p = sparse + rest · base it is the same as::

    cross-entropy(teacher, student) = logsumexp(z) − Σ_sparse p · z − rest · (base · z)
    its gradient in the logits z    = softmax(z) − p

so the teacher costs O(entries) gathers and one product with `base`. Directions: all losses are
cross-entropies H(target, student), the target first; they differ from the forward KL(target ‖ student) by the
target's entropy, a constant, and have its gradient. All are in nats.

Logits of a lower precision are read as float32, also under autocast. Rows are worked off in chunks that fit
the processor's cache, so nothing of the size of the logits is made, except their gradient.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from corpus_teacher.errors import TargetError
from corpus_teacher.targets import SoftTargets

IGNORE_INDEX = -100
"""The label of a position that doesn't count, as in torch and transformers."""

_CHUNK_ELEMENTS = {"cpu": 1 << 19}
_CHUNK_ELEMENTS_OF_AN_ACCELERATOR = 1 << 26


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


def soft_cross_entropy(
    logits: Tensor, targets: SoftTargets, *, weights: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy H(targets, softmax(logits)), exact over the vocabulary, without a dense teacher.

    Parameters
    ----------
    logits : Tensor of shape (B, T, V) or (Q, V)
        Of the student; any floating type. V may exceed the targets' vocabulary (padded embeddings): the
        tokens beyond it have target 0.
    targets : SoftTargets
        Of Q = B · T positions, in the order of the logits.
    weights : Tensor of shape (B, T) or (Q,), optional
        A weight a position, 1 by default; positions that aren't valid weigh 0 whatever is given.
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
        Shapes, vocabularies or a reduction that don't fit.

    Notes
    -----
    One pass over the logits forward and one backward. Differs from KL(targets ‖ student) by the targets'
    entropy.

    Examples
    --------
    >>> targets = SoftTargets.from_arrays([0, 1], [2], [0.6], [0.4], [0.25] * 4)
    >>> logits = torch.tensor([[0.0, 1.0, 2.0, 0.5]])
    >>> expected = -(targets.dense() * logits.log_softmax(-1)).sum()
    >>> bool(torch.isclose(soft_cross_entropy(logits, targets), expected))
    True
    """
    flat, shape = _flatten(logits, targets)
    rows, _ = _SparseCrossEntropy.apply(
        flat, targets.offsets, targets.token_ids, targets.probs, targets.rest, targets.base, None, None
    )
    counted = targets.valid.to(rows.dtype)
    if weights is not None:
        if weights.numel() != counted.numel():
            raise TargetError(f"{weights.numel()} weights for {counted.numel()} positions: give one a position")
        counted = counted * weights.reshape(-1).to(rows.dtype)
    return _reduce(rows, counted, reduction, shape)


def blended_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    targets: SoftTargets,
    *,
    corpus_weight: float | Tensor = 0.5,
    reduction: str = "mean",
) -> BlendedLoss:
    """Cross-entropy to ``(1 − corpus_weight) · onehot(label) + corpus_weight · target``, in one pass.

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
    reduction : {"mean", "sum", "none"}
        "mean" is over the counted positions.

    Returns
    -------
    BlendedLoss
        loss, and its parts: hard is H(onehot, student), soft is H(target, student) over the positions that
        have both; nats, reduced alike. The parts are detached.

    Raises
    ------
    TargetError
        Shapes, vocabularies or a reduction that don't fit.

    Notes
    -----
    Cross-entropy is linear in its target, so one softmax serves both parts: the blend costs the same as soft
    labels alone, and hard cross-entropy plus soft cross-entropy give the same number and gradient.
    """
    flat, shape = _flatten(logits, targets)
    labels = labels.reshape(-1)
    if labels.shape[0] != flat.shape[0]:
        raise TargetError(f"{labels.shape[0]} labels for {flat.shape[0]} positions: give one a position")
    counted = labels != IGNORE_INDEX
    share = torch.as_tensor(corpus_weight, dtype=targets.rest.dtype, device=flat.device).reshape(-1)
    share = torch.where(targets.valid & counted, share, 0.0)
    known = labels.clamp_min(0)
    rows, logsumexp = _SparseCrossEntropy.apply(
        flat,
        targets.offsets,
        targets.token_ids,
        targets.probs * share[targets.rows()],
        targets.rest * share,
        targets.base,
        known,
        (1 - share),
    )
    with torch.no_grad():
        hard = logsumexp - flat.gather(1, known[:, None])[:, 0].to(logsumexp.dtype)
        soft = (rows - (1 - share) * hard) / share.clamp_min(1e-6)
        taught = (share > 0).to(rows.dtype)
    every = counted.to(rows.dtype)
    return BlendedLoss(
        _reduce(rows, every, reduction, shape),
        _reduce(hard, every, reduction, shape),
        _reduce(soft, taught, reduction, shape),
    )


def label_smoothing_cross_entropy(
    logits: Tensor, labels: Tensor, epsilon: float = 0.0, *, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy to ``(1 − epsilon) · onehot(label) + epsilon / V``; with epsilon 0 the plain hard loss.

    Parameters
    ----------
    logits : Tensor of shape (B, T, V) or (Q, V)
        Of the student.
    labels : Tensor of shape (B, T) or (Q,), int64
        The token that follows each position; -100 where none counts.
    epsilon : float
        Mass of the uniform distribution, 0 to 1.
    reduction : {"mean", "sum", "none"}
        "mean" is over the counted positions.

    Returns
    -------
    Tensor
        In nats, float32 (float64 for float64 logits); 0 with a gradient path where no position counts.

    Raises
    ------
    TargetError
        An epsilon outside [0, 1], or shapes that don't fit.
    """
    if not 0 <= epsilon <= 1:
        raise TargetError(f"epsilon is {epsilon}: give a number from 0 to 1")
    flat = logits.reshape(-1, logits.shape[-1])
    labels = labels.reshape(-1)
    if labels.shape[0] != flat.shape[0]:
        raise TargetError(f"{labels.shape[0]} labels for {flat.shape[0]} positions: give one a position")
    precision = _precision(flat)
    if epsilon > 0:  # a target without pairs, all of its rest on a uniform base: faster than torch's way
        rest = flat.new_full(labels.shape, epsilon, dtype=precision)
        base = flat.new_full(flat.shape[1:], 1 / flat.shape[1], dtype=precision)
        offsets = labels.new_zeros(labels.shape[0] + 1)
        known = labels.clamp_min(0)
        rows, _ = _SparseCrossEntropy.apply(flat, offsets, known[:0], rest[:0], rest, base, known, 1 - rest)
    else:
        with torch.autocast(flat.device.type, enabled=False):
            rows = F.cross_entropy(flat.to(precision), labels, reduction="none", ignore_index=IGNORE_INDEX)
    counted = (labels != IGNORE_INDEX).to(rows.dtype)
    return _reduce(rows, counted, reduction, logits.shape[:-1])


def label_smoothing_entropy(epsilon: float, vocab_size: int) -> float:
    """Entropy of a label smoothed uniformly, in nats.

    Parameters
    ----------
    epsilon : float
        Mass of the uniform distribution, 0 to 1.
    vocab_size : int
        V.

    Returns
    -------
    float
        0 at epsilon = 0, log V at epsilon = 1, ascending between.

    Examples
    --------
    >>> round(label_smoothing_entropy(1.0, 8) - math.log(8), 6)
    0.0
    """
    each = epsilon / vocab_size
    label = 1 - epsilon + each
    others = (vocab_size - 1) * each * math.log(each) if each > 0 else 0.0
    return -(others + (label * math.log(label) if label > 0 else 0.0))


def epsilon_of_entropy(entropy: float, vocab_size: int) -> float:
    """The epsilon whose uniform label smoothing has a given entropy: the control of a soft teacher's
    softness.

    Parameters
    ----------
    entropy : float
        In nats, 0 to log V.
    vocab_size : int
        V.

    Returns
    -------
    float
        By bisection, to the last bit that matters.

    Raises
    ------
    TargetError
        An entropy that no smoothed label has.

    Examples
    --------
    >>> epsilon = epsilon_of_entropy(2.0, 4096)
    >>> round(label_smoothing_entropy(epsilon, 4096), 6)
    2.0
    """
    if not 0 <= entropy <= math.log(vocab_size) + 1e-9:
        raise TargetError(
            f"an entropy of {entropy:.4f} nats is impossible with {vocab_size} tokens: "
            f"give a number from 0 to {math.log(vocab_size):.4f}"
        )
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if label_smoothing_entropy(middle, vocab_size) < entropy:
            low = middle
        else:
            high = middle
    return (low + high) / 2


class _SparseCrossEntropy(torch.autograd.Function):
    """Rows of ``logsumexp(z) − label_mass · z[label] − Σ_sparse p · z − rest · (base · z)``, and the
    logsumexp.

    The whole mass of each target has to be 1. Only the logits get a gradient. Saves nothing of their size but
    themselves: the backward pass makes the softmax again, chunk by chunk, right where the gradient will
    stand.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        offsets: Tensor,
        token_ids: Tensor,
        probs: Tensor,
        rest: Tensor,
        base: Tensor,
        labels: Tensor | None,
        label_mass: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        precision = _precision(logits)
        rows = torch.arange(rest.shape[0], device=logits.device).repeat_interleave(
            offsets.diff(), output_size=token_ids.shape[0]
        )
        flat_ids = rows * logits.shape[1] + token_ids
        probs, rest, base = probs.to(precision), rest.to(precision), base.to(precision)
        logsumexp = torch.empty(logits.shape[0], dtype=precision, device=logits.device)
        base_part = torch.empty_like(logsumexp)
        with torch.autocast(logits.device.type, enabled=False):
            for lo, hi in _chunks(logits):
                chunk = logits[lo:hi].to(precision)
                torch.logsumexp(chunk, 1, out=logsumexp[lo:hi])
                torch.mv(chunk[:, : base.shape[0]], base, out=base_part[lo:hi])
        picked = logits.reshape(-1)[flat_ids].to(precision)
        loss = (logsumexp - rest * base_part).index_add_(0, rows, picked * probs, alpha=-1)
        if labels is not None and label_mass is not None:
            label_mass = label_mass.to(precision)
            loss -= label_mass * logits.gather(1, labels[:, None])[:, 0].to(precision)
        ctx.save_for_backward(logits, logsumexp, offsets, flat_ids, probs, rest, base, labels, label_mass)
        ctx.mark_non_differentiable(logsumexp)
        return loss, logsumexp

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rows: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        logits, logsumexp, offsets, flat_ids, probs, rest, base, labels, label_mass = ctx.saved_tensors
        grad = torch.empty_like(logits)
        chunks = _chunks(logits)
        edges = [0, flat_ids.shape[0]] if len(chunks) == 1 else offsets[[lo for lo, _ in chunks]].tolist()
        edges = edges if len(chunks) == 1 else [*edges, flat_ids.shape[0]]
        probs = -probs * grad_rows.repeat_interleave(offsets.diff(), output_size=probs.shape[0])
        with torch.autocast(logits.device.type, enabled=False):
            for number, (lo, hi) in enumerate(chunks):
                wanted = grad_rows[lo:hi]
                if logits.dtype == logsumexp.dtype:
                    chunk = torch.sub(logits[lo:hi], logsumexp[lo:hi, None], out=grad[lo:hi])
                else:
                    chunk = logits[lo:hi].to(logsumexp.dtype) - logsumexp[lo:hi, None]
                chunk.exp_().mul_(wanted[:, None])
                chunk[:, : base.shape[0]].addr_(wanted * rest[lo:hi], base, alpha=-1)
                first, last = edges[number], edges[number + 1]
                flat = chunk.view(-1)
                flat.index_add_(0, flat_ids[first:last] - lo * logits.shape[1], probs[first:last])
                if labels is not None:
                    mass = (wanted * label_mass[lo:hi])[:, None]
                    chunk.scatter_add_(1, labels[lo:hi, None], -mass)
                if logits.dtype != logsumexp.dtype:
                    grad[lo:hi] = chunk
        return grad, None, None, None, None, None, None, None


def _flatten(logits: Tensor, targets: SoftTargets) -> tuple[Tensor, torch.Size]:
    """Logits as (Q, V) and the shape of one value a position, checked against the targets."""
    flat = logits.reshape(-1, logits.shape[-1])
    if flat.shape[0] != targets.num_positions:
        raise TargetError(
            f"logits of shape {tuple(logits.shape)} have {flat.shape[0]} positions and the targets "
            f"{targets.num_positions}: give targets of the same batch"
        )
    if flat.shape[1] < targets.vocab_size:
        raise TargetError(
            f"the student knows {flat.shape[1]} tokens and the teacher {targets.vocab_size}: "
            "train a student whose vocabulary is at least the index's"
        )
    return flat, logits.shape[:-1]


def _precision(logits: Tensor) -> torch.dtype:
    """What a loss is computed in."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _chunks(logits: Tensor) -> list[tuple[int, int]]:
    """Ranges of rows that are worked off together."""
    elements = _CHUNK_ELEMENTS.get(logits.device.type, _CHUNK_ELEMENTS_OF_AN_ACCELERATOR)
    step = max(1, elements // max(1, logits.shape[1]))
    return [(lo, min(lo + step, logits.shape[0])) for lo in range(0, logits.shape[0], step)]


def _reduce(rows: Tensor, weights: Tensor, reduction: str, shape: torch.Size) -> Tensor:
    """One number, or one a position, of a weighted loss; 0 with a gradient path where nothing counts."""
    weighted = torch.where(weights != 0, rows, 0) * weights
    if reduction == "none":
        return weighted.reshape(shape)
    if reduction == "sum":
        return weighted.sum()
    if reduction == "mean":
        return weighted.sum() / weights.sum().clamp_min(torch.finfo(rows.dtype).tiny)
    raise TargetError(f"reduction {reduction!r} is unknown: give 'mean', 'sum' or 'none'")
