"""The fused losses: equal to the plain ones on ``soft_cap(hidden @ weight.T + bias)`` and to float64, without
ever holding all logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from corpus_teacher.errors import TargetError
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
from corpus_teacher.losses import from_hidden as fused
from corpus_teacher.targets.soft import SoftTargets

from ..dense_losses import in_float64

MakeTargets = Callable[..., SoftTargets]
LABELS = torch.tensor([0, 3, -100, 6, 2, 1])
# name: (the plain loss of logits, the fused loss of hidden, weight and the head's settings)
LOSSES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "soft": (
        lambda z, targets, **how: soft_cross_entropy(z, targets, temperature=1.5, **how),
        lambda h, w, targets, **how: fused_linear_soft_cross_entropy(h, w, targets, temperature=1.5, **how),
    ),
    "blend": (
        lambda z, targets, **how: blended_cross_entropy(z, LABELS, targets, corpus_weight=0.3, **how).loss,
        lambda h, w, targets, **how: (
            fused_linear_blended_cross_entropy(h, w, LABELS, targets, corpus_weight=0.3, **how).loss
        ),
    ),
    "blend at a temperature": (
        lambda z, targets, **how: blended_cross_entropy(z, LABELS, targets, temperature=2.0, **how).loss,
        lambda h, w, targets, **how: (
            fused_linear_blended_cross_entropy(h, w, LABELS, targets, temperature=2.0, **how).loss
        ),
    ),
    "hard": (
        lambda z, targets, **how: label_smoothing_cross_entropy(z, LABELS, **how),
        lambda h, w, targets, **how: fused_linear_label_smoothing_cross_entropy(h, w, LABELS, **how),
    ),
    "unigram": (
        lambda z, targets, **how: label_smoothing_cross_entropy(z, LABELS, 0.2, base=targets.base, **how),
        lambda h, w, targets, **how: fused_linear_label_smoothing_cross_entropy(
            h, w, LABELS, 0.2, base=targets.base, **how
        ),
    ),
    "jsd": (
        lambda z, targets, **how: generalized_jsd(z, targets, beta=0.3, **how),
        lambda h, w, targets, **how: fused_linear_generalized_jsd(h, w, targets, beta=0.3, **how),
    ),
}


def make_head(seed: int, dtype: torch.dtype = torch.float64, positions: int = 6, width: int = 4, vocab_size: int = 7):
    """hidden (2, Q / 2, D), weight (V, D), bias (V,), which want gradients."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, positions // 2, width), (vocab_size, width), (vocab_size,))
    made = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    return [tensor.requires_grad_() for tensor in made]


def plain_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, soft_cap: float | None) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias)
    return logits if soft_cap is None else soft_cap * torch.tanh(logits / soft_cap)


@given(
    name=st.sampled_from(sorted(LOSSES)),
    seed=st.integers(0, 10_000),
    with_bias=st.booleans(),
    soft_cap=st.sampled_from([None, 1.5]),
    reduction=st.sampled_from(["mean", "sum"]),
    elements=st.sampled_from([1, 14, 1 << 20]),
)
def test_equals_the_plain_loss(
    random_targets: MakeTargets,
    name: str,
    seed: int,
    with_bias: bool,
    soft_cap: float | None,
    reduction: str,
    elements: int,
) -> None:
    targets = random_targets(seed, invalid=True)
    hidden, weight, bias = make_head(seed)
    inputs = [hidden, weight, bias] if with_bias else [hidden, weight]
    plain, fused_loss = LOSSES[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fused.FUSED_CHUNK_ELEMENTS, "cpu", elements)
        actual = fused_loss(
            hidden, weight, targets, bias=bias if with_bias else None, soft_cap=soft_cap, reduction=reduction
        )
        gradients = torch.autograd.grad(3 * actual, inputs)
    expected = plain(plain_logits(hidden, weight, bias if with_bias else None, soft_cap), targets, reduction=reduction)
    torch.testing.assert_close(actual, expected)
    for gradient, expected_gradient in zip(gradients, torch.autograd.grad(3 * expected, inputs), strict=True):
        torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradcheck(random_targets: MakeTargets, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(fused.FUSED_CHUNK_ELEMENTS, "cpu", 14)
    targets = in_float64(random_targets(5))
    inputs = make_head(1)
    assert torch.autograd.gradcheck(
        lambda h, w, b: LOSSES[name][1](h, w, targets, bias=b, soft_cap=2.0), inputs
    )  # it goes backward through one graph more than once, too


def test_parts_of_the_blend_are_the_plain_ones(random_targets: MakeTargets) -> None:
    targets = random_targets(6, invalid=True)
    hidden, weight, _ = make_head(6)
    share = torch.rand(2, 3, generator=torch.Generator().manual_seed(6))
    actual = fused_linear_blended_cross_entropy(hidden, weight, LABELS, targets, corpus_weight=share)
    expected = blended_cross_entropy(hidden @ weight.T, LABELS, targets, corpus_weight=share)
    for part, expected_part in zip(actual, expected, strict=True):
        torch.testing.assert_close(part, expected_part)
    assert (actual.loss.requires_grad, actual.hard.requires_grad, actual.soft.requires_grad) == (True, False, False)


def test_weights_of_positions(random_targets: MakeTargets) -> None:
    targets = random_targets(7)
    hidden, weight, _ = make_head(7)
    weights = torch.tensor([[0.0, 1.0, 2.0], [0.5, 0.0, 1.0]])
    actual = fused_linear_soft_cross_entropy(hidden, weight, targets, weights=weights)
    torch.testing.assert_close(actual, soft_cross_entropy(hidden @ weight.T, targets, weights=weights))


def test_only_the_gradients_that_are_wanted(random_targets: MakeTargets) -> None:
    targets = random_targets(3)
    hidden, weight, bias = make_head(3)
    frozen = fused_linear_soft_cross_entropy(hidden, weight.detach(), targets, bias=bias.detach())
    (gradient,) = torch.autograd.grad(frozen, hidden)
    whole = fused_linear_soft_cross_entropy(hidden, weight, targets, bias=bias)
    torch.testing.assert_close(gradient, torch.autograd.grad(whole, hidden)[0])
    with torch.no_grad():
        assert not fused_linear_soft_cross_entropy(hidden, weight, targets, bias=bias).requires_grad


def test_a_second_backward_pass_gives_the_same(random_targets: MakeTargets) -> None:
    hidden, weight, _ = make_head(3)
    loss = fused_linear_soft_cross_entropy(hidden, weight, random_targets(3))
    first = [gradient.clone() for gradient in torch.autograd.grad(2 * loss, [hidden, weight], retain_graph=True)]
    second = torch.autograd.grad(2 * loss, [hidden, weight])
    torch.testing.assert_close(first, list(second))


def test_all_masked_is_zero_with_a_gradient_path(random_targets: MakeTargets) -> None:
    nothing = replace(random_targets(2), valid=torch.zeros(6, dtype=torch.bool))
    masked = torch.full((2, 3), -100)
    for loss_of in (
        lambda h, w, b: fused_linear_soft_cross_entropy(h, w, nothing, bias=b),
        lambda h, w, b: fused_linear_blended_cross_entropy(h, w, masked, nothing, bias=b).loss,
        lambda h, w, b: fused_linear_label_smoothing_cross_entropy(h, w, masked, bias=b),
        lambda h, w, b: fused_linear_generalized_jsd(h, w, nothing, bias=b),
    ):
        inputs = make_head(2, torch.float32)
        loss = loss_of(*inputs)
        loss.backward()
        assert float(loss.detach()) == 0
        for tensor in inputs:
            assert tensor.grad is not None
            assert not tensor.grad.any()


@pytest.mark.parametrize("autocast", [True, False])
def test_bfloat16_equals_the_plain_path(
    random_targets: MakeTargets, monkeypatch: pytest.MonkeyPatch, autocast: bool
) -> None:
    monkeypatch.setitem(fused.FUSED_CHUNK_ELEMENTS, "cpu", 500 * 16)
    targets = random_targets(4, positions=64, vocab_size=500, entries=8)
    inputs = make_head(4, torch.float32 if autocast else torch.bfloat16, 64, 32, 500)
    labels = torch.arange(64)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        actual = fused_linear_blended_cross_entropy(*inputs[:2], labels, targets, bias=inputs[2]).loss
        expected = blended_cross_entropy(plain_logits(*inputs, None), labels, targets).loss
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    gradients, plain_gradients = torch.autograd.grad(actual, inputs), torch.autograd.grad(expected, inputs)
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    in_64 = blended_cross_entropy(plain_logits(*exact, None), labels, targets).loss
    for place, true_gradient in enumerate(torch.autograd.grad(in_64, exact)):
        error, plain_error = (
            float((made[place].double() - true_gradient).norm() / true_gradient.norm())
            for made in (gradients, plain_gradients)
        )
        assert gradients[place].dtype == inputs[place].dtype
        assert error < 1.1 * plain_error < 0.02  # the rounding of bfloat16 logits, and none of ours


class LargestTensor(TorchDispatchMode):
    """Watches what every operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_logits_of_the_whole_batch_never_exist(
    random_targets: MakeTargets, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(fused.FUSED_CHUNK_ELEMENTS, "cpu", 14)
    targets, inputs = random_targets(5), make_head(5, torch.float32)
    plain, fused_loss = LOSSES[name]
    with LargestTensor() as watched:
        plain(plain_logits(*inputs, None), targets).backward()
    assert watched.elements == 6 * 7
    with LargestTensor() as watched:
        fused_loss(*inputs[:2], targets, bias=inputs[2]).backward()
    assert watched.elements == 7 * 4  # the gradient of the weight


def test_wrong_calls_are_named(random_targets: MakeTargets) -> None:
    targets = random_targets(1)
    hidden, weight, bias = make_head(1, torch.float32)
    for wrong, message in (
        (lambda: fused_linear_soft_cross_entropy(hidden, weight[:, :3], targets), r"\(2, 3, 4\) and an lm_head of"),
        (lambda: fused_linear_soft_cross_entropy(hidden, weight, targets, bias=bias[:3]), r"bias has shape \(3,\)"),
        (lambda: fused_linear_soft_cross_entropy(hidden, weight, targets, soft_cap=0.0), r"soft_cap is 0\.0"),
        (lambda: fused_linear_soft_cross_entropy(hidden, weight, targets, reduction="none"), "'none' is unknown to a"),
        (lambda: fused_linear_soft_cross_entropy(hidden.bfloat16(), weight, targets), "give both in one type"),
        (lambda: fused_linear_soft_cross_entropy(hidden[:1], weight, targets), "has 3 positions and the targets 6"),
        (lambda: fused_linear_soft_cross_entropy(hidden, weight[:6], targets), "student knows 6 tokens"),
        (lambda: fused_linear_generalized_jsd(hidden, weight, targets, beta=0), "call fused_linear_soft_cross"),
        (lambda: fused_linear_blended_cross_entropy(hidden, weight, LABELS[:5], targets), "5 labels for 6"),
    ):
        with pytest.raises(TargetError, match=message):
            wrong()
