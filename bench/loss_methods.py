"""The losses that bench.losses measures, ours and the peers', each with its dense reference; and their inputs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from corpus_teacher.losses import (
    blended_cross_entropy,
    fused_linear_blended_cross_entropy,
    fused_linear_generalized_jsd,
    fused_linear_label_smoothing_cross_entropy,
    fused_linear_soft_cross_entropy,
    generalized_jsd,
    label_smoothing_cross_entropy,
    soft_cross_entropy,
)
from corpus_teacher.targets.mixed import MixedTargets, RowTable
from corpus_teacher.targets.soft import SoftTargets


@dataclass(frozen=True)
class Shape:
    """Q positions, V tokens, K pairs a position, D the width of the hidden states."""

    positions: int = 4096
    vocab_size: int = 50_000
    entries: int = 32
    width: int = 256


class Problem:
    """Inputs, each made when it is first asked for; the same for the same seed."""

    def __init__(self, shape: Shape, device: str, dtype: torch.dtype = torch.float32) -> None:
        self.shape, self.device, self.dtype = shape, device, dtype

    def _random(self, seed: int, *size: int) -> Tensor:
        made = torch.empty(size).normal_(generator=torch.Generator().manual_seed(seed))
        return made.to(self.device, self.dtype)

    @cached_property
    def logits(self) -> Tensor:
        """(Q, V), of the student."""
        return self._random(0, self.shape.positions, self.shape.vocab_size).requires_grad_()

    @cached_property
    def hidden(self) -> Tensor:
        """(Q, D), of the student."""
        return self._random(1, self.shape.positions, self.shape.width).requires_grad_()

    @cached_property
    def weight(self) -> Tensor:
        """(V, D), of its lm_head."""
        return self._random(2, self.shape.vocab_size, self.shape.width).mul_(self.shape.width**-0.5).requires_grad_()

    @cached_property
    def labels(self) -> Tensor:
        """(Q,)."""
        drawn = torch.randint(
            self.shape.vocab_size, (self.shape.positions,), generator=torch.Generator().manual_seed(3)
        )
        return drawn.to(self.device)

    @cached_property
    def targets(self) -> SoftTargets:
        """K distinct random tokens a position, and a base whose probabilities span some orders of magnitude."""
        generator = torch.Generator().manual_seed(4)
        q, v, k = self.shape.positions, self.shape.vocab_size, self.shape.entries
        start = torch.randint(v, (q, 1), generator=generator)
        step = torch.randint(1, v // k, (q, 1), generator=generator)
        tokens = (start + step * torch.arange(k)) % v
        mass = torch.rand(q, k + 1, generator=generator)
        mass /= mass.sum(1, keepdim=True)
        base = torch.randn(v, generator=generator).exp()
        made = SoftTargets.from_arrays(
            torch.arange(q + 1) * k, tokens.view(-1), mass[:, :k].reshape(-1), mass[:, k], base / base.sum()
        )
        return made.to(self.device)

    @cached_property
    def mixed(self) -> MixedTargets:
        """`targets` with half of their mass, and two references a position: a row of V / 12 tokens, one of V / 200.

        Every other row's counts are discounted, as Kneser–Ney's are, which takes an operation more an entry.
        """
        generator, v = torch.Generator().manual_seed(6), self.shape.vocab_size
        lengths = torch.tensor([max(2, v // 12)] * 32 + [max(2, v // 200)] * 32)
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        tokens = torch.cat([torch.randperm(v, generator=generator)[:length].sort().values for length in lengths])
        counts = torch.rand(tokens.shape[0], generator=generator).reciprocal_().clamp_(max=1000).floor_()
        of_rows = torch.arange(64).repeat_interleave(lengths)
        totals = torch.zeros(64).index_add_(0, of_rows, counts)
        first = torch.randint(32, (self.shape.positions,), generator=generator)
        rows = torch.stack([first, 32 + first.flip(0)], dim=1).view(-1)
        scale = 0.2 / totals[rows]
        coefficients = scale[:, None] * torch.tensor([1, 0.5, 0.8, 1.2]) * torch.ones(rows.shape[0], 1)
        coefficients[:, 1:] *= (rows % 2 == 1)[:, None]
        classes = torch.zeros(64, 4).index_put_(
            (of_rows, counts.clamp_max(3).long()), torch.ones_like(counts), accumulate=True
        )
        mass = 0.2 - (coefficients[:, 1:] * classes[rows, 1:]).sum(1)
        pairs = self.targets.to("cpu")
        pairs = replace(pairs, probs=pairs.probs / 2, rest=pairs.rest / 2 + 0.5 - mass.view(-1, 2).sum(1))
        nothing = RowTable.from_arrays([0], [], [])
        edges = torch.arange(self.shape.positions + 1) * 2
        made = MixedTargets(pairs, edges, rows, coefficients, nothing, 64).to(self.device)
        return made.with_table(RowTable(offsets, tokens.int(), counts, counts[:0]).to(self.device))

    @cached_property
    def dense(self) -> Tensor:
        """The (Q, V) teacher that other losses need."""
        return self.targets.dense().to(self.dtype)

    @cached_property
    def dense_logits(self) -> Tensor:
        """Logits that give the dense teacher."""
        return self.dense.log()

    @cached_property
    def teacher_head(self) -> tuple[Tensor, Tensor]:
        """Hidden states and lm_head of a neural teacher."""
        return self._random(5, self.shape.positions, self.shape.width), self.weight.detach().flip(0).clone()


def _jsd(logits: Tensor, log_p: Tensor) -> Tensor:
    """The dense reference of the symmetric one, mean over positions."""
    log_q = logits.log_softmax(-1)
    log_m = torch.logaddexp(log_q, log_p) - math.log(2)
    kl_of_p, kl_of_q = (log_p.exp() * (log_p - log_m)).sum(1), (log_q.exp() * (log_q - log_m)).sum(1)
    return ((kl_of_p + kl_of_q) / 2).mean()


def _hard(logits: Tensor, p: Problem) -> Tensor:
    return F.cross_entropy(logits, p.labels)


def _soft(logits: Tensor, p: Problem) -> Tensor:
    return -(p.dense * logits.log_softmax(-1)).sum(1).mean()


def _soft_mixed(logits: Tensor, p: Problem) -> Tensor:
    return -(p.mixed.dense().to(p.dtype) * logits.log_softmax(-1)).sum(1).mean()


def _blend(logits: Tensor, p: Problem) -> Tensor:
    return (_hard(logits, p) + _soft(logits, p)) / 2


def _symmetric(logits: Tensor, p: Problem) -> Tensor:
    return _jsd(logits, p.dense_logits)


def _symmetric_to_a_neural_teacher(logits: Tensor, p: Problem) -> Tensor:
    return _jsd(logits, F.linear(*p.teacher_head).log_softmax(-1))


def logits_of(p: Problem) -> Tensor:
    """What the hidden states of a problem give."""
    return F.linear(p.hidden, p.weight)


def _trl(p: Problem) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental
        from trl.experimental.gkd import GKDTrainer
    return GKDTrainer.generalized_jsd_loss(p.logits[None], p.dense_logits[None], labels=p.labels[None], beta=0.5)


def _liger(p: Problem) -> Tensor:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    loss = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.5, compiled=False)
    return loss(p.hidden, p.weight, *p.teacher_head, p.labels)


@dataclass(frozen=True)
class Method:
    """One loss; `reference` is the same one of logits, dense, and is run in float64."""

    name: str
    family: str
    run: Callable[[Problem], Tensor]
    reference: Callable[[Tensor, Problem], Tensor]
    teacher: str = ""  # the input of Problem that says what the teacher does
    package: str = ""

    @property
    def inputs(self) -> tuple[str, ...]:
        """What gets a gradient."""
        return ("logits",) if self.family == "logits" else ("hidden", "weight")

    def gradients(self, problem: Problem) -> list[Tensor]:
        """The loss, and its gradients."""
        wanted = [getattr(problem, name) for name in self.inputs]
        loss = self.run(problem)
        return [loss.detach(), *torch.autograd.grad(loss, wanted)]


METHODS = [  # the first of a family is its baseline
    Method("torch cross_entropy", "logits", lambda p: F.cross_entropy(p.logits, p.labels), _hard),
    Method("hard, ours", "logits", lambda p: label_smoothing_cross_entropy(p.logits, p.labels), _hard),
    Method("soft_cross_entropy", "logits", lambda p: soft_cross_entropy(p.logits, p.targets), _soft, "targets"),
    Method("soft, mixed form", "logits", lambda p: soft_cross_entropy(p.logits, p.mixed), _soft_mixed, "mixed"),
    Method(
        "blended_cross_entropy",
        "logits",
        lambda p: blended_cross_entropy(p.logits, p.labels, p.targets).loss,
        _blend,
        "targets",
    ),
    Method("generalized_jsd", "logits", lambda p: generalized_jsd(p.logits, p.targets), _symmetric, "targets"),
    Method("torch, dense teacher", "logits", lambda p: _soft(p.logits, p), _soft, "dense"),
    Method("TRL generalized_jsd_loss", "logits", _trl, _symmetric, "dense_logits", "trl"),
    Method("plain hard", "hidden", lambda p: F.cross_entropy(logits_of(p), p.labels), _hard),
    Method("plain soft", "hidden", lambda p: soft_cross_entropy(logits_of(p), p.targets), _soft, "targets"),
    Method(
        "fused hard",
        "hidden",
        lambda p: fused_linear_label_smoothing_cross_entropy(p.hidden, p.weight, p.labels),
        _hard,
    ),
    Method(
        "fused soft",
        "hidden",
        lambda p: fused_linear_soft_cross_entropy(p.hidden, p.weight, p.targets),
        _soft,
        "targets",
    ),
    Method(
        "fused blend",
        "hidden",
        lambda p: fused_linear_blended_cross_entropy(p.hidden, p.weight, p.labels, p.targets).loss,
        _blend,
        "targets",
    ),
    Method(
        "fused jsd",
        "hidden",
        lambda p: fused_linear_generalized_jsd(p.hidden, p.weight, p.targets),
        _symmetric,
        "targets",
    ),
    Method("Liger fused JSD", "hidden", _liger, _symmetric_to_a_neural_teacher, "teacher_head", "liger-kernel"),
]
BY_NAME = {method.name: method for method in METHODS}
