"""The loss of a blend against the cross-entropy to the dense mixture, in float64 and by autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from corpus_teacher.blend import (
    Components,
    DenseTargets,
    Evidence,
    Policy,
    Reason,
    Routing,
    Share,
    apply_policy,
    blend,
    blended_loss,
    fused_linear_blended_loss,
    make_policy,
)
from corpus_teacher.blend.blending import Blend
from corpus_teacher.errors import ConfigError, TargetError
from corpus_teacher.losses import blended_cross_entropy, temper_targets
from corpus_teacher.targets import dense as dense_targets
from corpus_teacher.targets.soft import SoftTargets

from ..dense_losses import dense_rows, in_float64, make_logits

MakeTargets = Callable[..., SoftTargets]
VOCABULARY, PADDED = 7, 9


def make_batch(random_targets: MakeTargets, seed: int, sparse_neural: bool) -> Components:
    """Six positions with float64 targets, each teacher silent somewhere."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-2, PADDED, (6,), generator=generator)
    labels[labels < 0] = -100
    teachers = [2 * torch.randn(6, VOCABULARY, generator=generator, dtype=torch.float64) for _ in range(2)]
    dense = [DenseTargets(logits, torch.rand(6, generator=generator) < 0.7) for logits in teachers]
    neural = in_float64(random_targets(seed + 1, invalid=True)) if sparse_neural else dense[0]
    return Components(labels, in_float64(random_targets(seed, invalid=True)), neural, dense[1])


def dense_mixture(batch: Components, made: Blend) -> Tensor:
    """The blend as one distribution a position, (Q, V) float64."""
    mixture = made.weight_of("hard")[:, None] * F.one_hot(batch.labels.clamp_min(0), PADDED).double()
    base = F.pad(batch.corpus.base, (0, PADDED - VOCABULARY))
    mixture = mixture + made.weight_of("base")[:, None] * base
    for name in ("corpus", "neural", "self"):
        targets = batch.targets_of(name)
        if isinstance(targets, SoftTargets):
            rows = dense_rows(targets, PADDED)
        else:
            rows = F.pad(targets.logits.softmax(-1), (0, PADDED - VOCABULARY))
        mixture = mixture + made.weight_of(name)[:, None] * rows
    return mixture


POLICIES = {
    "all five": Policy({"corpus": 0.3, "neural": 0.25, "self": 0.15, "base": 0.1}),
    "hard": Policy(),
    "corpus alone": Policy(remainder="corpus", fallbacks=("self",)),
    "neural alone": Policy(remainder="neural", fallbacks=("corpus", "base")),
    "fallbacks": Policy({"corpus": 0.5}, fallbacks=("shorter", "neural", "base"), min_match_len=3),
    "routed, complementary": Policy({"corpus": 0.5, "neural": 0.5}, routing=Routing(0.4), complementary=0.7),
}


@given(
    st.sampled_from(sorted(POLICIES)), st.integers(0, 10_000), st.booleans(), st.sampled_from(["mean", "sum", "none"])
)
def test_loss_is_that_of_the_dense_mixture(
    random_targets: MakeTargets, name: str, seed: int, sparse_neural: bool, reduction: str
) -> None:
    batch = make_batch(random_targets, seed, sparse_neural)
    logits = make_logits(seed, 2, 3, PADDED)
    teachers = {"corpus": batch.corpus, "neural": batch.neural, "self_teacher": batch.self_teacher}
    actual = apply_policy(POLICIES[name], 0, logits, batch.labels.reshape(2, 3), **teachers, reduction=reduction)
    (gradient,) = torch.autograd.grad(actual.loss.sum(), logits)

    reference = logits.detach().clone().requires_grad_()
    made = blend(POLICIES[name], 0, batch)
    log_q = reference.reshape(6, PADDED).log_softmax(-1)
    rows = -(dense_mixture(batch, made) * log_q).sum(-1) * made.scale
    expected = {
        "none": rows.reshape(2, 3),
        "sum": rows.sum(),
        "mean": rows.sum() / made.scale.double().sum().clamp_min(1e-30),
    }[reduction]
    (expected_gradient,) = torch.autograd.grad(expected.sum(), reference)
    torch.testing.assert_close(actual.loss, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-6, rtol=1e-6)


@given(st.integers(0, 10_000), st.booleans(), st.sampled_from(["mean", "sum"]))
def test_parts_are_the_single_cross_entropies(
    random_targets: MakeTargets, seed: int, sparse_neural: bool, reduction: str
) -> None:
    batch = make_batch(random_targets, seed, sparse_neural)
    logits = make_logits(seed, 6, PADDED)
    teachers = {"corpus": batch.corpus, "neural": batch.neural, "self_teacher": batch.self_teacher}
    policy = Policy({"corpus": 0.3, "neural": 0.3, "self": 0.1}, fallbacks=("hard",))
    actual = apply_policy(policy, 0, logits, batch.labels, **teachers, reduction=reduction)
    log_q = logits.detach().log_softmax(-1)
    for name in ("hard", "corpus", "neural", "self"):
        taught = actual.blend.weight_of(name) > 0
        only = replace(actual.blend, weights=torch.zeros(6, 5))
        only.weights[:, ["hard", "corpus", "neural", "self"].index(name)] = 1
        rows = -(dense_mixture(batch, only) * log_q).sum(-1)[taught]
        expected = rows.sum() / (max(len(rows), 1) if reduction == "mean" else 1)
        torch.testing.assert_close(actual.parts[name], expected, atol=1e-6, rtol=1e-6)
        assert not actual.parts[name].requires_grad


@given(
    st.sampled_from(sorted(POLICIES)),
    st.integers(0, 10_000),
    st.booleans(),
    st.sampled_from([1.0, 2.5]),
    st.sampled_from(["mean", "sum"]),
)
def test_fused_is_plain(
    random_targets: MakeTargets, name: str, seed: int, sparse_neural: bool, temperature: float, reduction: str
) -> None:
    batch = make_batch(random_targets, seed, sparse_neural)
    hidden, weight = make_logits(seed, 2, 3, 4), make_logits(seed + 1, PADDED, 4)
    options = {
        "corpus": batch.corpus, "neural": batch.neural, "self_teacher": batch.self_teacher,
        "temperature": temperature, "reduction": reduction,
    }  # fmt: skip
    made = blend(POLICIES[name], 0, batch)
    actual = fused_linear_blended_loss(hidden, weight, batch.labels, made, **options)
    expected = blended_loss(hidden @ weight.T, batch.labels, made, **options)
    torch.testing.assert_close(actual.loss, expected.loss)
    torch.testing.assert_close(actual.parts, expected.parts)
    for one, other in zip(
        torch.autograd.grad(actual.loss, (hidden, weight)),
        torch.autograd.grad(expected.loss, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@given(st.integers(0, 10_000))
def test_the_part_of_the_corpus_is_with_its_base(random_targets: MakeTargets, seed: int) -> None:
    batch, logits = make_batch(random_targets, seed, sparse_neural=False), make_logits(seed, 6, PADDED)
    policy = Policy({"corpus": 0.2, "base": 0.3}, fallbacks=("hard",))
    actual = apply_policy(policy, 0, logits, batch.labels, corpus=batch.corpus)
    soft = actual.blend.weights[:, [1, 4]].sum(1).double()
    mixture = dense_mixture(batch, replace(actual.blend, weights=actual.blend.weights * torch.tensor([0, 1, 0, 0, 1])))
    rows = -(mixture * logits.detach().log_softmax(-1)).sum(-1)
    expected = (rows / soft.clamp_min(1e-30)).sum() / (soft > 0).sum().clamp_min(1)
    torch.testing.assert_close(actual.parts["corpus"], expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("sparse_neural", [False, True])
@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_temperature_is_that_of_the_neural_part_alone(
    random_targets: MakeTargets, sparse_neural: bool, temperature: float
) -> None:
    batch = make_batch(random_targets, 4, sparse_neural)
    neural, logits = batch.neural, make_logits(4, 6, PADDED)
    policy = Policy({"corpus": 0.4, "neural": 0.4})
    actual = apply_policy(
        policy, 0, logits, batch.labels, corpus=batch.corpus, neural=neural, temperature=temperature, reduction="sum"
    )
    if sparse_neural:
        at_temperature = dense_rows(temper_targets(neural, temperature), PADDED)
    else:
        at_temperature = F.pad((neural.logits / temperature).softmax(-1), (0, PADDED - VOCABULARY))
    reference = logits.detach().clone().requires_grad_()
    weight = actual.blend.weight_of("neural")
    others = replace(actual.blend, weights=actual.blend.weights.clone())
    others.weights[:, 2] = 0
    expected = -(dense_mixture(batch, others) * reference.log_softmax(-1)).sum()
    soft = -(weight[:, None] * at_temperature * (reference / temperature).log_softmax(-1)).sum()
    expected = expected + temperature**2 * soft
    torch.testing.assert_close(actual.loss, expected, atol=1e-6, rtol=1e-6)
    for one, other in zip(
        torch.autograd.grad(actual.loss, logits), torch.autograd.grad(expected, reference), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("chunk", [1, 2 * PADDED, 1 << 19])
def test_gradcheck_of_a_dense_teacher_in_chunks(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setitem(dense_targets.CHUNK_ELEMENTS, "cpu", chunk)
    teacher = make_logits(1, 6, VOCABULARY).detach()
    labels, policy = torch.tensor([0, 3, -100, 8, 2, 1]), Policy({"neural": 0.7})

    def loss(z: Tensor) -> Tensor:
        return apply_policy(policy, 0, z, labels, neural=teacher, temperature=1.7, reduction="none").loss

    assert torch.autograd.gradcheck(loss, make_logits(2, 6, PADDED))
    entropy = torch.distributions.Categorical(logits=teacher).entropy()
    torch.testing.assert_close(DenseTargets(teacher).entropy().double(), entropy, atol=1e-5, rtol=1e-5)


def test_it_is_the_blended_cross_entropy_of_the_trainer(random_targets: MakeTargets) -> None:
    targets = replace(random_targets(3), match_len=torch.ones(6).int(), context_count=torch.ones(6).long())
    labels, logits = torch.tensor([0, 3, -100, 6, 2, 1]), make_logits(3, 6, PADDED)
    actual = apply_policy(make_policy({"corpus": 0.3}), 0, logits, labels, corpus=targets)
    expected = blended_cross_entropy(logits, labels, targets, corpus_weight=0.3)
    for one, other in (
        (actual.loss, expected.loss),
        (actual.parts["hard"], expected.hard),
        (actual.parts["corpus"], expected.soft),
    ):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


def test_what_is_silent_may_hold_anything(random_targets: MakeTargets) -> None:
    batch = make_batch(random_targets, 3, sparse_neural=False)
    assert not bool(batch.neural.valid[batch.counted].all())
    assert not bool(batch.corpus.valid[batch.counted].all())
    nothing = torch.where(batch.neural.valid[:, None], batch.neural.logits, torch.nan)
    corpus = batch.corpus
    broken = replace(
        corpus,
        probs=torch.where(corpus.valid[corpus.rows()], corpus.probs, torch.nan),
        rest=torch.where(corpus.valid, corpus.rest, torch.nan),
    )
    policy = Policy({"corpus": 0.4, "neural": 0.4}, routing=Routing(0.3, "corpus"), complementary=0.5)
    logits = make_logits(2, 6, PADDED)
    losses = [
        apply_policy(policy, 0, logits, batch.labels, corpus=one, neural=other, reduction="sum").loss
        for one, other in ((corpus, batch.neural), (broken, DenseTargets(nothing, batch.neural.valid)))
    ]
    torch.testing.assert_close(losses[0], losses[1])
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in losses]
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_no_label_anywhere_is_zero_with_a_gradient_path(random_targets: MakeTargets, reduction: str) -> None:
    logits = make_logits(1, 6, PADDED)
    taught = apply_policy(
        Policy({"corpus": 0.3, "neural": 0.3}),
        0,
        logits,
        torch.full((6,), -100),
        corpus=random_targets(1),
        neural=torch.randn(6, VOCABULARY),
        reduction=reduction,
    )
    assert set(taught.blend.reasons.tolist()) == {Reason.NONE}
    (gradient,) = torch.autograd.grad(taught.loss, logits)
    assert float(taught.loss.detach()) == 0
    assert float(gradient.abs().max()) == 0


def test_bfloat16_is_computed_in_float32_and_keeps_its_type(random_targets: MakeTargets) -> None:
    logits = make_logits(1, 6, PADDED, dtype=torch.bfloat16)
    labels, neural = torch.tensor([0, 3, -100, 6, 2, 1]), torch.randn(6, VOCABULARY, dtype=torch.bfloat16)
    policy = Policy({"corpus": 0.3, "neural": 0.3})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = apply_policy(policy, 0, logits, labels, corpus=random_targets(1), neural=neural).loss
    expected = apply_policy(
        policy, 0, logits.detach().double(), labels, corpus=random_targets(1), neural=neural.double()
    ).loss
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(actual, logits)
    assert gradient.dtype == torch.bfloat16


def test_no_gradient_flows_into_teachers(random_targets: MakeTargets) -> None:
    logits, teacher = make_logits(1, 6, PADDED), make_logits(2, 6, VOCABULARY)
    share = Share(0.5, evidence=(Evidence("entropy", half=1.0),))
    policy = Policy({"neural": share}, routing=Routing(0.2, "student"))
    apply_policy(policy, 0, logits, torch.zeros(6, dtype=torch.int64), neural=teacher).loss.backward()
    assert teacher.grad is None
    assert logits.grad is not None


def test_what_does_not_fit_is_refused(random_targets: MakeTargets) -> None:
    labels, logits, policy = torch.zeros(6, dtype=torch.int64), make_logits(1, 6, PADDED), Policy({"corpus": 0.5})
    corpus = replace(random_targets(1), match_len=torch.ones(6).int(), context_count=torch.ones(6).long())
    made = blend(policy, 0, Components(labels, corpus))
    with pytest.raises(TargetError, match=r"has 'base' in it: give corpus"):
        blended_loss(logits, labels, made)
    with pytest.raises(TargetError, match="the student has 4 positions and the blend 6"):
        blended_loss(logits[:4], labels, made, corpus=corpus)
    with pytest.raises(TargetError, match="neural has 5 positions and labels 6"):
        blended_loss(logits, labels, made, corpus=corpus, neural=torch.zeros(5, 3))
    with pytest.raises(TargetError, match="reduction 'median' is unknown"):
        blended_loss(logits, labels, made, corpus=corpus, reduction="median")
    with pytest.raises(ConfigError, match="needs 'neural', which isn't given"):
        apply_policy(Policy({"neural": 0.5}), 0, logits, labels)
    neural = Policy({"neural": 0.5})
    with pytest.raises(TargetError, match="the student knows 9 tokens and the teacher 12"):
        apply_policy(neural, 0, logits, labels, neural=torch.zeros(6, 12))
    with pytest.raises(TargetError, match="temperature is 0"):
        apply_policy(neural, 0, logits, labels, neural=torch.zeros(6, 9), temperature=0)
    with pytest.raises(TargetError, match="label 9 is outside"):
        apply_policy(policy, 0, logits, torch.full((6,), PADDED), corpus=corpus)
