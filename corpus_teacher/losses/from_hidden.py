"""The losses from the student's last hidden states: the logits of the whole batch never exist.

The naive definition of each is its plain twin on ``soft_cap(hidden @ weight.T + bias)``, and the values and
gradients are the same. Here that product is made for some positions at a time, their loss is taken, and their
gradient goes straight into those of hidden, weight and bias; then the logits are dropped. So the memory is
one chunk of logits and the gradients of the inputs, which have to be anyway.

The gradients are made in the forward pass, beside the values, as Liger-Kernel does: three products in all, as
the plain path needs (to make the logits again in the backward pass would be a fourth). Where this departs:
the gradients are of the sum, not of the mean, so that half-precision ones don't vanish below a loss scale
that comes later; those of weight and bias add up in float32; and a second backward pass through the same graph
makes them again rather than hand out what the first one scaled.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from corpus_teacher.errors import TargetError
from corpus_teacher.losses.checks import BlendedLoss, position_weights, weight_sum
from corpus_teacher.losses.cross_entropy import blend_of, reduce_blend, soft_loss_of
from corpus_teacher.losses.divergences import divergence_of
from corpus_teacher.losses.from_logits import values_of
from corpus_teacher.losses.per_position import PositionLoss
from corpus_teacher.losses.smoothing import smoothing_of
from corpus_teacher.targets.dense import chunks
from corpus_teacher.targets.mixed import AnyTargets

FUSED_CHUNK_ELEMENTS = {"cpu": 1 << 23}
"""Logits in flight: enough that the products are dense work, and that the weight's gradient is seldom read."""
FUSED_CHUNK_ELEMENTS_OF_AN_ACCELERATOR = 1 << 24


def fused_linear_soft_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: AnyTargets,
    *,
    bias: Tensor | None = None,
    soft_cap: float | None = None,
    weights: Tensor | None = None,
    temperature: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """`soft_cross_entropy` of the logits ``hidden @ weight.T + bias``, which never exist as a whole.

    Parameters
    ----------
    hidden : Tensor of shape (B, T, D) or (Q, D)
        The student's last hidden states, what its lm_head is given.
    weight : Tensor of shape (V, D)
        Of the lm_head.
    targets : SoftTargets
        Of Q = B · T positions, in the order of the hidden states.
    bias : Tensor of shape (V,), optional
        Of the lm_head.
    soft_cap : float, optional
        c of a student whose logits are ``c · tanh(z / c)``, as Gemma 2's; none by default.
    weights, temperature
        As in `soft_cross_entropy`.
    reduction : {"mean", "sum"}
        The gradients are made with the values, so there is no loss of each position to differentiate.

    Returns
    -------
    Tensor
        A scalar, in nats, float32 (float64 for float64 inputs); 0 with a gradient path where no position counts.

    Raises
    ------
    TargetError
        Shapes, vocabularies, types, a soft cap, a temperature or a reduction that don't fit.

    Notes
    -----
    Memory beside the inputs: their gradients and a few chunks of logits (33 MB each on a CPU), instead of two
    times (Q, V). Under autocast the products are in its type, as a linear layer's are; the loss in float32.

    Examples
    --------
    >>> targets = SoftTargets.from_arrays([0, 1], [2], [0.6], [0.4], [0.25] * 4)
    >>> round(float(fused_linear_soft_cross_entropy(torch.zeros(1, 8), torch.ones(4, 8), targets)), 4)
    1.3863
    """
    dtype = product_type(hidden, weight, bias, soft_cap, reduction)
    num_positions = hidden.numel() // weight.shape[1]
    loss = soft_loss_of(num_positions, weight.shape[0], dtype, targets, temperature)
    counted = position_weights(targets.valid, weights, loss.precision)
    return fused_linear(hidden, weight, bias, soft_cap, loss, counted, reduction)[0]


def fused_linear_blended_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    targets: AnyTargets,
    *,
    bias: Tensor | None = None,
    soft_cap: float | None = None,
    corpus_weight: float | Tensor = 0.5,
    temperature: float = 1.0,
    reduction: str = "mean",
) -> BlendedLoss:
    """`blended_cross_entropy` of the logits ``hidden @ weight.T + bias``, which never exist as a whole.

    Parameters
    ----------
    hidden, weight, bias, soft_cap, reduction
        As in `fused_linear_soft_cross_entropy`.
    labels, targets, corpus_weight, temperature
        As in `blended_cross_entropy`.

    Returns
    -------
    BlendedLoss
        As there: the loss, and its hard and soft part, detached.

    Raises
    ------
    TargetError
        As there.
    """
    dtype = product_type(hidden, weight, bias, soft_cap, reduction)
    num_positions = hidden.numel() // weight.shape[1]
    loss, counted, taught = blend_of(num_positions, weight.shape[0], dtype, labels, targets, corpus_weight, temperature)
    total, parts = fused_linear(hidden, weight, bias, soft_cap, loss, counted, reduction)
    told = reduce_blend(parts[0], parts, counted, taught, reduction, hidden.shape[:-1])
    return told._replace(loss=total)


def fused_linear_label_smoothing_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    epsilon: float = 0.0,
    *,
    base: Tensor | None = None,
    bias: Tensor | None = None,
    soft_cap: float | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`label_smoothing_cross_entropy` of the logits ``hidden @ weight.T + bias``; the hard loss with epsilon 0.

    Parameters
    ----------
    hidden, weight, bias, soft_cap, reduction
        As in `fused_linear_soft_cross_entropy`.
    labels, epsilon, base
        As in `label_smoothing_cross_entropy`.

    Returns
    -------
    Tensor
        As in `fused_linear_soft_cross_entropy`.

    Raises
    ------
    TargetError
        As in `label_smoothing_cross_entropy`.
    """
    dtype = product_type(hidden, weight, bias, soft_cap, reduction)
    loss, counted = smoothing_of(hidden.numel() // weight.shape[1], weight.shape[0], dtype, labels, epsilon, base)
    return fused_linear(hidden, weight, bias, soft_cap, loss, counted, reduction)[0]


def fused_linear_generalized_jsd(
    hidden: Tensor,
    weight: Tensor,
    targets: AnyTargets,
    *,
    beta: float = 0.5,
    bias: Tensor | None = None,
    soft_cap: float | None = None,
    weights: Tensor | None = None,
    temperature: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """`generalized_jsd` of the logits ``hidden @ weight.T + bias``; beta 1 is the reverse KL.

    Parameters
    ----------
    hidden, weight, targets, bias, soft_cap, weights, temperature, reduction
        As in `fused_linear_soft_cross_entropy`.
    beta : float
        Above 0, up to 1. (For beta 0, the forward KL, take `fused_linear_soft_cross_entropy`: same gradient.)

    Returns
    -------
    Tensor
        As in `fused_linear_soft_cross_entropy`.

    Raises
    ------
    TargetError
        As in `generalized_jsd`, and a beta of 0.
    """
    if beta == 0:
        raise TargetError("beta is 0, the forward KL: call fused_linear_soft_cross_entropy, which has its gradient")
    dtype = product_type(hidden, weight, bias, soft_cap, reduction)
    num_positions = hidden.numel() // weight.shape[1]
    loss = divergence_of(num_positions, weight.shape[0], dtype, targets, beta, temperature)
    counted = position_weights(targets.valid, weights, loss.precision)
    return fused_linear(hidden, weight, bias, soft_cap, loss, counted, reduction)[0]


def product_type(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, soft_cap: float | None, reduction: str
) -> torch.dtype:
    """The type of the products, once shapes and settings are known to fit."""
    if weight.ndim != 2 or hidden.shape[-1:] != weight.shape[1:]:
        raise TargetError(
            f"hidden states of shape {tuple(hidden.shape)} and an lm_head of shape {tuple(weight.shape)}: "
            "give (…, D) and (V, D)"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise TargetError(f"bias has shape {tuple(bias.shape)} for {weight.shape[0]} tokens: give one a token")
    if soft_cap is not None and not 0 < soft_cap < float("inf"):
        raise TargetError(f"soft_cap is {soft_cap}: give a positive number, or None for none")
    if reduction not in ("mean", "sum"):
        raise TargetError(f"reduction {reduction!r} is unknown to a fused loss: give 'mean' or 'sum'")
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    if hidden.dtype != weight.dtype or (bias is not None and bias.dtype != weight.dtype):
        raise TargetError(
            f"hidden states are {hidden.dtype} and the lm_head is {weight.dtype}: "
            "give both in one type, or call under torch.autocast"
        )
    return hidden.dtype


def fused_linear(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    soft_cap: float | None,
    loss: PositionLoss,
    counted: Tensor,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    """The reduced loss, and what `loss` tells of each position, (parts, Q), detached."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    head = _Head(loss, counted, soft_cap, dtype)
    total, parts = _FusedLinear.apply(hidden.reshape(-1, weight.shape[1]), weight, bias, head, torch.is_grad_enabled())
    return (total / weight_sum(counted) if reduction == "mean" else total), parts


class _Head:
    """lm_head and loss, a chunk of positions at a time."""

    def __init__(self, loss: PositionLoss, counted: Tensor, soft_cap: float | None, dtype: torch.dtype) -> None:
        self.loss = loss
        self.counted = counted
        self.soft_cap = soft_cap
        self.dtype = dtype

    def run(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, needed: tuple[bool, ...]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """What the loss tells of each position, and the gradients of Σ counted · loss in (hidden, weight, bias)
        that are needed, in the loss's precision."""
        elements = FUSED_CHUNK_ELEMENTS.get(hidden.device.type, FUSED_CHUNK_ELEMENTS_OF_AN_ACCELERATOR)
        shapes = (hidden, weight, weight[:, 0])
        grads: list[Tensor | None] = [
            torch.zeros(like.shape, dtype=self.loss.precision, device=hidden.device) if wanted else None
            for like, wanted in zip(shapes, needed, strict=True)
        ]
        weight = weight.to(self.dtype)
        bias = None if bias is None else bias.to(self.dtype)
        parts = torch.empty(self.loss.num_parts, len(hidden), dtype=self.loss.precision, device=hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            for lo, hi in chunks(hidden.shape[0], weight.shape[0], elements):
                rows = hidden[lo:hi].to(self.dtype)
                logits = torch.nn.functional.linear(rows, weight, bias)
                if self.soft_cap is not None:
                    logits = logits.to(self.loss.precision).div_(self.soft_cap).tanh_().mul_(self.soft_cap)
                parts[:, lo:hi] = values_of(self.loss, logits, lo, hi)
                if any(needed):
                    grad = self.loss.gradient(logits, self.counted[lo:hi], lo, hi, None)
                    self._backward(grad, logits, rows, weight, grads, lo, hi)
                    del grad
                del logits  # before the next chunk is made
        return parts, grads

    def _backward(
        self, grad: Tensor, logits: Tensor, rows: Tensor, weight: Tensor, grads: list[Tensor | None], lo: int, hi: int
    ) -> None:
        """From the gradient in a chunk of logits, which is used up, to those of the inputs."""
        of_hidden, of_weight, of_bias = grads
        if self.soft_cap is not None:
            grad.addcmul_(grad * logits, logits, value=-(self.soft_cap**-2))  # d tanh = 1 − tanh²
        if of_bias is not None:
            of_bias += grad.sum(0)
        grad = grad.to(self.dtype)
        if of_hidden is not None:
            of_hidden[lo:hi] = grad @ weight
        if of_weight is None:
            return
        if of_weight.dtype == self.dtype:
            of_weight.addmm_(grad.T, rows)
        else:
            of_weight += grad.T @ rows


class _FusedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, head: _Head, with_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        needed = tuple(wanted and with_gradient for wanted in ctx.needs_input_grad[:3])
        parts, grads = head.run(hidden, weight, bias, needed)
        ctx.save_for_backward(hidden, weight, bias)
        ctx.head, ctx.grads = head, grads
        ctx.mark_non_differentiable(parts)
        total = torch.where(head.counted != 0, parts[0], 0).mul_(head.counted).sum()
        return total, parts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        grads, ctx.grads = ctx.grads, None
        if grads is None:  # asked a second time (retain_graph)
            grads = ctx.head.run(hidden, weight, bias, ctx.needs_input_grad[:3])[1]
        scaled = [
            None if grad is None else grad.mul_(grad_total).to(like.dtype)
            for grad, like in zip(grads, (hidden, weight, bias), strict=True)
        ]
        return (*scaled, None, None)
