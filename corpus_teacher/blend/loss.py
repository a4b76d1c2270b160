"""The loss of a blend: Σ_i w_i · H(target_i, student), and the whole of blending in one call for a training loop.

Cross-entropy is linear in its target, so this is the cross-entropy to the mixture Σ_i w_i · target_i, value and
gradient, and the naive definition is to make that mixture as a (Q, V) tensor. Here hard label, corpus and base are one
target with one softmax of the student; a sparse neural teacher costs one more pass over the logits, and a dense one
one pass over its own and the student's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from corpus_teacher.blend.blending import Blend, blend
from corpus_teacher.blend.components import Components, Targets, as_targets, position_chunks
from corpus_teacher.blend.policy import Policy
from corpus_teacher.errors import TargetError
from corpus_teacher.losses import (
    blended_cross_entropy,
    label_smoothing_cross_entropy,
    soft_cross_entropy,
    temper_targets,
)
from corpus_teacher.targets import SoftTargets


class TaughtLoss(NamedTuple):
    """The loss of a blend, what it is made of, and the blend.

    Attributes
    ----------
    loss : Tensor
        In nats.
    parts : dict of str to Tensor
        "hard", "corpus" (with the base), "neural" and "self", those that are used: the cross-entropy to each,
        unweighted, over the positions where it has weight, reduced like the loss; detached, for logging.
    blend : Blend
    """

    loss: Tensor
    parts: dict[str, Tensor]
    blend: Blend


def apply_policy(
    policy: Policy,
    step: int,
    logits: Tensor,
    labels: Tensor,
    *,
    corpus: SoftTargets | None = None,
    neural: Targets | Tensor | None = None,
    self_teacher: Targets | Tensor | None = None,
    distinct: Tensor | None = None,
    temperature: float = 1.0,
    reduction: str = "mean",
) -> TaughtLoss:
    """Blend the teachers of a batch as a policy says, and take the loss to the blend: `blend` and `blended_loss`.

    Parameters
    ----------
    policy : Policy
    step : int
        Optimizer step, from 0.
    logits, labels, corpus, neural, self_teacher, temperature, reduction
        As in `blended_loss`.
    distinct : Tensor of shape (B, T) or (Q,), optional
        As in `Components`.

    Returns
    -------
    TaughtLoss

    Raises
    ------
    ConfigError
        A component that the policy needs isn't given.
    TargetError
        Shapes, vocabularies or labels that don't fit.

    Examples
    --------
    >>> logits = torch.zeros(1, 3, 4, requires_grad=True)
    >>> neural = torch.tensor([0.0, 1.0, 2.0, 3.0]).expand(1, 3, 4)
    >>> taught = apply_policy(Policy({"neural": 0.5}), 0, logits, torch.tensor([[1, 2, -100]]), neural=neural)
    >>> round(taught.loss.item(), 4), sorted(taught.parts)
    (1.3863, ['hard', 'neural'])
    """
    neural, self_teacher = as_targets(neural), as_targets(self_teacher)
    student = logits.detach() if "student" in policy.needs else None
    components = Components(labels, corpus, neural, self_teacher, distinct, student)
    made = blend(policy, step, components)
    return blended_loss(
        logits,
        labels,
        made,
        corpus=corpus,
        neural=neural,
        self_teacher=self_teacher,
        temperature=temperature,
        reduction=reduction,
    )


def blended_loss(
    logits: Tensor,
    labels: Tensor,
    made: Blend,
    *,
    corpus: SoftTargets | None = None,
    neural: Targets | Tensor | None = None,
    self_teacher: Targets | Tensor | None = None,
    temperature: float = 1.0,
    reduction: str = "mean",
) -> TaughtLoss:
    """Cross-entropy of the student to a blend of teachers: ``scale · Σ_i w_i · H(target_i, softmax(z))``.

    Parameters
    ----------
    logits : Tensor of shape (B, T, V) or (Q, V)
        z, of the student; any floating type. V may exceed the teachers' vocabularies: their targets are 0 beyond.
    labels : Tensor of shape (B, T) or (Q,), int64
        The token that follows each position; -100 where none counts.
    made : Blend
        Of the same batch.
    corpus, neural, self_teacher
        As they were given to `Components`.
    temperature : float
        T of the neural and the self teacher: their part is ``T² · H(p_T, softmax(z / T))`` with p_T the teacher at T
        (Hinton, Vinyals and Dean 2015, section 2). Label, corpus and base are taken at 1.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the sum of the scales: by the number of labels, but under complementary weighting.

    Returns
    -------
    TaughtLoss
        In nats, float32 (float64 for float64 logits). Where nothing counts, "mean" is 0 and keeps its gradient path.

    Raises
    ------
    TargetError
        A component of the blend isn't given, or shapes, vocabularies, labels or a reduction that don't fit.

    Notes
    -----
    Never a (Q, V) target: hard label, corpus and base need one pass over the logits forward and one backward, as
    `blended_cross_entropy` alone does; each neural teacher one more of each.
    """
    said = {"corpus": corpus, "neural": as_targets(neural), "self": as_targets(self_teacher)}
    _check(logits, made, said, reduction)
    shape, flat, labels = logits.shape[:-1], logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    precision = torch.float64 if logits.dtype == torch.float64 else torch.float32
    hard, of_corpus, of_base = (made.weight_of(name).to(precision) for name in ("hard", "corpus", "base"))
    parts: dict[str, Tensor] = {}
    if corpus is None or not made.used & {"corpus", "base"}:
        rows = label_smoothing_cross_entropy(flat, labels, reduction="none")
        parts["hard"] = rows.detach() * (hard > 0)
        rows = rows * hard
    else:
        soft = of_corpus + of_base
        targets = _with_base(corpus, of_corpus, soft)
        share = _ratio(soft, hard + soft)
        rows, *both = blended_cross_entropy(flat, labels, targets, corpus_weight=share, reduction="none")
        rows = rows * (hard + soft)
        parts["hard"], parts["corpus"] = both[0] * (hard > 0), both[1]
    for name in ("neural", "self"):
        targets_of_teacher, weight = said[name], made.weight_of(name).to(precision)
        if name in made.used and targets_of_teacher is not None:
            part = _teacher_rows(flat, targets_of_teacher, weight, temperature)
            parts[name] = part.detach()
            rows = rows + weight * part
    scale = made.scale.to(precision)
    rows = rows * scale
    if reduction == "none":
        return TaughtLoss(rows.reshape(shape), {name: part.reshape(shape) for name, part in parts.items()}, made)
    loss, totals = rows.sum(), {name: part.sum() for name, part in parts.items()}
    if reduction == "mean":
        loss = loss / scale.sum().clamp_min(torch.finfo(precision).tiny)
        taught = {name: made.weight_of(name) > 0 for name in parts}
        if "corpus" in taught:
            taught["corpus"] = of_corpus + of_base > 0
        totals = {name: total / taught[name].sum().clamp_min(1) for name, total in totals.items()}
    return TaughtLoss(loss, totals, made)


def _check(logits: Tensor, made: Blend, said: dict[str, Any], reduction: str) -> None:
    """Refuse what doesn't fit the blend."""
    if reduction not in ("mean", "sum", "none"):
        raise TargetError(f"reduction {reduction!r} is unknown: give 'mean', 'sum' or 'none'")
    positions = logits.shape[:-1].numel()
    if positions != made.num_positions:
        raise TargetError(
            f"logits has {positions} positions and the blend {made.num_positions}: give both of one batch"
        )
    for name, targets in said.items():
        there = made.used & ({"corpus", "base"} if name == "corpus" else {name})
        if there and targets is None:
            given = "self_teacher" if name == "self" else name
            raise TargetError(f"the blend has {sorted(there)[0]!r} in it: give {given} to its loss too")
        if targets is not None and targets.num_positions != positions:
            raise TargetError(
                f"{name} has {targets.num_positions} positions and logits {positions}: give both of one batch"
            )


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, 0 where whole is."""
    return part / torch.where(whole > 0, whole, 1)


def _with_base(corpus: SoftTargets, of_corpus: Tensor, soft: Tensor) -> SoftTargets:
    """The corpus' targets mixed with its base, and valid wherever either has weight."""
    share = _ratio(of_corpus, soft)
    of_pairs = share[corpus.rows()]
    return replace(
        corpus,
        # where, not a product alone: what isn't valid may hold anything
        probs=torch.where(of_pairs > 0, corpus.probs * of_pairs, 0),
        rest=torch.where(share > 0, corpus.rest * share, 0) + (1 - share),
        valid=soft > 0,
    )


def _teacher_rows(logits: Tensor, targets: Targets, weight: Tensor, temperature: float) -> Tensor:
    """Cross-entropy to a teacher, (Q,); 0, whatever the teacher holds, where it has no weight."""
    taught = weight > 0
    if isinstance(targets, SoftTargets):
        tempered = targets if temperature == 1 else temper_targets(targets, temperature)
        return soft_cross_entropy(logits, tempered, weights=taught, temperature=temperature, reduction="none")
    if not 0 < temperature < float("inf"):
        raise TargetError(f"temperature is {temperature}: give a positive number, 1 for none")
    if targets.vocab_size > logits.shape[1]:
        raise TargetError(
            f"the teacher knows {targets.vocab_size} tokens and the student {logits.shape[1]}: "
            "cut the teacher's logits down to the tokens of the student"
        )
    rows: Tensor = _DenseCrossEntropy.apply(logits, targets.logits, temperature)
    return torch.where(taught, rows, 0)


class _DenseCrossEntropy(torch.autograd.Function):
    """T² · H(softmax(t / T), softmax(z / T)) of each position, and T · (softmax(z / T) − softmax(t / T)), its gradient.

    Keeps the two logits and nothing else of their size, works in chunks, and never in less than float32.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(logits, teacher)
        ctx.temperature = temperature
        precision = torch.float64 if logits.dtype == torch.float64 else torch.float32
        rows = logits.new_empty(logits.shape[0], dtype=precision)
        with torch.autocast(logits.device.type, enabled=False):
            for lo, hi in position_chunks(logits):
                log_q = torch.log_softmax(logits[lo:hi].to(precision) / temperature, 1)
                p = torch.softmax(teacher[lo:hi].to(precision) / temperature, 1)
                rows[lo:hi] = p.mul_(log_q[:, : teacher.shape[1]]).sum(1).mul_(-(temperature**2))
        return rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rows: Tensor) -> tuple[Tensor, None, None]:
        logits, teacher = ctx.saved_tensors
        grad = torch.empty_like(logits, memory_format=torch.contiguous_format)
        with torch.autocast(logits.device.type, enabled=False):
            for lo, hi in position_chunks(logits):
                scale = grad_rows[lo:hi, None] * ctx.temperature
                made = torch.softmax(logits[lo:hi].to(scale.dtype) / ctx.temperature, 1)
                p = torch.softmax(teacher[lo:hi].to(scale.dtype) / ctx.temperature, 1)
                made[:, : teacher.shape[1]] -= p.masked_fill_(scale == 0, 0)  # what has no weight may hold anything
                grad[lo:hi] = made.mul_(scale)
        return grad, None, None
