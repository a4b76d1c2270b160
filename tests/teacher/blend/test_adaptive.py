"""Adaptive weights: against a loop, on a made-up pair whose right weights are known, and as a policy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from corpus_teacher.blend import (
    Adaptive,
    AdaptiveWeights,
    Components,
    Policy,
    apply_policy,
    blend,
    make_policy,
)
from corpus_teacher.errors import ConfigError
from corpus_teacher.losses import IGNORE_INDEX
from corpus_teacher.targets.soft import SoftTargets

STUDENT = torch.tensor([0.7, 0.1, 0.1, 0.1])
CORPUS = torch.tensor([0.05, 0.05, 0.2, 0.7])
EDGES = {"match_len": [1, 2]}


def batch(weights: list[float], tokens: int, generator: np.random.Generator) -> tuple[torch.Tensor, Components]:
    """Logits of the student, and labels drawn from a mixture with the corpus whose weight goes by the match."""
    match_len = generator.integers(0, len(weights), tokens)
    own = np.asarray(weights)[match_len][:, None]
    rows = own * STUDENT.numpy() + (1 - own) * CORPUS.numpy()
    labels = torch.from_numpy((generator.random((tokens, 1)) > rows.cumsum(1)).sum(1).clip(max=3))
    targets = SoftTargets(
        offsets=torch.arange(tokens + 1) * 4,
        token_ids=torch.arange(4).repeat(tokens).int(),
        probs=CORPUS.repeat(tokens),
        rest=torch.zeros(tokens),
        base=torch.full((4,), 0.25),
        valid=torch.ones(tokens, dtype=torch.bool),
        match_len=torch.from_numpy(match_len).int(),
        context_count=torch.ones(tokens, dtype=torch.int64),
        cut_mass=torch.zeros(tokens),
    )  # fmt: skip
    return STUDENT.log().repeat(tokens, 1), Components(labels, targets)


def test_right_weights_that_are_known_are_found() -> None:
    """The corpus knows the contexts of one kind, the student those of another: each is followed to its weight."""
    right, generator = [0.9, 0.5, 0.1], np.random.default_rng(0)
    policy = make_policy({"adaptive": {"edges": EDGES, "memory": 20_000}, "min_match_len": 0})
    weights = AdaptiveWeights(policy.adaptive)
    assert weights.student_weights().tolist() == [0.25] * 3
    for step in range(150):
        logits, components = batch(right, 512, generator)
        apply_policy(policy, step, logits, components, adaptive=weights)
        weights.step()
    np.testing.assert_allclose(weights.student_weights().numpy(), right, atol=0.05)
    made = blend(policy, 150, components, weights)
    expected = 1 - weights.student_weights()[components.corpus.match_len.long()]
    torch.testing.assert_close(made.weight_of("corpus").double(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(made.weight_of("hard").double(), 1 - expected, atol=1e-6, rtol=0)


def test_a_student_that_passes_its_teacher_is_noticed() -> None:
    generator = np.random.default_rng(1)
    weights = AdaptiveWeights(Adaptive(edges=EDGES, memory=5000, power=2))
    for right in ([0.05] * 3, [0.95] * 3):
        for _ in range(80):
            logits, components = batch(right, 512, generator)
            weights.note(components, torch.nn.functional.cross_entropy(logits, components.labels, reduction="none"))
            weights.step()
        np.testing.assert_allclose(weights.student_weights().numpy(), right, atol=0.08)
    assert weights.factor(components).max() < 0.13**2


def test_a_step_is_that_of_a_loop() -> None:
    generator = np.random.default_rng(2)
    settings = Adaptive(edges=EDGES, memory=300, prior=7, first=0.4)
    weights, credited, tokens = AdaptiveWeights(settings), np.zeros(3), np.zeros(3)
    for _ in range(4):
        all_ = (credited.sum() + 7 * 0.4) / (tokens.sum() + 7)
        own = np.clip((credited + 7 * all_) / (tokens + 7), 0.01, 0.99)
        np.testing.assert_allclose(weights.student_weights().numpy(), own)
        added = np.zeros((2, 3))
        for _ in range(2):  # two passes of one step
            logits, components = batch([0.9, 0.5, 0.1], 20, generator)
            components.labels[3] = IGNORE_INDEX
            nats = torch.nn.functional.cross_entropy(logits, components.labels.clamp_min(0), reduction="none")
            weights.note(components, nats)
            for q, label in enumerate(components.labels.tolist()):
                bucket = int(components.corpus.match_len[q])
                if label != IGNORE_INDEX:
                    ours, theirs = own[bucket] * float(STUDENT[label]), (1 - own[bucket]) * float(CORPUS[label])
                    added[:, bucket] += ours / (ours + theirs), 1
        weights.step()
        fade = math.exp(-added[1].sum() / 300)
        credited, tokens = credited * fade + added[0], tokens * fade + added[1]
        np.testing.assert_allclose(weights.sums.numpy(), [credited, tokens], rtol=1e-5)


def test_processes_go_on_alike() -> None:
    """What two processes saw, summed up, is what one saw of both."""
    generator = np.random.default_rng(3)
    parts = [batch([0.9, 0.5, 0.1], 50, generator) for _ in range(2)]
    alone, ranks = AdaptiveWeights(Adaptive(edges=EDGES)), [AdaptiveWeights(Adaptive(edges=EDGES)) for _ in range(2)]
    for rank, (logits, components) in zip(ranks, parts, strict=True):
        nats = torch.nn.functional.cross_entropy(logits, components.labels, reduction="none")
        rank.note(components, nats)
        alone.note(components, nats)
    total = ranks[0].pending + ranks[1].pending
    for one in (*ranks, alone):
        one.step(total)
    for one in ranks:
        torch.testing.assert_close(one.sums, alone.sums)


def test_the_state_goes_on() -> None:
    generator = np.random.default_rng(4)
    weights = AdaptiveWeights(Adaptive())
    _, components = batch([0.9, 0.5], 200, generator)
    weights.note(components, torch.ones(200))
    weights.step()
    again = AdaptiveWeights(Adaptive())
    again.load_state_dict(weights.state_dict())
    torch.testing.assert_close(again.student_weights(), weights.student_weights())
    with pytest.raises(ConfigError, match="other settings"):
        AdaptiveWeights(Adaptive(first=0.5)).load_state_dict(weights.state_dict())
    logs = weights.logs()
    assert {"student_weight", "student_weight_match_len_0", "student_weight_count_0"} <= logs.keys()
    evidence = {"match_len": components.corpus.match_len, "entropy": components.corpus.entropy(), "count": [1] * 200}
    expected = weights.student_weights()[weights.bucket_of(components)].numpy()
    np.testing.assert_allclose(weights.mixture()(evidence), expected)


def test_as_a_table() -> None:
    policy = make_policy({"adaptive": True})
    assert policy.asked(step=0) == {"corpus": 1.0}
    assert policy.soft == {"corpus"}
    assert make_policy(policy.to_dict()) == policy
    weaker = make_policy({"adaptive": True, "corpus": 0.5})
    assert weaker.asked(step=0) == {"hard": 0.5, "corpus": 0.5}
    assert make_policy({"adaptive": False}) == Policy()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"adaptive": 3}, "policy.adaptive is 3"),
        ({"adaptive": {"memory": 0}}, "memory is 0"),
        ({"adaptive": {"first": 2}}, "first is 2"),
        ({"adaptive": {"memroy": 2}}, "did you mean 'memory'"),
        ({"adaptive": {"edges": {"count": [3, 1]}}}, "ascending"),
        ({"adaptive": True, "remainder": "corpus"}, "remainder is 'corpus'"),
    ],
)
def test_what_is_refused(table: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_policy(table)


def test_a_policy_without_its_weights_is_refused() -> None:
    logits, components = batch([0.5], 4, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="give its weights"):
        blend(make_policy({"adaptive": True}), 0, components)
    with pytest.raises(ConfigError, match="corpus"):
        apply_policy(
            make_policy({"adaptive": True}), 0, logits, components.labels, adaptive=AdaptiveWeights(Adaptive())
        )
