"""Reverse KL and JSD(β) against dense float64 rows, and the targets that they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.errors import TargetError
from corpus_teacher.losses import (
    forward_kl,
    fused_linear_generalized_jsd,
    generalized_jsd,
    per_position,
    reverse_kl,
)
from corpus_teacher.targets import dense as dense_targets
from corpus_teacher.targets.soft import SoftTargets

from ..dense_losses import dense_jsd, dense_rows, in_float64, make_logits

MakeTargets = Callable[..., SoftTargets]


@given(
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.integers(1, 8),
    st.sampled_from([1, 21, 1 << 20]),
)
def test_equals_the_dense_one_in_any_chunks(
    random_targets: MakeTargets, seed: int, beta: float, temperature: float, tokens: int, elements: int
) -> None:
    targets = random_targets(seed, invalid=True)
    logits = make_logits(seed, 2, 3, 7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(per_position, "VOCABULARY_CHUNK", tokens)
        patch.setitem(dense_targets.CHUNK_ELEMENTS, "cpu", elements)
        actual = generalized_jsd(logits, targets, beta=beta, temperature=temperature, reduction="none")
        (gradient,) = torch.autograd.grad(actual.sum(), logits)

    expected = (dense_jsd(logits, targets, beta, temperature) * targets.valid).reshape(2, 3)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_gradcheck(random_targets: MakeTargets, monkeypatch: pytest.MonkeyPatch, beta: float) -> None:
    monkeypatch.setattr(per_position, "VOCABULARY_CHUNK", 3)
    targets = in_float64(random_targets(5))
    assert torch.autograd.gradcheck(
        lambda z: generalized_jsd(z, targets, beta=beta, temperature=2.0, reduction="none"), make_logits(1, 6, 7)
    )


def test_zero_at_equality_and_positive_elsewhere(random_targets: MakeTargets) -> None:
    targets = in_float64(random_targets(8))
    equal, other = dense_rows(targets, 7).log(), make_logits(8, 6, 7).detach()
    for beta in (0.0, 0.5, 1.0):
        assert float(generalized_jsd(equal, targets, beta=beta)) == pytest.approx(0, abs=1e-6)
        assert float(generalized_jsd(other, targets, beta=beta)) > 0.1


def test_ends_are_the_two_directions(random_targets: MakeTargets) -> None:
    targets, logits = random_targets(3), make_logits(3, 6, 7)
    weights = torch.rand(6, generator=torch.Generator().manual_seed(3))
    first = generalized_jsd(logits, targets, beta=0.0, weights=weights)
    last = generalized_jsd(logits, targets, beta=1.0, weights=weights)
    assert torch.equal(first, forward_kl(logits, targets, weights=weights))
    assert torch.equal(last, reverse_kl(logits, targets, weights=weights))
    assert abs(float((first - last).detach())) > 0.01
    near = generalized_jsd(logits, targets, beta=1 - 1e-6, weights=weights) / 1e-6
    torch.testing.assert_close(near, last, rtol=1e-3, atol=0)  # the limit that the literature scales by 1 / (1 − β)


def test_masked_is_zero_with_a_gradient_path(random_targets: MakeTargets) -> None:
    nothing = replace(random_targets(2), valid=torch.zeros(6, dtype=torch.bool))
    logits = make_logits(3, 6, 7, dtype=torch.float32)
    loss = generalized_jsd(logits, nothing)
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_bfloat16_is_computed_in_float32(random_targets: MakeTargets) -> None:
    targets = random_targets(4, positions=64, vocab_size=500, entries=8)
    logits = make_logits(4, 64, 500, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = generalized_jsd(logits, targets)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (loss.dtype, gradient.dtype) == (torch.float32, torch.bfloat16)
    assert float(loss.detach()) == pytest.approx(float(dense_jsd(logits.detach(), targets, 0.5).mean()), abs=1e-5)


ZEROS = {
    "a base with a zero": SoftTargets.from_arrays([0, 1], [2], [0.6], [0.4], [0.5, 0.0, 0.25, 0.25]),
    "no rest": SoftTargets.from_arrays([0, 3], [0, 1, 2], [0.2, 0.2, 0.6], [0.0], [0.25] * 4),
    "a pair that takes all of its token": SoftTargets.from_arrays([0, 2], [1, 2], [-0.25, 0.25], [1.0], [0.25] * 4),
}


@pytest.mark.parametrize("name", ZEROS)
def test_targets_with_zeros_are_refused(name: str) -> None:
    logits = torch.zeros(1, 4)
    for beta in (0.5, 1.0):
        with pytest.raises(TargetError, match=r"target at position 0 gives 0 to 1 of its 4 tokens.*smooth"):
            generalized_jsd(logits, ZEROS[name], beta=beta)
    assert torch.isfinite(forward_kl(logits, ZEROS[name]))
    masked = replace(ZEROS[name], valid=torch.tensor([False]))
    assert float(generalized_jsd(logits, masked)) == 0


def test_pairs_may_cover_what_the_base_does_not() -> None:
    full = SoftTargets.from_arrays([0, 4], [0, 1, 2, 3], [0.1, 0.2, 0.3, 0.4], [0.0], [1.0, 0, 0, 0])
    logits = make_logits(5, 1, 4)
    torch.testing.assert_close(reverse_kl(logits, full), dense_jsd(logits, full, 1.0)[0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_a_wider_student_is_read_over_the_targets_vocabulary(random_targets: MakeTargets, beta: float) -> None:
    """Padded or added outputs: the first V, renormalised; the others have no gradient."""
    targets = random_targets(6, invalid=True)
    logits = make_logits(6, 6, 12)
    with torch.no_grad():
        logits[:, 7:] += 5  # most of the student's mass
        logits[1, 9] = -torch.inf
    inner = logits.detach()[:, :7].clone().requires_grad_()
    expected = dense_jsd(inner, targets, beta, 2.0) * targets.valid
    (expected_gradient,) = torch.autograd.grad(expected.sum(), inner)
    actual = generalized_jsd(logits, targets, beta=beta, temperature=2.0, reduction="none")
    (gradient,) = torch.autograd.grad(actual.sum(), logits)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradient[:, :7], expected_gradient, atol=1e-6, rtol=1e-6)
    assert not gradient[:, 7:].any()
    hidden, weight = make_logits(7, 6, 3), make_logits(8, 12, 3)
    fused = fused_linear_generalized_jsd(hidden, weight, targets, beta=beta)
    plain = generalized_jsd(hidden @ weight.T, targets, beta=beta)
    torch.testing.assert_close(fused, plain)
    for mine, other in zip(
        torch.autograd.grad(fused, (hidden, weight)), torch.autograd.grad(plain, (hidden, weight)), strict=True
    ):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_tokens_that_the_student_excludes(random_targets: MakeTargets, beta: float) -> None:
    targets = random_targets(9)
    masked = make_logits(9, 6, 7, dtype=torch.float32)
    with torch.no_grad():
        masked[:, 2] = -torch.inf
    loss = generalized_jsd(masked, targets, beta=beta)
    (gradient,) = torch.autograd.grad(loss, masked)
    torch.testing.assert_close(loss.double(), dense_jsd(masked.detach(), targets, beta).mean(), atol=1e-5, rtol=1e-5)
    assert gradient.isfinite().all()


def test_a_masked_target_with_zeros_has_no_gradient() -> None:
    masked = replace(ZEROS["no rest"], valid=torch.tensor([False]))
    logits = make_logits(1, 1, 4)
    (gradient,) = torch.autograd.grad(reverse_kl(logits, masked), logits)
    assert not gradient.any()


def test_wrong_calls_are_named(random_targets: MakeTargets) -> None:
    targets = random_targets(1)
    with pytest.raises(TargetError, match="the student knows 6 tokens and the teacher 7"):
        reverse_kl(torch.zeros(6, 6), targets)
    for beta in (-0.1, 1.1):
        with pytest.raises(TargetError, match=f"beta is {beta}"):
            generalized_jsd(torch.zeros(6, 7), targets, beta=beta)
    with pytest.raises(TargetError, match="has 5 positions and the targets 6"):
        reverse_kl(torch.zeros(5, 7), targets)
    with pytest.raises(TargetError, match="temperature is 0"):
        reverse_kl(torch.zeros(6, 7), targets, temperature=0)
