"""The blend against its naive twin, and each of its rules by itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.blend import (
    COMPONENTS,
    Blend,
    BlendReport,
    Components,
    DenseTargets,
    Evidence,
    LinearSchedule,
    Policy,
    Reason,
    Routing,
    Share,
    blend,
    make_policy,
)
from corpus_teacher.blend.evidence import MEASURES, probabilities_at, top_tokens
from corpus_teacher.errors import ConfigError, TargetError
from corpus_teacher.targets.soft import SoftTargets

from ..dense_losses import dense_rows
from ..naive_blend import naive_blend, naive_measure

MakeTargets = Callable[..., SoftTargets]
POSITIONS, VOCABULARY = 12, 7


def make_components(random_targets: MakeTargets, seed: int, sparse_neural: bool = False) -> Components:
    """A batch where every component is silent somewhere, and one label in six is missing."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, VOCABULARY, (POSITIONS,), generator=generator)
    labels[torch.rand(POSITIONS, generator=generator) < 0.17] = -100
    corpus = random_targets(seed, POSITIONS, VOCABULARY, invalid=True)
    match_len = torch.randint(0, 5, (POSITIONS,), generator=generator).int()
    count = torch.randint(0, 5, (POSITIONS,), generator=generator)
    dense = [
        DenseTargets(
            2 * torch.randn(POSITIONS, VOCABULARY, generator=generator),
            torch.rand(POSITIONS, generator=generator) < 0.7,
        )
        for _ in range(2)
    ]
    neural = random_targets(seed + 1, POSITIONS, VOCABULARY, invalid=True) if sparse_neural else dense[0]
    return Components(
        labels,
        replace(corpus, match_len=match_len, context_count=count),
        neural,
        dense[1],
        distinct=count + 1,
        student=torch.randn(POSITIONS, VOCABULARY, generator=generator),
    )


def labels_of(made: Blend) -> list[str]:
    return [Reason(reason).label for reason in made.reasons.tolist()]


evidences = st.builds(
    lambda by, of, shape: Evidence(by, of=of if by not in ("match_len", "count", "distinct") else None, **shape),
    st.sampled_from(sorted(MEASURES)),
    st.sampled_from(["neural", "self", "student"]),
    st.sampled_from([{"half": 0.7}, {"low": 0, "high": 2.5}, {"low": 1, "high": 0}]),
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Any policy: up to four weights with evidence and schedules, fallbacks in any order, routing."""
    remainder = draw(st.sampled_from(COMPONENTS))
    shares = {}
    for name in draw(st.lists(st.sampled_from(COMPONENTS), unique=True, max_size=4)):
        schedule = draw(st.sampled_from([None, LinearSchedule(end_step=9)]))
        if name != remainder:
            shares[name] = Share(draw(st.floats(0, 0.25)), schedule, tuple(draw(st.lists(evidences, max_size=2))))
    routings = st.builds(Routing, st.floats(0, 1), st.sampled_from(["corpus", "neural", "self", "student"]))
    return Policy(
        shares,
        remainder=remainder,
        fallbacks=draw(st.permutations(["corpus", "shorter", "neural", "self", "base"]))[: draw(st.integers(0, 5))],
        min_match_len=draw(st.integers(0, 4)),
        min_count=draw(st.integers(0, 3)),
        shorter_match_len=draw(st.integers(0, 2)),
        routing=draw(st.none() | routings),
    )


@given(policies(), st.integers(0, 10_000), st.integers(0, 10), st.booleans())
def test_blend_is_the_naive_one(
    random_targets: MakeTargets, policy: Policy, seed: int, step: int, sparse_neural: bool
) -> None:
    components = make_components(random_targets, seed, sparse_neural)
    actual = blend(policy, step, components)
    expected, reasons = naive_blend(policy, step, components)
    torch.testing.assert_close(actual.weights.double(), expected, atol=2e-6, rtol=0)
    assert labels_of(actual) == [reason.label for reason in reasons]
    # what it has to be whatever the twin says
    torch.testing.assert_close(actual.weights.sum(1), components.counted.float(), atol=1e-6, rtol=0)
    assert bool((actual.weights >= 0).all())
    unused = [name for name in COMPONENTS if name not in actual.used]
    assert all(float(actual.weight_of(name).sum()) == 0 for name in unused)


@given(st.sampled_from(sorted(MEASURES)), st.integers(0, 10_000), st.booleans())
def test_measures_are_the_naive_ones(random_targets: MakeTargets, by: str, seed: int, sparse_neural: bool) -> None:
    components = make_components(random_targets, seed, sparse_neural)
    evidence = Evidence(by, half=1.0)
    values, known = MEASURES[by](components, evidence.source("neural"))
    for q in range(POSITIONS):
        expected = naive_measure(components, evidence, "neural", q)
        assert (expected is not None) == bool(known[q])
        if expected is not None:
            assert float(values[q]) == pytest.approx(expected, abs=2e-5)


@given(st.integers(0, 10_000), st.integers(1, 8))
def test_top_tokens_and_probabilities_are_the_dense_ones(
    random_targets: MakeTargets, seed: int, vocab_size: int
) -> None:
    targets = random_targets(seed, 6, vocab_size, entries=8)
    dense = dense_rows(targets, vocab_size + 1)
    best = dense.gather(1, top_tokens(targets)[:, None])[:, 0]
    torch.testing.assert_close(best, dense.max(1).values, atol=1e-6, rtol=0)
    positions, tokens = torch.cartesian_prod(torch.arange(6), torch.arange(vocab_size + 1)).unbind(1)
    actual = probabilities_at(targets, positions, tokens)
    torch.testing.assert_close(actual.double(), dense.reshape(-1), atol=1e-6, rtol=0)


def test_dense_targets_know_where_they_are_silent() -> None:
    teacher = DenseTargets(torch.zeros(1, 2, 4), torch.tensor([[True, False]]))
    assert teacher.entropy().tolist() == pytest.approx([math.log(4), 0])
    assert (teacher.num_positions, teacher.vocab_size) == (2, 4)


def test_agreement_at_its_ends() -> None:
    corpus = SoftTargets.from_arrays([0, 1, 2], [2, 2], [1.0, 1.0], [0.0, 0.0], [0.25] * 4)
    same, other = torch.full((4,), -60.0), torch.full((4,), -60.0)
    same[2], other[0] = 60.0, 60.0
    components = Components(torch.tensor([0, 0]), corpus, torch.stack([same, other]))
    for by, expected in (("top1_agreement", [1, 0]), ("overlap", [1, 0]), ("js_divergence", [0, 1])):
        assert MEASURES[by](components, "neural")[0].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("order", list(itertools.permutations(["shorter", "neural", "base", "hard"])))
def test_fallbacks_in_every_order(order: tuple[str, ...]) -> None:
    """Position 0: the corpus as asked; 1: a shorter match; 2: no match; 3: a shorter match, no neural; 4: neither."""
    order = order[: order.index("hard") + 1]
    corpus = SoftTargets.from_arrays(
        [0] * 6, [], [], [1.0] * 5, [0.25] * 4, match_len=[3, 1, 0, 1, 0], context_count=[9] * 5
    )
    neural = DenseTargets(torch.zeros(5, 4), torch.tensor([True, True, True, False, False]))
    policy = Policy({"corpus": 0.5}, fallbacks=order, min_match_len=2)
    actual = blend(policy, 0, Components(torch.zeros(5, dtype=torch.int64), corpus, neural))
    speak = [set(), {"shorter", "neural", "base", "hard"}, {"neural", "base", "hard"}, {"shorter", "base", "hard"}]
    speak.append({"base", "hard"})
    names = {"shorter": ("corpus-shorter", "corpus"), "neural": ("neural-fallback", "neural")}
    names |= {"base": ("base-fallback", "base"), "hard": ("hard-fallback", "hard")}
    for q in range(5):
        reason, taker = names[next(name for name in order if name in speak[q])] if q else ("corpus", "corpus")
        assert labels_of(actual)[q] == reason
        expected = {"hard": 0.5}
        expected[taker] = expected.get(taker, 0) + 0.5
        assert dict(zip(COMPONENTS, actual.weights[q].tolist(), strict=True)) == {
            name: expected.get(name, 0.0) for name in COMPONENTS
        }


def test_a_missing_window_of_the_neural_teacher_goes_to_the_corpus(random_targets: MakeTargets) -> None:
    corpus = replace(random_targets(1), match_len=torch.ones(6).int(), context_count=torch.ones(6).long())
    cached = replace(random_targets(2), valid=torch.tensor([True] * 4 + [False] * 2))
    policy = Policy({"corpus": 0.4}, remainder="neural")
    actual = blend(policy, 0, Components(torch.zeros(6, dtype=torch.int64), corpus, cached))
    assert labels_of(actual) == ["neural"] * 4 + ["corpus-fallback"] * 2
    torch.testing.assert_close(actual.weight_of("corpus"), torch.tensor([0.4] * 4 + [1.0] * 2))


def test_what_evidence_takes_away_goes_to_the_remainder(random_targets: MakeTargets) -> None:
    corpus = replace(random_targets(1), match_len=torch.arange(6).int(), context_count=torch.ones(6).long())
    cached = replace(random_targets(2), valid=torch.tensor([True] * 5 + [False]))
    share = Share(1.0, evidence=(Evidence("match_len", low=0, high=5),))
    policy = Policy({"corpus": share}, remainder="neural", fallbacks=("base",))
    actual = blend(policy, 0, Components(torch.zeros(6, dtype=torch.int64), corpus, cached))
    assert actual.used == {"hard", "corpus", "neural", "base"}
    # position 0 has no match; at 5 nothing is asked of the neural teacher, so its silence is none of our business
    assert labels_of(actual) == ["base-fallback", "neural", "neural", "corpus", "corpus", "corpus"]
    torch.testing.assert_close(actual.weight_of("corpus"), torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]))
    torch.testing.assert_close(actual.weight_of("neural"), torch.tensor([0.0, 0.8, 0.6, 0.4, 0.2, 0.0]))


def test_min_count_silences_rare_contexts_shorter_or_not(random_targets: MakeTargets) -> None:
    match_len, count = torch.tensor([0, 1, 2, 0, 1, 2]).int(), torch.tensor([1, 1, 1, 2, 2, 2])
    corpus = replace(random_targets(1), match_len=match_len, context_count=count)
    policy = Policy({"corpus": 1.0}, fallbacks=("shorter",), min_match_len=2, min_count=2)
    actual = blend(policy, 0, Components(torch.zeros(6, dtype=torch.int64), corpus))
    assert labels_of(actual) == ["hard-fallback"] * 4 + ["corpus-shorter", "corpus"]


def schedule(**table: Any) -> Callable[[int], float]:
    made = make_policy({"corpus": {"weight": 1.0, "schedule": table}}).shares["corpus"]
    return made.at


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_schedules_at_their_ends(kind: str) -> None:
    at = schedule(kind=kind, first=0.8, last=0.2, begin_step=10, end_step=30)
    assert [at(step) for step in (0, 10, 20, 30, 10**9)] == pytest.approx([0.8, 0.8, 0.5, 0.2, 0.2])
    values = [at(step) for step in range(10, 31)]
    assert values == sorted(values, reverse=True)
    rising = schedule(kind=kind, first=0.0, last=1.0, end_step=4)
    assert [rising(step) for step in (0, 2, 4)] == pytest.approx([0.0, 0.5, 1.0])


def test_linear_and_cosine_differ_in_between() -> None:
    quarter = {kind: schedule(kind=kind, end_step=100)(25) for kind in ("linear", "cosine")}
    assert quarter == pytest.approx({"linear": 0.75, "cosine": (1 + math.cos(math.pi / 4)) / 2})


def test_early_only() -> None:
    at_once = schedule(kind="early-only", until_step=5)
    assert [at_once(step) for step in (0, 4, 5, 99)] == [1.0, 1.0, 0.0, 0.0]
    decaying = schedule(kind="early-only", until_step=5, decay_steps=2)
    assert [decaying(step) for step in (4, 5, 6, 7, 99)] == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert [schedule(kind="early-only", until_step=0)(0)] == [0.0]


def test_an_ended_schedule_leaves_the_hard_label_alone(random_targets: MakeTargets) -> None:
    policy = make_policy({"corpus": {"weight": 0.5, "schedule": {"kind": "early-only", "until_step": 3}}})
    components = make_components(random_targets, 3)
    before, after = (blend(policy, step, components) for step in (2, 3))
    assert "corpus" in before.used
    assert after.used == {"hard"}
    assert set(labels_of(after)) == {"hard", "none"}


@given(st.integers(0, 10_000), st.floats(0, 1), st.sampled_from(["corpus", "neural"]))
def test_routing_takes_a_quantile(random_targets: MakeTargets, seed: int, share: float, by: str) -> None:
    components = make_components(random_targets, seed, sparse_neural=True)
    made = blend(Policy({by: 0.5}, routing=Routing(share, by)), 0, components)
    targets = components.targets_of(by)
    eligible = targets.valid & components.counted
    routed = made.reasons == Reason.ROUTED
    assert int(routed.sum()) == math.floor(share * int(eligible.sum()) + 1e-9)
    assert bool((eligible | ~routed).all())
    assert bool((made.weights[routed] == torch.tensor([1.0, 0, 0, 0, 0])).all())
    kept = eligible & ~routed
    if routed.any() and kept.any():
        assert float(targets.entropy()[routed].max()) <= float(targets.entropy()[kept].min())


def test_routing_of_equally_certain_positions_is_exact_and_repeats() -> None:
    ones = [1] * 100
    corpus = SoftTargets.from_arrays(
        range(101), ones, ones, [0.0] * 100, [0.25] * 4, match_len=ones, context_count=ones
    )
    policy = Policy({"corpus": 1.0}, routing=Routing(0.29))  # 0.29 · 100 is a little less than 29 in floating point
    actual = blend(policy, 0, Components(torch.zeros(100, dtype=torch.int64), corpus))
    assert labels_of(actual) == ["routed"] * 29 + ["corpus"] * 71


def test_complementary_weighting_is_less_where_the_corpus_knows(random_targets: MakeTargets) -> None:
    components = make_components(random_targets, 7)
    corpus = components.corpus
    probability = torch.where(corpus.valid, corpus.probability_of(components.labels.clamp_min(0)), 0)
    actual = blend(Policy(complementary=0.5), 0, components).scale
    torch.testing.assert_close(actual, torch.where(components.counted, 1 - 0.5 * probability, 0))
    assert float(actual[components.counted].min()) < 0.99  # it does something in this batch
    torch.testing.assert_close(blend(Policy(), 0, components).scale, components.counted.float())


def test_complementary_evidence_weights_one_teacher() -> None:
    corpus = SoftTargets.from_arrays(
        [0, 1, 2], [1, 1], [0.8, 0.8], [0.2, 0.2], [0.25] * 4, match_len=[1, 1], context_count=[1, 1]
    )
    policy = Policy({"corpus": Share(0.5, evidence=(Evidence("label_probability", low=1, high=0),))})
    actual = blend(policy, 0, Components(torch.tensor([1, 0]), corpus))
    torch.testing.assert_close(actual.weight_of("corpus"), torch.tensor([0.5 * 0.15, 0.5 * 0.95]))


def test_a_label_that_the_corpus_lacks_has_no_probability() -> None:
    corpus = SoftTargets.from_arrays([0, 0], [], [], [1.0], [0.5, 0.5], match_len=[1], context_count=[1])
    actual = blend(Policy({"corpus": 0.5}, complementary=1.0), 0, Components(torch.tensor([5]), corpus))
    assert actual.scale.tolist() == [1.0]


def test_report_adds_batches_up(random_targets: MakeTargets) -> None:
    policy = Policy({"corpus": 0.5}, min_match_len=2, routing=Routing(0.2), complementary=0.5)
    report, expected, weights, scales = BlendReport(), dict.fromkeys(Reason, 0), torch.zeros(5), 0.0
    for seed in range(3):
        made = blend(policy, 0, make_components(random_targets, seed))
        report.add(made)
        for reason in made.reasons.tolist():
            expected[Reason(reason)] += 1
        weights, scales = weights + made.weights.sum(0), scales + float(made.scale.sum())
    positions = 3 * POSITIONS - expected.pop(Reason.NONE)
    assert report.positions == positions
    assert report.shares() == pytest.approx({reason.label: n / positions for reason, n in expected.items()})
    assert sum(report.shares().values()) == pytest.approx(1)
    assert list(report.mean_weights().values()) == pytest.approx((weights / positions).tolist(), abs=1e-6)
    assert report.mean_scale == pytest.approx(scales / positions)
    assert report.logs()["share_routed"] == pytest.approx(expected[Reason.ROUTED] / positions)
    assert "weight_self" not in report.logs()
    report.clear()
    assert report.positions == 0
    assert set(report.shares().values()) == {0.0}


@pytest.mark.parametrize("by", sorted(MEASURES))
@pytest.mark.parametrize("sparse_neural", [False, True])
def test_nothing_waits_for_an_accelerator(random_targets: MakeTargets, by: str, sparse_neural: bool) -> None:
    """On the meta device, which has shapes and no values: to read one value raises."""
    components = Components(
        torch.zeros(6, dtype=torch.int64, device="meta"),
        random_targets(1).to("meta"),
        random_targets(2).to("meta") if sparse_neural else torch.zeros(6, VOCABULARY, device="meta"),
        distinct=torch.zeros(6, device="meta"),
    )
    share = Share(0.5, evidence=(Evidence(by, half=1),))
    policy = Policy({"corpus": share}, remainder="neural", routing=Routing(0.1), complementary=0.5)
    made = blend(policy, 0, components)
    assert made.weights.is_meta
    report = BlendReport()
    report.totals = report.totals.to("meta")
    report.add(made)
    with pytest.raises(RuntimeError, match="meta tensor"):  # as anything above would have, had it looked
        report.logs()


def test_no_positions() -> None:
    components = Components(torch.zeros(0, dtype=torch.int64), neural=torch.zeros(0, 4))
    made = blend(Policy({"neural": 0.5}, routing=Routing(by="neural")), 0, components)
    assert made.weights.shape == (0, 5)
    report = BlendReport()
    report.add(made)
    assert report.logs() == {"position_weight": 0.0}


@pytest.mark.parametrize(
    ("policy", "missing"),
    [
        (Policy({"corpus": 0.1}), "corpus"),
        (Policy({"base": 0.1}), "corpus"),
        (Policy(remainder="neural"), "neural"),
        (Policy({"self": 0.1}), "self_teacher"),
        (Policy(routing=Routing(by="student")), "student"),
        (Policy(complementary=0.1), "corpus"),
        (Policy({"neural": Share(0.5, evidence=(Evidence("distinct", half=1),))}), "corpus"),
        (Policy({"neural": Share(0.5, evidence=(Evidence("overlap", half=1, of="self"),))}), "corpus"),
    ],
)
def test_what_a_policy_needs_has_to_be_given(policy: Policy, missing: str) -> None:
    with pytest.raises(ConfigError, match=f"give {missing}"):
        blend(policy, 0, Components(torch.tensor([1])))


def test_components_of_two_batches_are_refused(random_targets: MakeTargets) -> None:
    for name, value in (("corpus", random_targets(0)), ("neural", torch.zeros(6, 4)), ("distinct", torch.zeros(6))):
        with pytest.raises(TargetError, match=f"{name} has 6 positions and labels 4"):
            Components(torch.zeros(4, dtype=torch.int64), **{name: value})
    with pytest.raises(TargetError, match="give logits"):
        Components(torch.zeros(4, dtype=torch.int64), neural=torch.zeros(4))
    with pytest.raises(TargetError, match="give 4 booleans"):
        DenseTargets(torch.zeros(4, 2), torch.ones(3, dtype=torch.bool))
