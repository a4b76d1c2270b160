"""What a student is trained on: from its logits, the labels and what the teachers say to one number.

Free of transformers, so that a loop of one's own, or a test, takes the very loss of the trainer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from corpus_teacher.blend import (
    AdaptiveWeights,
    Blend,
    Components,
    Reason,
    blend,
    blended_loss,
    fused_linear_blended_loss,
)
from corpus_teacher.blend.components import CorpusTargets, Targets
from corpus_teacher.errors import ConfigError
from corpus_teacher.losses import (
    IGNORE_INDEX,
    MatchedSmoothing,
    fused_linear_generalized_jsd,
    fused_linear_label_smoothing_cross_entropy,
    generalized_jsd,
    label_smoothing_cross_entropy,
    temper_targets,
)
from corpus_teacher.targets.soft import SoftTargets
from corpus_teacher.training.config import DistillationConfig


class Head(NamedTuple):
    """A student's last hidden states, (B, T, D), and its lm_head, (V, D) and (V,): its logits, not made yet."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None
    soft_cap: float | None = None


@dataclass
class Taught:
    """The loss of a pass.

    Attributes
    ----------
    loss : Tensor
        Sum over the positions that count, nats.
    parts : dict of str to (Tensor, Tensor)
        By name the sum of a part over the positions that it teaches, and their number; unweighted, detached.
    blend : Blend, optional
        Who taught each position.
    """

    loss: Tensor
    parts: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    blend: Blend | None = None


class Objective:
    """The loss of a `DistillationConfig`.

    Parameters
    ----------
    config : DistillationConfig
    soft : collection of str
        The soft teachers there are: of "corpus", "neural", "self".
    unigram : Tensor of shape (V,), optional
        Needed where `smooth_with` is "unigram".

    Attributes
    ----------
    adaptive : AdaptiveWeights or None
        Of an adaptive policy: every batch is noted in them; call their `step` when an optimizer step is done.

    Raises
    ------
    ConfigError
        Settings that don't go with these teachers.
    """

    def __init__(self, config: DistillationConfig, soft: Collection[str] = (), unigram: Tensor | None = None) -> None:
        self.config = config
        self.policy = config.make_policy(soft)
        self.soft = frozenset(soft) if config.alpha or config.policy is not None else frozenset()
        self.unigram = unigram
        self.adaptive = None if self.policy.adaptive is None else AdaptiveWeights(self.policy.adaptive)
        self._matched: MatchedSmoothing | None = None
        if config.fused and "student" in self.policy.needs:
            raise ConfigError(
                "the policy asks how certain the student is, and fused makes no logits: set fused to false"
            )
        if config.label_smoothing_factor and config.smooth_with == "unigram" and unigram is None:
            raise ConfigError("smooth_with is 'unigram' and there is no corpus teacher to tell the unigrams: give one")

    def __call__(
        self,
        step: int,
        student: Tensor | Head,
        labels: Tensor | Components,
        *,
        corpus: CorpusTargets | None = None,
        neural: Targets | Tensor | None = None,
        self_teacher: Targets | Tensor | None = None,
        distinct: Tensor | None = None,
        evidence: Mapping[str, Tensor] | None = None,
        on_policy: bool = False,
    ) -> Taught:
        """The loss of a batch.

        Parameters
        ----------
        step : int
            Optimizer step, from 0.
        student : Tensor of shape (B, T, V), or Head
            The logits, or what they are made of, for a fused loss.
        labels : Components, or Tensor of shape (B, T), int64
            All that is known of the batch; or only the token that follows each position, -100 where none counts.
        corpus, neural, self_teacher, distinct, evidence
            Beside labels alone, as in `Components`.
        on_policy : bool
            The text is the student's own: its tokens are no labels, and the soft teachers share their weight.

        Returns
        -------
        Taught

        Raises
        ------
        ConfigError
            A teacher that the policy needs isn't given; a student's own text with no soft teacher.
        TargetError
            Shapes, vocabularies or labels that don't fit.
        """
        if isinstance(labels, Components):
            components = labels
        else:
            components = Components(labels, corpus, neural, self_teacher, distinct, evidence=evidence or {})
        if self.config.beta and self.soft:
            return self._divergence(student, components, on_policy)
        if (
            self.config.control in ("smoothed-uniform", "smoothed-unigram")
            and components.corpus is not None
            and self.soft
        ):
            return self._smoothed_control(student, components)
        if self.config.label_smoothing_factor and not self.soft:
            return self._label_smoothing(student, components.labels)
        if isinstance(student, Tensor) and "student" in self.policy.needs:
            components = replace(components, student=student.detach())
        made = blend(self.policy, step, components, self.adaptive)
        return self._blended(student, components, made.without_labels() if on_policy else made, noted=not on_policy)

    def _blended(self, student: Tensor | Head, components: Components, made: Blend, noted: bool = False) -> Taught:
        options: dict[str, Any] = {"temperature": self.config.temperature, "reduction": "sum"}
        if isinstance(student, Head):
            hidden, weight, bias, soft_cap = student
            taught = fused_linear_blended_loss(
                hidden, weight, components, made, bias=bias, soft_cap=soft_cap, **options
            )
        else:
            taught = blended_loss(student, components, made, **options)
        if noted and self.adaptive is not None:
            self.adaptive.note(components, taught.label_nats)
        parts = {}
        for name, total in taught.parts.items():
            weight = made.weight_of(name)
            if name == "corpus":
                weight = weight + made.weight_of("base")
            parts[name] = (total, (weight > 0).sum())
        return Taught(taught.loss, parts, made)

    def _smoothed_control(self, student: Tensor | Head, components: Components) -> Taught:
        """In place of the blend of each position a smoothed label of the same entropy."""
        corpus, flat = components.corpus, components.labels
        if not isinstance(corpus, SoftTargets):
            raise ConfigError(f"control {self.config.control!r} needs flat targets: leave the mixed form")
        counted = components.counted
        taught = corpus.valid & counted
        entropies = corpus.with_labels(flat, 1 - self.config.alpha).entropy()
        if self._matched is None:
            uniform = torch.full_like(corpus.base, 1 / corpus.vocab_size)
            self._matched = MatchedSmoothing(uniform if self.config.control == "smoothed-uniform" else corpus.base)
        spread = torch.where(taught, self._matched(entropies), 0)
        nothing = corpus.offsets.new_zeros(corpus.offsets.shape)
        stand_in = replace(
            corpus,
            offsets=nothing,
            token_ids=corpus.token_ids[:0],
            probs=corpus.probs[:0],
            rest=torch.ones_like(corpus.rest),
            base=self._matched.base,
        )
        reasons = torch.where(taught, int(Reason.CORPUS), int(Reason.HARD))
        reasons = torch.where(counted, reasons, int(Reason.NONE))
        weights = {"hard": torch.where(counted, 1 - spread, 0), "corpus": spread}
        made = Blend.of(weights, reasons, counted.float())
        return self._blended(student, Components(flat, stand_in), made)

    def _label_smoothing(self, student: Tensor | Head, labels: Tensor) -> Taught:
        epsilon = float(self.config.label_smoothing_factor)
        base = None
        if self.config.smooth_with == "unigram" and self.unigram is not None:
            base = self.unigram.to(labels.device)
        if isinstance(student, Head):
            loss = fused_linear_label_smoothing_cross_entropy(
                student.hidden, student.weight, labels, epsilon, base=base, bias=student.bias,
                soft_cap=student.soft_cap, reduction="sum",
            )  # fmt: skip
        else:
            loss = label_smoothing_cross_entropy(student, labels, epsilon, base=base, reduction="sum")
        return Taught(loss, {"smoothed": (loss.detach(), (labels != IGNORE_INDEX).sum())})

    def _divergence(self, student: Tensor | Head, components: Components, on_policy: bool) -> Taught:
        """``(1 − alpha) · H(label, student) + alpha · JSD(beta)(teacher, student)``; the label alone where the
        teacher is silent."""
        (name,) = self.soft
        targets = components.targets_of(name)
        if targets is None:
            raise ConfigError(f"the loss needs {name!r}, which isn't given: give it")
        temperature = 1.0 if name == "corpus" else self.config.temperature
        if temperature != 1:
            targets = temper_targets(targets, temperature)
        counted = components.counted
        taught = (counted & targets.valid).float()
        alpha = 1.0 if on_policy else self.config.alpha
        hard = torch.zeros_like(taught) if on_policy else counted.float() - alpha * taught
        options = {"beta": self.config.beta, "temperature": temperature, "reduction": "sum"}
        if isinstance(student, Head):
            hidden, weight, bias, soft_cap = student
            soft = fused_linear_generalized_jsd(
                hidden,
                weight,
                targets,
                bias=bias,
                soft_cap=soft_cap,
                weights=alpha * taught,
                **options,  # type: ignore[arg-type]
            )
        else:
            soft = generalized_jsd(student, targets, weights=alpha * taught, **options)  # type: ignore[arg-type]
        made = Blend.of({"hard": hard}, torch.full_like(components.labels, Reason.NONE), (hard > 0).float())
        of_labels = self._blended(student, Components(components.labels), made)
        return Taught(of_labels.loss + soft, {**of_labels.parts, name: (soft.detach() / alpha, taught.sum())})
