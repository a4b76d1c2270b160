"""The losses against a dense float64 reference: values, gradients, dtypes, masks."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.errors import TargetError
from corpus_teacher.losses import (
    blended_cross_entropy,
    epsilon_of_entropy,
    forward_kl,
    generalized_jsd,
    label_smoothing_cross_entropy,
    label_smoothing_entropy,
    shift_labels,
    soft_cross_entropy,
)
from corpus_teacher.targets import dense as dense_targets
from corpus_teacher.targets.soft import SoftTargets

from ..dense_losses import dense_rows, dense_soft_cross_entropy, in_float64, make_logits

MakeTargets = Callable[..., SoftTargets]


@given(st.integers(0, 10_000), st.sampled_from(["mean", "sum", "none"]), st.integers(0, 3))
def test_soft_equals_dense(random_targets: MakeTargets, seed: int, reduction: str, padding: int) -> None:
    targets = random_targets(seed, invalid=True)
    logits = make_logits(seed, 2, 3, 7 + padding)
    weights = torch.rand(2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    actual = soft_cross_entropy(logits, targets, weights=weights, reduction=reduction)
    (gradient,) = torch.autograd.grad(actual.sum(), logits)

    reference = logits.detach().clone().requires_grad_()
    counted = weights.reshape(-1) * targets.valid
    rows = dense_soft_cross_entropy(reference, targets) * counted
    expected = {
        "none": rows.reshape(2, 3),
        "sum": rows.sum(),
        "mean": rows.sum() / counted.sum().clamp_min(1e-30),
    }[reduction]
    (expected_gradient,) = torch.autograd.grad(expected.sum(), reference)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("chunk", [1, 7 * 4, 1 << 20])
def test_gradcheck_and_chunks(random_targets: MakeTargets, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setitem(dense_targets.CHUNK_ELEMENTS, "cpu", chunk)
    targets = in_float64(random_targets(5))
    labels = torch.tensor([0, 3, -100, 6, 2, 1])
    assert torch.autograd.gradcheck(lambda z: soft_cross_entropy(z, targets, reduction="none"), make_logits(1, 6, 7))
    assert torch.autograd.gradcheck(
        lambda z: blended_cross_entropy(z, labels, targets, corpus_weight=0.3).loss, make_logits(2, 6, 7)
    )
    assert torch.autograd.gradcheck(
        lambda z: blended_cross_entropy(z, labels, targets, corpus_weight=0.3, temperature=2.5).loss,
        make_logits(3, 6, 7),
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_scales_student_and_loss(random_targets: MakeTargets, temperature: float) -> None:
    targets, labels = random_targets(11), torch.tensor([0, 3, -100, 6, 2, 1])
    logits = make_logits(11, 6, 7)
    soft = soft_cross_entropy(logits, targets, temperature=temperature, reduction="none")
    blend = blended_cross_entropy(logits, labels, targets, corpus_weight=0.3, temperature=temperature, reduction="none")

    reference = logits.detach().clone().requires_grad_()
    expected_soft = dense_soft_cross_entropy(reference, targets, temperature)
    hard = F.cross_entropy(reference, labels, reduction="none")
    expected_blend = torch.where(labels >= 0, 0.7 * hard + 0.3 * expected_soft, 0)
    for actual, expected in ((soft, expected_soft), (blend.loss, expected_blend)):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
        (gradient,) = torch.autograd.grad(actual.sum(), logits, retain_graph=True)
        (expected_gradient,) = torch.autograd.grad(expected.sum(), reference, retain_graph=True)
        torch.testing.assert_close(gradient, expected_gradient, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(blend.soft, torch.where(labels >= 0, expected_soft, 0).detach(), atol=1e-5, rtol=1e-5)


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_blend_is_the_sum_of_its_parts(random_targets: MakeTargets, seed: int, corpus_weight: float) -> None:
    targets = random_targets(seed, invalid=True)
    logits = make_logits(seed, 6, 7)
    labels = torch.randint(-1, 7, (6,), generator=torch.Generator().manual_seed(seed))
    labels[labels < 0] = -100
    blend = blended_cross_entropy(logits, labels, targets, corpus_weight=corpus_weight, reduction="none")
    (gradient,) = torch.autograd.grad(blend.loss.sum(), logits)

    reference = logits.detach().clone().requires_grad_()
    hard = F.cross_entropy(reference, labels, reduction="none")
    soft = dense_soft_cross_entropy(reference, targets)
    counted = (labels >= 0).double()
    share = corpus_weight * (targets.valid & (labels >= 0)).double()
    expected = (1 - share) * hard + share * soft
    (expected_gradient,) = torch.autograd.grad(expected.sum(), reference)
    torch.testing.assert_close(blend.loss, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(blend.hard, hard.detach() * counted, atol=1e-5, rtol=1e-5)
    if corpus_weight > 0.01:
        torch.testing.assert_close(blend.soft, (soft * (share > 0)).detach(), atol=1e-3, rtol=1e-3)


def test_zero_kl_at_equality(random_targets: MakeTargets) -> None:
    targets = random_targets(8)
    logits = targets.dense().double().clamp_min(1e-300).log().requires_grad_()
    loss = soft_cross_entropy(logits, targets)
    assert float(loss.detach()) == pytest.approx(targets.mean_entropy, abs=1e-5)
    assert float(torch.autograd.grad(loss, logits)[0].abs().max()) < 1e-6


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_forward_kl_is_the_dense_one(random_targets: MakeTargets, temperature: float) -> None:
    targets = random_targets(9, invalid=True)
    logits = make_logits(9, 6, 9)
    actual = forward_kl(logits, targets, temperature=temperature, reduction="none")
    dense = dense_rows(targets, 9)
    entropy = -torch.xlogy(dense, dense).sum(-1) * temperature**2
    expected = (dense_soft_cross_entropy(logits, targets, temperature) - entropy) * targets.valid
    torch.testing.assert_close(actual, expected.detach(), atol=1e-5, rtol=1e-5, check_dtype=False)
    equal = forward_kl(dense[:, :7].log(), targets, reduction="none")
    torch.testing.assert_close(equal, torch.zeros_like(equal), atol=1e-5, rtol=0)


def test_forward_kl_takes_targets_with_zeros() -> None:
    onehot = SoftTargets.from_arrays([0, 1], [2], [1.0], [0.0], [0.25] * 4)
    logits = make_logits(1, 1, 4)
    expected = F.cross_entropy(logits, torch.tensor([2]))
    torch.testing.assert_close(forward_kl(logits, onehot), expected)


def test_bfloat16_is_computed_in_float32(random_targets: MakeTargets) -> None:
    targets = random_targets(4, positions=64, vocab_size=500, entries=8)
    logits = make_logits(4, 64, 500, dtype=torch.bfloat16)
    labels = torch.arange(64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = soft_cross_entropy(logits, targets)
        blend = blended_cross_entropy(logits, labels, targets).loss
        smooth = label_smoothing_cross_entropy(logits, labels, 0.1)
    expected = dense_soft_cross_entropy(logits.detach(), targets).mean()
    assert loss.dtype == blend.dtype == smooth.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(expected), abs=1e-5)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.dtype == torch.bfloat16
    exact = (logits.detach().double().softmax(-1) - targets.dense().double()) / 64
    assert float((gradient.double() - exact).abs().max()) < 1e-4


def test_all_masked_is_zero_with_a_gradient_path(random_targets: MakeTargets) -> None:
    targets = random_targets(2)
    masked = torch.full((6,), -100)
    nothing = SoftTargets(**{**vars(targets), "valid": torch.zeros(6, dtype=torch.bool)})
    for loss_of in (
        lambda z: soft_cross_entropy(z, nothing),
        lambda z: soft_cross_entropy(z, targets, weights=torch.zeros(6)),
        lambda z: forward_kl(z, nothing),
        lambda z: blended_cross_entropy(z, masked, targets).loss,
        lambda z: label_smoothing_cross_entropy(z, masked, 0.1),
    ):
        logits = make_logits(3, 6, 7, dtype=torch.float32)
        loss = loss_of(logits)
        loss.backward()
        assert float(loss.detach()) == 0
        assert logits.grad is not None
        assert not logits.grad.any()


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
def test_label_smoothing_equals_torch_s(epsilon: float) -> None:
    logits, labels = make_logits(7, 2, 3, 9), torch.tensor([[0, 8, -100], [2, 1, 5]])
    actual = label_smoothing_cross_entropy(logits, labels, epsilon)
    expected = F.cross_entropy(logits.reshape(-1, 9), labels.reshape(-1), label_smoothing=epsilon)
    torch.testing.assert_close(actual, expected)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (actual, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("epsilon", [0.2, 1.0])
def test_unigram_smoothing_is_towards_the_base(random_targets: MakeTargets, epsilon: float) -> None:
    base, labels = random_targets(3).base, torch.tensor([0, 6, -100, 2, 7])
    logits = make_logits(7, 5, 8)  # one token more than the base
    actual = label_smoothing_cross_entropy(logits, labels, epsilon, base=base, reduction="none")
    smooth = epsilon * F.pad(base, (0, 1)).double() + (1 - epsilon) * F.one_hot(labels.clamp_min(0), 8)
    expected = -(smooth * logits.log_softmax(-1)).sum(-1) * (labels >= 0)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)
    gradients = [torch.autograd.grad(loss.sum(), logits)[0] for loss in (actual, expected)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-6)


def test_entropy_of_unigram_smoothing_is_the_mean_over_labels_from_the_base(random_targets: MakeTargets) -> None:
    base = in_float64(random_targets(3)).base
    smooth = 0.3 * base + 0.7 * torch.eye(7, dtype=torch.float64)
    expected = float(base @ -torch.xlogy(smooth, smooth).sum(1))
    assert label_smoothing_entropy(0.3, 7, base) == pytest.approx(expected)
    assert epsilon_of_entropy(expected, 7, base) == pytest.approx(0.3)
    assert label_smoothing_entropy(0.3, 7, torch.full((7,), 1 / 7)) == pytest.approx(label_smoothing_entropy(0.3, 7))


def test_label_smoothing_is_that_of_a_uniform_base() -> None:
    logits, labels = make_logits(6, 5, 9), torch.tensor([0, 8, 2, -100, 1])
    actual = label_smoothing_cross_entropy(logits, labels, 0.3)
    keep = labels >= 0
    uniform = SoftTargets.from_arrays([0] * 5, [], [], [1.0] * 4, [1 / 9] * 9)
    mixed = uniform.with_labels(labels[keep], 0.7)
    assert float(actual.detach()) == pytest.approx(float(soft_cross_entropy(logits[keep], mixed).detach()), abs=1e-6)
    assert label_smoothing_entropy(0.3, 9) == pytest.approx(mixed.mean_entropy, abs=1e-6)


@given(st.floats(0, 1), st.integers(2, 100_000))
def test_epsilon_of_entropy_inverts(fraction: float, vocab_size: int) -> None:
    entropy = fraction * math.log(vocab_size)
    assert label_smoothing_entropy(epsilon_of_entropy(entropy, vocab_size), vocab_size) == pytest.approx(
        entropy, abs=1e-6
    )


def test_shift_labels() -> None:
    assert shift_labels(torch.tensor([[4, 5, 6], [7, -100, 9]])).tolist() == [[5, 6, -100], [-100, 9, -100]]


def test_wrong_calls_are_named(random_targets: MakeTargets) -> None:
    targets, labels = random_targets(1), torch.zeros(6, dtype=torch.long)
    with pytest.raises(TargetError, match="has 5 positions and the targets 6"):
        soft_cross_entropy(torch.zeros(5, 7), targets)
    with pytest.raises(TargetError, match="student knows 6 tokens and the teacher 7"):
        soft_cross_entropy(torch.zeros(6, 6), targets)
    with pytest.raises(TargetError, match="5 weights for 6"):
        soft_cross_entropy(torch.zeros(6, 7), targets, weights=torch.ones(5))
    with pytest.raises(TargetError, match="'average' is unknown"):
        soft_cross_entropy(torch.zeros(6, 7), targets, reduction="average")
    with pytest.raises(TargetError, match="5 labels for 6"):
        blended_cross_entropy(torch.zeros(6, 7), labels[:5], targets)
    with pytest.raises(TargetError, match="5 labels for 6"):
        label_smoothing_cross_entropy(torch.zeros(6, 7), labels[:5])
    with pytest.raises(TargetError, match=r"epsilon is 1\.5"):
        label_smoothing_cross_entropy(torch.zeros(6, 7), labels, 1.5)
    with pytest.raises(TargetError, match="impossible with 4 tokens"):
        epsilon_of_entropy(3.0, 4)
    with pytest.raises(TargetError, match=r"impossible with this base: give a number from 0 to 0\.5004"):
        epsilon_of_entropy(1.0, 2, torch.tensor([0.2, 0.8]))
    with pytest.raises(TargetError, match=r"base sums to 0\.500000"):
        label_smoothing_cross_entropy(torch.zeros(6, 7), labels, 0.1, base=torch.tensor([0.5]))
    with pytest.raises(TargetError, match="base has 8 tokens and the student 7"):
        label_smoothing_cross_entropy(torch.zeros(6, 7), labels, 0.1, base=torch.full((8,), 1 / 8))
    with pytest.raises(TargetError, match=r"shape \(2,\) for 3 tokens"):
        label_smoothing_entropy(0.1, 3, torch.tensor([0.2, 0.8]))
    for wrong in (7, -1):
        with pytest.raises(TargetError, match=f"label {wrong} is outside of the student's 7 tokens"):
            label_smoothing_cross_entropy(torch.zeros(6, 7), labels + wrong)
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(TargetError, match="temperature is"):
            soft_cross_entropy(torch.zeros(6, 7), targets, temperature=temperature)


def test_minus_infinity_at_tokens_without_target_is_finite() -> None:
    targets = SoftTargets.from_arrays([0, 2, 3], [0, 1, 3], [0.5, 0.2, 1.0], [0.3, 0.0], [0.4, 0.3, 0.0, 0.3])
    labels = torch.tensor([1, 3])
    logits = make_logits(3, 2, 6, dtype=torch.float32)
    with torch.no_grad():
        logits[0, 2] = logits[1, 0] = logits[1, 5] = -torch.inf
    reference = logits.detach().double()
    expected = -torch.xlogy(dense_rows(targets, 6), reference.softmax(-1)).sum(-1)
    rows = soft_cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(rows, expected.float())
    (gradient,) = torch.autograd.grad(rows.sum(), logits)
    torch.testing.assert_close(gradient, (reference.softmax(-1) - dense_rows(targets, 6)).float())
    blend = blended_cross_entropy(logits, labels, targets, corpus_weight=0.25)
    hard = F.cross_entropy(reference, labels)
    assert float(blend.loss.detach()) == pytest.approx(float(0.75 * hard + 0.25 * expected.mean()), rel=1e-5)


def test_an_infinite_loss_names_the_token() -> None:
    targets = SoftTargets.from_arrays([0, 0, 1], [1], [0.25], [1.0, 0.75], [0.25] * 4)
    logits = torch.zeros(2, 5)
    logits[1, 2] = -torch.inf
    match = r"logit of token 2 is -inf at position 1, where the target gives it 0.19, so the loss is infinite: mask"
    with pytest.raises(TargetError, match=match):
        soft_cross_entropy(logits, targets)
    with pytest.raises(TargetError, match="logit of token 2 is -inf at position 1"):
        blended_cross_entropy(logits, torch.tensor([0, 0]), targets)
    assert soft_cross_entropy(logits, targets, weights=torch.tensor([1.0, 0.0])).isfinite()
    assert blended_cross_entropy(logits, torch.tensor([0, -100]), targets).loss.isfinite()
    with pytest.raises(TargetError, match="where the target gives it 1,"):
        blended_cross_entropy(logits, torch.tensor([0, 2]), targets, corpus_weight=0.0)
    assert soft_cross_entropy(torch.full((2, 4), torch.nan), targets).isnan()  # a student that has diverged


@pytest.mark.filterwarnings("ignore")  # of torch's own compiler
def test_model_and_loss_in_one_graph(random_targets: MakeTargets) -> None:
    torch.manual_seed(0)
    student = torch.nn.Sequential(torch.nn.Embedding(7, 4), torch.nn.Linear(4, 9))

    def loss_of(ids: torch.Tensor, labels: torch.Tensor, targets: SoftTargets) -> torch.Tensor:
        logits = student(ids)
        blend = blended_cross_entropy(logits, labels, targets, corpus_weight=0.3, temperature=2.0)
        return (
            blend.loss
            + soft_cross_entropy(logits, targets)
            + generalized_jsd(logits, targets, beta=0.3)
            + label_smoothing_cross_entropy(logits, labels, 0.1)
        )

    compiled = torch.compile(loss_of, fullgraph=True, backend="aot_eager")
    for seed in (1, 2):
        ids = torch.randint(0, 7, (2, 3))
        labels = torch.randint(0, 9, (2, 3))
        labels[0, 0] = -100
        targets = random_targets(seed)
        actual, expected = compiled(ids, labels, targets), loss_of(ids, labels, targets)
        torch.testing.assert_close(actual, expected)
        for mine, other in zip(
            torch.autograd.grad(actual, student.parameters()),
            torch.autograd.grad(expected, student.parameters()),
            strict=True,
        ):
            torch.testing.assert_close(mine, other)
