"""Students that exclude tokens by a logit of −∞: a finite loss where nothing teaches them, else one sentence."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import pad

from corpus_teacher.blend import Components, apply_policy, make_policy
from corpus_teacher.errors import TargetError
from corpus_teacher.targets.soft import SoftTargets

LABELS = torch.tensor([0, 1, -100])


def targets() -> SoftTargets:
    return SoftTargets(
        offsets=torch.arange(4) * 2,
        token_ids=torch.tensor([0, 1, 0, 2, 1, 2], dtype=torch.int32),
        probs=torch.full((6,), 0.5),
        rest=torch.zeros(3),
        base=torch.tensor([0.4, 0.3, 0.3]),
        valid=torch.ones(3, dtype=torch.bool),
        match_len=torch.ones(3, dtype=torch.int32),
        context_count=torch.ones(3, dtype=torch.int64),
        cut_mass=torch.zeros(3),
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_tokens_that_nobody_teaches_may_be_excluded(reduction: str) -> None:
    policy, generator = make_policy({"corpus": 0.5}), torch.Generator().manual_seed(0)
    plain = torch.randn(3, 3, generator=generator, requires_grad=True)
    masked = pad(plain.detach(), (0, 2), value=-torch.inf).requires_grad_()
    losses = []
    for logits in (plain, masked):
        taught = apply_policy(policy, 0, logits, Components(LABELS, targets()), reduction=reduction)
        taught.loss.sum().backward()
        losses.append(taught)
    torch.testing.assert_close(losses[1].loss, losses[0].loss)
    torch.testing.assert_close(masked.grad[:, :3], plain.grad)
    assert masked.grad[:, 3:].eq(0).all()
    for name, part in losses[0].parts.items():
        torch.testing.assert_close(losses[1].parts[name], part)


def test_where_nothing_counts_anything_may_be_excluded() -> None:
    logits = torch.zeros(3, 3)
    logits[2, 1] = -torch.inf  # taught by the corpus, and ignored
    taught = apply_policy(make_policy({"corpus": 0.5}), 0, logits, Components(LABELS, targets()))
    assert taught.loss.isfinite()
    unasked = torch.zeros(3, 3)
    unasked[1, 2] = -torch.inf  # taught by the corpus, which has no weight
    assert apply_policy(make_policy({"corpus": 0.0}), 0, unasked, Components(LABELS, targets())).loss.isfinite()


def test_what_is_taught_may_not_be_excluded() -> None:
    logits = torch.zeros(3, 3)
    logits[1, 2] = -torch.inf
    with pytest.raises(TargetError, match=r"logit of token 2 is -inf at position 1, where the target gives it 0.25"):
        apply_policy(make_policy({"corpus": 0.5}), 0, logits, Components(LABELS, targets()))
