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

from corpus_teacher.losses.per_position import PositionLoss
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
