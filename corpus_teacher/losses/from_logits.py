"""From logits to one loss a position: the autograd function of the plain path.

It saves the logits and nothing else of their size: the backward pass makes the softmax again, chunk by chunk,
right where the gradient will stand. (To write the gradient over the logits would save that buffer too, but a
caller may still read them: transformers returns them beside the loss.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from corpus_teacher.errors import TargetError
from corpus_teacher.losses.mixture import Mixture
from corpus_teacher.losses.per_position import CrossEntropy, PositionLoss
from corpus_teacher.targets.dense import cache_chunks


def position_losses(logits: Tensor, loss: PositionLoss) -> tuple[Tensor, Tensor]:
    """The loss of every position of (Q, V) logits, (Q,), and all that `loss` reports, (parts, Q), detached.

    Inside of torch.compile the same formula is traced as it is, for the compiler to fuse and differentiate.
    """
    if torch.compiler.is_compiling():
        parts = loss.values(logits, 0, logits.shape[0])
        return parts[0], parts.detach()
    return _PositionLosses.apply(logits, loss)


class _PositionLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, loss: PositionLoss) -> tuple[Tensor, Tensor]:
        # Made before the chunks: a small result kept from each would lie between their buffers, which the allocator
        # then can't join and use again (375 MB of holes at 4,096 positions of 50,000 tokens).
        parts = torch.empty(loss.num_parts, logits.shape[0], dtype=loss.precision, device=logits.device)
        with torch.autocast(logits.device.type, enabled=False):
            rash = logits.device.type == "cpu"  # and careful once something isn't finite
            for lo, hi in cache_chunks(logits):
                parts[:, lo:hi] = loss.values(logits[lo:hi], lo, hi, careful=not rash)
            if rash and not bool(parts.isfinite().all()):
                for lo, hi in cache_chunks(logits):
                    parts[:, lo:hi] = loss.values(logits[lo:hi], lo, hi)
        ctx.save_for_backward(logits)
        ctx.loss = loss
        ctx.mark_non_differentiable(parts)
        return parts[0].clone(), parts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rows: Tensor, _: Tensor) -> tuple[Tensor, None]:
        (logits,) = ctx.saved_tensors
        grad = torch.empty_like(logits, memory_format=torch.contiguous_format)
        in_place = logits.dtype == ctx.loss.precision
        with torch.autocast(logits.device.type, enabled=False):
            for lo, hi in cache_chunks(logits):
                out = grad[lo:hi] if in_place else None
                made = ctx.loss.gradient(logits[lo:hi], grad_rows[lo:hi], lo, hi, out)
                if not in_place:
                    grad[lo:hi] = made
        return grad, None


def values_of(loss: PositionLoss, logits: Tensor, lo: int, hi: int) -> Tensor:
    """`PositionLoss.values` of a chunk, careful on the CPU only where it must be; an accelerator isn't waited for."""
    if logits.device.type != "cpu":
        return loss.values(logits, lo, hi)
    found = loss.values(logits, lo, hi, careful=False)
    return found if bool(found.isfinite().all()) else loss.values(logits, lo, hi)


def check_finite(logits: Tensor, rows: Tensor, counted: Tensor, loss: CrossEntropy | Mixture) -> None:
    """Refuse a student that excludes (logit −∞) what it is taught; an accelerator isn't waited for.

    Logits that are NaN, of a student that has diverged, pass: their loss is NaN, as in torch.
    """
    if torch.compiler.is_compiling() or rows.device.type != "cpu":
        return
    infinite = (counted != 0) & rows.detach().isposinf()
    if not bool(infinite.any()):
        return
    position = int(infinite.nonzero()[0])
    target = loss.target(position, logits.shape[1])
    wrong = (logits.detach()[position].isneginf() & (target > 0)).nonzero()[:, 0]
    if wrong.shape[0]:
        raise TargetError(
            f"the student's logit of token {int(wrong[0])} is -inf at position {position}, where the target gives it "
            f"{float(target[wrong[0]].clamp_max(1)):.2g}, so the loss is infinite: mask with a large negative number, "
            "or leave such positions out (label -100, weight 0)"
        )
