"""The study's statistics: against naive twins, textbook values, and studies simulated with a known truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.errors import InputError
from corpus_teacher.study.report.matching import (
    BEYOND,
    FINISHED,
    FINISHED_ARM,
    LOADED,
    ONE_BUDGET,
    equal_compute,
    token_speed_up,
)
from corpus_teacher.study.report.results import Results, sort_rows
from corpus_teacher.study.report.statistics import (
    difference,
    draw_losses,
    draw_values,
    estimate,
    holm,
    t_quantile,
    t_tail,
)

from ..study_rows import make_rows, make_settings

PLACE = ("corpus", "small", "once")


def naive_bootstrap(sums: npt.NDArray[Any], tokens: npt.NDArray[Any], draws: int) -> list[float]:
    """Differences of two runs, one draw of seeds and documents at a time."""
    rng, (_, num_seeds, num_documents) = np.random.default_rng(3), sums.shape
    found = []
    for _ in range(draws):
        seeds, documents = rng.integers(num_seeds, size=num_seeds), rng.integers(num_documents, size=num_documents)
        losses = []
        for run in sums:
            nats = sum(run[seed][document] for seed in seeds for document in documents)
            losses.append(nats / num_seeds / sum(tokens[document] for document in documents))
        found.append(losses[1] - losses[0])
    return found


def naive_holm(p_values: Sequence[float]) -> list[float]:
    """Each hypothesis by itself: the largest corrected p of those with no larger p."""
    m = len(p_values)
    ranked = sorted(range(m), key=lambda i: (p_values[i], i))
    return [
        max(min(1.0, (m - rank) * p_values[j]) for rank, j in enumerate(ranked[: ranked.index(i) + 1]))
        for i in range(m)
    ]


def simulated(rng: np.random.Generator, *, of_seed: float, of_document: float, effect: float = 0.0) -> npt.NDArray[Any]:
    """Sums of two runs with crossed chance of 5 seeds and 40 documents of 100 tokens, and some of both."""
    chance = rng.normal(0, of_seed, (5, 1)) + rng.normal(0, of_document, 40) + rng.normal(0, 0.02, (5, 40))
    base = 4 + rng.normal(0, 1, (1, 40)) + rng.normal(0, 0.5, (5, 1))
    return 100 * np.stack([base, base + effect + chance])


def study(rows: list[dict[str, Any]], **changes: Any) -> Results:
    return sort_rows(make_settings(**changes), rows)


def exact(gains: dict[str, float], budgets: dict[str, int]) -> Results:
    """A study without chance: 4 − 0.25·log2(tokens / 10⁶) − gain."""
    return study(make_rows(gains, {"small": 300_000}, budgets, range(2), noise=0.0, tuning=False))


def test_draws_are_a_bootstrap_of_seeds_and_documents() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.integers(1, 50, 9)
    sums = rng.normal(4, 1, (2, 4, 9)) * tokens
    draws = draw_losses(sums, tokens)
    expected = np.std(naive_bootstrap(sums, tokens, 4000), ddof=1)
    actual = np.std(draws.joint[:, 1] - draws.joint[:, 0], ddof=1)
    # seeds' deviations are stretched by √(4/3): never narrower than the plain bootstrap, never wider than that
    assert expected * 0.96 < actual < expected * math.sqrt(4 / 3) * 1.04
    assert draws.point == pytest.approx([run.sum() / 4 / tokens.sum() for run in sums])


def test_documents_alone_are_drawn_as_the_naive_twin_draws_them() -> None:
    rng = np.random.default_rng(2)
    tokens = rng.integers(1, 50, 8)
    sums = rng.normal(4, 1, (2, 1, 8)) * tokens
    expected = np.std(naive_bootstrap(sums, tokens, 4000), ddof=1)
    actual = np.std(draw_losses(sums, tokens).by_document @ [-1, 1], ddof=1)
    assert actual == pytest.approx(expected, rel=0.06)


def test_seeds_alone_give_the_paired_t_interval() -> None:
    base, arm = np.array([4.0, 4.1, 3.9, 4.2, 4.05]), np.array([3.9, 4.05, 3.85, 4.0, 4.0])
    actual = difference(draw_values([base, arm]))
    mean, error = (arm - base).mean(), (arm - base).std(ddof=1) / math.sqrt(5)
    assert actual.value == pytest.approx(mean)
    assert actual.half_width == pytest.approx(2.7764 * error, rel=0.05)
    assert (actual.low + actual.high) / 2 == pytest.approx(mean)
    assert 2 * t_tail(abs(mean) / error, 4) == pytest.approx(actual.p, rel=0.2)


# Tokens of the held-out documents of the studies: Python's standard library, and nine books.
CODE = (723, 1313, 11665, 262, 27524, 3516, 746, 1074, 1475, 10783, 3117, 1841, 7423, 11052, 9846, 21587)
MANY = 1e6  # documents whose number doesn't matter
BOOKS = (5852, 6624, 5810, 5743, 5852, 6022, 5965, 6218, 6330)


@pytest.mark.parametrize("tokens", [CODE, BOOKS], ids=["code", "books"])
def test_intervals_cover_the_truth_for_documents_of_real_sizes(tokens: tuple[int, ...]) -> None:
    """By chance of documents alone, of both, of seeds alone: 95 % says 94 to 96 %."""
    rng, covered, studies = np.random.default_rng(11), 0, 400
    size = np.array(tokens, dtype=float)
    for seeds, of_seed, of_document in ((1, 0.0, 0.1), (5, 0.02, 0.1), (5, 0.1, 0.02), (3, 0.03, 0.05)):
        for _ in range(studies):
            chance = rng.normal(0, of_seed, (seeds, 1)) + rng.normal(0, of_document, len(size))
            draws = draw_losses(np.stack([np.zeros_like(chance), chance]) * size, size)
            one = difference(draws)
            covered += one.low <= 0 <= one.high
    assert 0.94 <= covered / studies / 4 <= 0.96


def test_documents_count_by_their_lengths() -> None:
    """16 documents, one of them half of the text: as many as 4; equal ones count as what they are."""
    sums = np.random.default_rng(3).normal(4, 1, (2, 1, 16))
    tokens = np.array([15.0] + [1.0] * 15)
    assert draw_losses(sums, tokens).effective_documents == pytest.approx(30**2 / (15**2 + 15))
    assert draw_losses(sums, np.ones(16)).effective_documents == pytest.approx(16)
    equal = draw_losses(sums, np.ones(16))
    width = difference(equal).half_width / difference(replace(equal, effective_documents=MANY)).half_width
    assert width == pytest.approx(math.sqrt(16 / 15) * t_quantile(0.975, 15) / 1.959964, rel=1e-4)


@pytest.mark.parametrize(("of_seed", "of_document"), [(0.1, 0.0), (0.02, 0.2), (0.1, 0.4)])
def test_intervals_cover_the_truth(of_seed: float, of_document: float) -> None:
    rng, effect, covered, studies = np.random.default_rng(5), -0.1, 0, 250
    tokens = np.full(40, 100)
    for _ in range(studies):
        one = difference(draw_losses(simulated(rng, of_seed=of_seed, of_document=of_document, effect=effect), tokens))
        covered += one.low <= effect <= one.high
    assert 0.91 <= covered / studies <= 0.995


def test_percentiles_of_five_seeds_would_not_cover_it() -> None:
    """What the module's stretch and Student's t are for."""
    rng, covered = np.random.default_rng(6), 0
    for _ in range(250):
        gains = rng.normal(0, 1, 5)
        low, high = np.percentile(rng.choice(gains, (400, 5)).mean(axis=1), [2.5, 97.5])
        covered += low <= 0 <= high
    assert covered / 250 < 0.9


def test_a_null_is_a_null() -> None:
    """Of studies with five arms that do nothing, about one in twenty claims anything."""
    rng, claims = np.random.default_rng(7), 0
    for _ in range(120):
        arms = [draw_values([np.zeros(5), rng.normal(0, 1, 5)]) for _ in range(5)]
        claims += min(holm([difference(one).p for one in arms])) < 0.05
    assert claims / 120 < 0.12
    same = difference(draw_losses(np.ones((2, 5, 3)), np.ones(3)))
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


def test_an_effect_is_found() -> None:
    one = difference(
        draw_losses(simulated(np.random.default_rng(8), of_seed=0.01, of_document=0.05, effect=-0.3), [100] * 40)
    )
    assert one.p < 0.001
    assert one.high < 0


def test_one_seed_leaves_the_chance_of_documents_alone() -> None:
    sums = np.random.default_rng(9).normal(4, 1, (2, 1, 30))
    with_documents, without = difference(draw_losses(sums, np.ones(30))), difference(draw_values(sums.mean(axis=2)))
    assert (with_documents.seeds, with_documents.documents) == (1, 30)
    assert with_documents.low < with_documents.value < with_documents.high
    assert math.isnan(without.low)
    assert math.isnan(without.high)
    assert math.isnan(without.p)


def test_the_same_numbers_each_time_and_the_same_draws_for_all_arms() -> None:
    sums = np.random.default_rng(10).normal(4, 1, (3, 4, 6))
    first, second = draw_losses(sums, np.ones(6)), draw_losses(sums[[0, 2]], np.ones(6))
    assert np.array_equal(first.joint[:, [0, 2]], second.joint)
    assert difference(first, arm=2) == difference(second)


def test_a_ratio_is_built_on_its_logarithm() -> None:
    draws = draw_values([[2.0, 2.2, 2.1], [1.0, 1.1, 1.0]])
    actual = estimate(draws, lambda losses: np.log(losses[..., 0] / losses[..., 1]), ratio=True)
    assert actual.value == pytest.approx(6.3 / 3.1)
    assert actual.low * actual.high == pytest.approx(actual.value**2)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="not a finite number"):
        draw_losses([[[1.0, bad]]], [1, 1])


def test_documents_without_tokens_are_refused() -> None:
    with pytest.raises(InputError, match="hold no tokens"):
        draw_losses([[[0.0]]], [0])


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (9, 2.2622), (29, 2.0452), (200, 1.9719)]
)
def test_quantiles_of_t_are_those_of_the_tables(freedom: float, expected: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(expected, abs=5e-5)
    assert t_tail(expected, freedom) == pytest.approx(0.025, abs=1e-5)


def test_the_tail_of_t_has_a_closed_form_at_two_degrees() -> None:
    for t in (0.0, 0.5, 0.99, 1.01, 3.0, 50.0):
        assert t_tail(t, 2) == pytest.approx((1 - t / math.sqrt(2 + t * t)) / 2, rel=1e-6)


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    with_nan = holm([0.02, math.nan, 0.03])
    assert with_nan[::2] == pytest.approx([0.04, 0.04])
    assert math.isnan(with_nan[1])


@given(st.lists(st.floats(0, 1), max_size=7))
def test_holm_is_its_naive_twin(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(naive_holm(p_values))


@given(st.permutations([0.001, 0.02, 0.03, 0.2, 0.2]))
def test_holm_does_not_know_the_order(p_values: list[float]) -> None:
    expected = dict(zip([0.001, 0.02, 0.03, 0.2, 0.2], holm([0.001, 0.02, 0.03, 0.2, 0.2]), strict=True))
    assert holm(p_values) == [expected[p] for p in p_values]


def test_speed_up_of_a_known_law() -> None:
    results = exact({"hard": 0.0, "corpus": 0.1}, {"once": 10**6, "twice": 2 * 10**6, "4x": 4 * 10**6})
    between = token_speed_up(results, PLACE)
    assert between.how == FINISHED
    assert between.estimate is not None
    assert between.estimate.value == pytest.approx(2 ** (0.1 / 0.25))
    beyond = token_speed_up(results, ("corpus", "small", "4x"))  # hard has no run that good: read on the arm's curve
    assert beyond.how == FINISHED_ARM
    assert beyond.estimate is not None
    assert beyond.estimate.value == pytest.approx(2 ** (0.1 / 0.25))


def test_speed_up_of_the_pilot() -> None:
    """Hard labels 4.648 and 4.350 nats at 2.56 M and 3.84 M tokens, the arm 4.475: about 22 % of the tokens saved."""
    rows = make_rows({"hard": 0.0, "corpus": 0.0}, {"small": 300_000}, {"once": 1, "more": 2}, [0], tuning=False)
    for row in rows:
        row["tokens"] = {"once": 2_560_000, "more": 3_840_000}[row["budget"]]
        loss = {("hard", "once"): 4.648, ("hard", "more"): 4.350, ("corpus", "once"): 4.475}.get(
            (row["arm"], row["budget"]), 4.2
        )
        row["metrics"] = {"in": {"nats": loss, "documents": [[loss * 10, 10], [loss * 10, 10]]}}
    found = token_speed_up(study(rows), PLACE)
    assert found.estimate is not None
    saved = 1 - 1 / found.estimate.value
    assert 0.20 < saved < 0.23
    linear = (2.56 + 1.28 * (4.648 - 4.475) / (4.648 - 4.350)) / 2.56
    assert abs(math.log(linear / found.estimate.value)) <= found.error + 1e-9


def test_nothing_is_read_inside_of_one_run() -> None:
    """Before the learning rate has come down every saving looks larger than it is."""
    results = exact({"hard": 0.0, "corpus": 0.1}, {"once": 10**6})
    for found in (token_speed_up(results, PLACE), equal_compute(results, PLACE)):
        assert found.estimate is None
        assert found.how == ONE_BUDGET


def test_cpu_time_of_a_loaded_machine_is_not_compared() -> None:
    budgets = {"once": 10**6, "twice": 2 * 10**6}
    rows = make_rows({"hard": 0.0, "corpus": 0.1}, {"small": 300_000}, budgets, range(2), noise=0.0, tuning=False)
    assert equal_compute(study(rows), PLACE).how == FINISHED
    rows[0]["seconds"] = 1.3 * rows[0]["cpu_s"]
    found = equal_compute(study(rows), PLACE)
    assert (found.estimate, found.how) == (None, LOADED)


def test_a_document_without_tokens_changes_nothing() -> None:
    """A draw that held such documents alone would be 0 / 0, and the interval NaN."""
    rng = np.random.default_rng(5)
    sums, tokens = rng.normal(4, 1, (2, 3, 2)), np.array([1.0, 1.0])
    padded = np.concatenate([sums, np.zeros((2, 3, 6))], axis=2)
    expected = difference(draw_losses(sums, tokens))
    assert difference(draw_losses(padded, np.concatenate([tokens, np.zeros(6)]))) == expected
    assert math.isfinite(expected.low)


def test_speed_up_that_cannot_be_read_says_why() -> None:
    budgets = {"once": 10**6, "twice": 2 * 10**6}
    far = token_speed_up(exact({"hard": 0.0, "corpus": 2.0}, budgets), PLACE)
    assert far.estimate is None
    assert "largest budget" in far.how
    assert "smallest budget" in token_speed_up(exact({"hard": 0.0, "corpus": -2.0}, budgets), PLACE).how
    rows = make_rows({"hard": 0.0, "corpus": 0.01}, {"small": 300_000}, budgets, range(2), noise=0.0, tuning=False)
    for row in rows:
        if row["arm"] == "hard" and row["budget"] == "twice":
            row["metrics"]["in"]["documents"] = [[6.0 * n, n] for _, n in row["metrics"]["in"]["documents"]]
        row["history"] = []
    assert "fall with every larger budget" in token_speed_up(study(rows), PLACE).how


def test_budgets_that_read_other_texts_are_no_curve() -> None:
    """As many tokens of less text, read more often: the loss between two such budgets means nothing."""
    rows = make_rows({"hard": 0.0, "corpus": 0.1}, {"small": 300_000}, {"once": 10**6, "four": 2 * 10**6}, range(2))
    for row in rows:
        if row["role"] == "run":
            row["config"] = {"data": {"index": f"data/index-{row['budget']}"}}
    assert token_speed_up(study(rows), PLACE).how == ONE_BUDGET
    assert equal_compute(study(rows), PLACE).how == ONE_BUDGET
    for row in rows:
        row["tokens"], row["cpu_s"] = 10**6, 10.0
        row["config"] = {}
    assert token_speed_up(study(rows), PLACE).how == ONE_BUDGET
    by_index = study(rows, data={"indexes": {"once": 10**6, "four": 250_000, "all": "all"}})
    passes = [
        by_index.passes({"tokens": 10**6, "config": {"data": {"index": f"data/index-{name}"}}})
        for name in ("once", "four", "all")
    ]
    assert passes == [1.0, 4.0, None]


def test_equal_compute_of_a_known_law() -> None:
    """The arm costs 1.2 times as much, which is worth 0.25·log2(1.2) nats to hard labels."""
    results = exact({"hard": 0.0, "corpus": 0.1}, {"once": 10**6, "twice": 2 * 10**6})
    expected = -0.1 + 0.25 * math.log2(1.2)
    for budget, how in (("once", FINISHED), ("twice", BEYOND)):
        found = equal_compute(results, ("corpus", "small", budget))
        assert found.how == how
        assert found.estimate is not None
        assert found.estimate.value == pytest.approx(expected)


def test_rows_in_any_order_are_the_same_results() -> None:
    rows = make_rows(noise=0.01)
    shuffled = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]
    for metric in ("in.nats", "in.ece"):
        one, other = (study(some).draws([("hard", "small", "once"), PLACE], metric) for some in (rows, shuffled))
        assert one is not None
        assert other is not None
        assert np.array_equal(one.joint, other.joint)


def test_only_common_seeds_are_paired() -> None:
    rows = [row for row in make_rows(tuning=False) if (row["arm"], row["seed"]) not in {("corpus", 0), ("hard", 3)}]
    draws = study(rows).draws([("hard", "small", "once"), PLACE], "in.nats")
    assert draws is not None
    assert draws.seeds == 3
    none = [row for row in rows if row["arm"] == "hard" or row["seed"] == 3]
    assert study(none).draws([("hard", "small", "once"), PLACE], "in.nats") is None
