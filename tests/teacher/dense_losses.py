"""The naive twins of the losses: on dense rows, in float64, by torch's own functions and their autograd."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from corpus_teacher.targets.soft import SoftTargets


def make_logits(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()


def in_float64(targets: SoftTargets) -> SoftTargets:
    """The same targets with masses that sum to 1 in float64, as gradcheck needs them."""
    base = targets.base.double()
    mass = torch.zeros_like(targets.rest, dtype=torch.float64).index_add(0, targets.rows(), targets.probs.double())
    return replace(targets, probs=targets.probs.double(), rest=1 - mass, base=base / base.sum())


def dense_rows(targets: SoftTargets, vocab_size: int) -> Tensor:
    """(Q, V) float64, tokens beyond the targets' vocabulary 0."""
    dense = targets.rest.double()[:, None] * targets.base.double()
    dense = dense.index_put((targets.rows(), targets.token_ids.long()), targets.probs.double(), accumulate=True)
    return F.pad(dense, (0, vocab_size - targets.vocab_size))


def dense_soft_cross_entropy(logits: Tensor, targets: SoftTargets, temperature: float = 1.0) -> Tensor:
    """T² · H(p, q), (Q,)."""
    flat = logits.double().reshape(-1, logits.shape[-1])
    log_q = (flat / temperature).log_softmax(-1)
    return -(dense_rows(targets, flat.shape[1]) * log_q).sum(-1) * temperature**2


def dense_jsd(logits: Tensor, targets: SoftTargets, beta: float, temperature: float = 1.0) -> Tensor:
    """T² · JSD(β), 0 and 1 the forward and the reverse KL, (Q,)."""
    flat = logits.double().reshape(-1, logits.shape[-1])
    q = (flat / temperature).softmax(-1)
    p = dense_rows(targets, flat.shape[1])
    if beta in (0, 1):
        first, second = (p, q) if beta == 0 else (q, p)
        return (torch.xlogy(first, first) - torch.xlogy(first, second)).sum(-1) * temperature**2
    m = beta * p + (1 - beta) * q
    of_p = (torch.xlogy(p, p) - torch.xlogy(p, m)).sum(-1)
    of_q = (torch.xlogy(q, q) - torch.xlogy(q, m)).sum(-1)
    return (beta * of_p + (1 - beta) * of_q) * temperature**2
