"""The loss of a blend: Σ_i w_i · H(target_i, student), and the whole of blending in one call for a training loop.

Cross-entropy is linear in its target, so this is the cross-entropy to the mixture Σ_i w_i · target_i, value and
gradient, and the naive definition is to make that mixture as a (Q, V) tensor. Here all of them share one softmax of the
student (`corpus_teacher.losses.mixture`); a dense teacher costs one pass over its own logits beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from corpus_teacher.blend.adaptive import AdaptiveWeights
from corpus_teacher.blend.blending import Blend, blend
from corpus_teacher.blend.components import COMPONENTS, Components, CorpusTargets, Targets
from corpus_teacher.blend.policy import Policy
from corpus_teacher.errors import ConfigError, TargetError
from corpus_teacher.losses import temper_targets
from corpus_teacher.losses.checks import check_targets, known_labels, precision_of, weight_sum
from corpus_teacher.losses.from_hidden import fused_linear, product_type
from corpus_teacher.losses.from_logits import check_finite, position_losses
from corpus_teacher.losses.mixture import Mixture, Part
from corpus_teacher.losses.rows import FlatRows, TargetRows, rows_of, sound_where
from corpus_teacher.targets.dense import DenseTargets
from corpus_teacher.targets.transforms import check_temperature


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
    label_nats : Tensor of shape (Q,)
        −log p of the student for the label of each position, whoever teaches it; detached, and of no meaning where
        there is no label.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    blend: Blend
    label_nats: Tensor


def apply_policy(
    policy: Policy,
    step: int,
    logits: Tensor,
    labels: Tensor | Components,
    *,
    corpus: CorpusTargets | None = None,
    neural: Targets | Tensor | None = None,
    self_teacher: Targets | Tensor | None = None,
    distinct: Tensor | None = None,
    evidence: Mapping[str, Tensor] | None = None,
    adaptive: AdaptiveWeights | None = None,
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
    distinct, evidence
        As in `Components`.
    adaptive : AdaptiveWeights, optional
        Of an adaptive policy: the batch is noted in them; call their `step` after the optimizer's.

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
    if not isinstance(policy, Policy):
        raise ConfigError(f"the policy is {type(policy).__name__}: give one that make_policy made")
    components = _components(labels, corpus, neural, self_teacher, distinct, evidence)
    if "student" in policy.needs:
        components = replace(components, student=logits.detach())
    made = blend(policy, step, components, adaptive)
    taught = blended_loss(logits, components, made, temperature=temperature, reduction=reduction)
    if adaptive is not None:
        adaptive.note(components, taught.label_nats)
    return taught


def blended_loss(
    logits: Tensor,
    labels: Tensor | Components,
    made: Blend,
    *,
    corpus: CorpusTargets | None = None,
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
    labels : Components, or Tensor of shape (B, T) or (Q,), int64
        What the blend was made of; or only the token that follows each position, -100 where none counts.
    made : Blend
        Of the same batch.
    corpus, neural, self_teacher
        Beside labels alone, as they were given to `Components`.
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
    Never a (Q, V) target: one pass over the logits forward and one backward, as `blended_cross_entropy` alone does; a
    temperature other than 1 one more of each.
    """
    components = _components(labels, corpus, neural, self_teacher)
    shape, flat = logits.shape[:-1], logits.reshape(-1, logits.shape[-1])
    _check(flat.shape[0], made, components, reduction)
    mixture, names = _mixture(flat.shape[1], flat.dtype, made, components, temperature)
    rows, every = position_losses(flat, mixture)
    scale = made.scale.to(mixture.precision)
    check_finite(flat, rows, scale, mixture)
    parts = _parts(every, names, made)
    scaled = torch.where(scale != 0, rows, 0) * scale
    if reduction == "none":
        told = {name: part.reshape(shape) for name, (part, _) in parts.items()}
        return TaughtLoss(scaled.reshape(shape), told, made, every[1])
    loss = scaled.sum()
    return _reduced(loss / weight_sum(scale) if reduction == "mean" else loss, parts, made, reduction, every[1])


def fused_linear_blended_loss(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor | Components,
    made: Blend,
    *,
    bias: Tensor | None = None,
    soft_cap: float | None = None,
    corpus: CorpusTargets | None = None,
    neural: Targets | Tensor | None = None,
    self_teacher: Targets | Tensor | None = None,
    temperature: float = 1.0,
    reduction: str = "mean",
) -> TaughtLoss:
    """`blended_loss` of the logits ``hidden @ weight.T + bias``, which never exist as a whole.

    Parameters
    ----------
    hidden, weight, bias, soft_cap, reduction
        As in `corpus_teacher.losses.fused_linear_soft_cross_entropy`.
    labels, made, corpus, neural, self_teacher, temperature
        As in `blended_loss`.

    Returns
    -------
    TaughtLoss

    Raises
    ------
    TargetError
        As there.
    """
    components = _components(labels, corpus, neural, self_teacher)
    _check(hidden.shape[:-1].numel(), made, components, reduction)
    dtype = product_type(hidden, weight, bias, soft_cap, reduction)
    mixture, names = _mixture(weight.shape[0], dtype, made, components, temperature)
    scale = made.scale.to(mixture.precision)
    loss, every = fused_linear(hidden, weight, bias, soft_cap, mixture, scale, reduction)
    return _reduced(loss, _parts(every, names, made), made, reduction, every[1])


def _components(
    labels: Tensor | Components,
    corpus: CorpusTargets | None,
    neural: Targets | Tensor | None,
    self_teacher: Targets | Tensor | None,
    distinct: Tensor | None = None,
    evidence: Mapping[str, Tensor] | None = None,
) -> Components:
    """The components themselves, or made of labels and teachers."""
    if not isinstance(labels, Components):
        return Components(labels, corpus, neural, self_teacher, distinct, evidence=evidence or {})
    if any(one is not None for one in (corpus, neural, self_teacher, distinct, evidence)):
        raise TargetError("components were given, and teachers beside them: put all into the components")
    return labels


def _mixture(
    vocab_size: int, dtype: torch.dtype, made: Blend, components: Components, temperature: float
) -> tuple[Mixture, list[str]]:
    """The loss of a blend, and the names of its parts after the label's."""
    check_temperature(temperature)
    precision = precision_of(dtype)
    labels, _ = known_labels(components.labels, made.num_positions, vocab_size)
    names, parts = [], []
    for name in COMPONENTS[1:]:
        targets = components.targets_of("corpus" if name == "base" else name)
        if targets is None or name not in made.used:
            continue
        check_targets(made.num_positions, vocab_size, targets)
        weight, own = made.weight_of(name).to(precision), 1.0
        if name == "base" and not isinstance(targets, DenseTargets):
            nothing = labels.new_zeros(made.num_positions + 1)
            ones = torch.ones_like(weight)
            rows: TargetRows = FlatRows(nothing, labels[:0], ones[:0], ones, targets.base, precision)
        else:
            if name in ("neural", "self") and temperature != 1:
                targets, own = temper_targets(targets, temperature), temperature
            rows = rows_of(sound_where(targets, weight > 0), precision)
        names.append(name)
        parts.append(Part(rows, weight, own))
    return Mixture(precision, labels, made.weight_of("hard").to(precision), parts), names


def _parts(every: Tensor, names: list[str], made: Blend) -> dict[str, tuple[Tensor, Tensor]]:
    """By name the entropy of every position, 0 where it isn't taught so, and whether it is: both (Q,)."""
    taught = made.weight_of("hard") > 0
    parts = {"hard": (torch.where(taught, every[1], 0), taught)}
    rows = dict(zip(names, every[2:], strict=True))
    if "base" in rows:  # corpus and base are one teacher
        of_base = made.weight_of("base").to(every)
        of_corpus = made.weight_of("corpus").to(every) if "corpus" in rows else torch.zeros_like(of_base)
        soft, base = of_corpus + of_base, rows.pop("base")
        weighted = of_base * base + torch.where(of_corpus > 0, of_corpus * rows.pop("corpus", base), 0)
        parts["corpus"] = (torch.where(soft > 0, weighted / torch.where(soft > 0, soft, 1), 0), soft > 0)
    for name, row in rows.items():
        taught = made.weight_of(name) > 0
        parts[name] = (torch.where(taught, row, 0), taught)
    return parts


def _reduced(
    loss: Tensor, parts: dict[str, tuple[Tensor, Tensor]], made: Blend, reduction: str, label_nats: Tensor
) -> TaughtLoss:
    """The parts reduced like the loss: "mean" is over the positions that are taught so."""
    totals = {}
    for name, (part, taught) in parts.items():
        total = part.sum()
        totals[name] = total / taught.sum().clamp_min(1) if reduction == "mean" else total
    return TaughtLoss(loss, totals, made, label_nats)


def _check(positions: int, made: Blend, components: Components, reduction: str) -> None:
    """Refuse what doesn't fit the blend."""
    if not isinstance(reduction, str) or reduction not in ("mean", "sum", "none"):
        raise TargetError(f"reduction {reduction!r} is unknown: give 'mean', 'sum' or 'none'")
    if positions != made.num_positions:
        raise TargetError(
            f"the student has {positions} positions and the blend {made.num_positions}: give both of one batch"
        )
    for name in ("corpus", "neural", "self"):
        there = made.used & ({"corpus", "base"} if name == "corpus" else {name})
        if there and components.targets_of(name) is None:
            given = "self_teacher" if name == "self" else name
            raise TargetError(f"the blend has {sorted(there)[0]!r} in it: give {given} to its loss too")
