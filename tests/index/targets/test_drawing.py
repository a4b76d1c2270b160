"""Tokens drawn from exact distributions: as often as the distribution written out says, wherever its mass lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from corpus_index import CorpusIndex, QueryError, draw_from, draw_tokens, sorted_base

Make = Callable[..., CorpusIndex]
DRAWS = 4_000


def written_out(index: CorpusIndex, context: list[int], **options: Any) -> np.ndarray:
    targets = index.smoothed_targets([context], top_k=index.vocab_size, shortlist=None, only_last=True, **options)
    p = targets.rest[0] * targets.base.astype(np.float64)
    p[targets.token_ids] += targets.probs
    return p


@pytest.mark.parametrize("max_order", [0, 1, 3, None])
@pytest.mark.parametrize("estimator", ["mle", "witten-bell", "modified-kneser-ney", "pitman-yor"])
@pytest.mark.parametrize("light", [2, 1000])
def test_frequencies_are_probabilities(make_index: Make, estimator: str, max_order: int | None, light: int) -> None:
    """light: whether the mass lies on stored rows or on pairs."""
    rng = np.random.default_rng(2)
    documents = [(rng.geometric(0.2, 80) % 15).tolist() for _ in range(20)]
    index = make_index(documents, vocab_size=17, light=light)
    generator = np.random.default_rng(0)
    for context in ([0], [1, 0], [*documents[3][:4]], [16], [16, 0]):
        rows = np.tile(context, (DRAWS, 1))
        options: dict[str, Any] = {"estimator": index.fitted(estimator, max_order)}
        drawn = draw_tokens(index, rows, generator, **options)
        expected = written_out(index, context, **options)
        actual = np.bincount(drawn.token_ids, minlength=17) / DRAWS
        assert not actual[expected == 0].any()
        assert np.abs(actual - expected).max() < 4.5 * np.sqrt(0.25 / DRAWS)
        one = index.smoothed_targets([context], only_last=True, **options)
        assert (drawn.match_len == one.match_len[0]).all()
        assert (drawn.context_count == one.context_count[0]).all()


def test_tokens_that_the_corpus_lacks_are_drawn_too(make_index: Make) -> None:
    index = make_index([[7, 90_000] * 5, [3, 7, 7, 3]], vocab_size=100_000)
    rows = np.tile([7], (DRAWS, 1))
    drawn = draw_tokens(index, rows, np.random.default_rng(0), max_order=1).token_ids
    expected = written_out(index, [7], max_order=1)
    lacking = np.setdiff1d(np.arange(100_000), [3, 7, 90_000])
    assert np.isin(drawn, lacking).mean() == pytest.approx(expected[lacking].sum(), abs=0.035)
    for token in (3, 7, 90_000):
        assert (drawn == token).mean() == pytest.approx(expected[token], abs=0.035)


def test_a_seed_repeats_the_draws_and_the_evidence_is_the_match(make_index: Make) -> None:
    index = make_index([[1, 2, 3, 1, 2, 4], [1, 2, 3]], vocab_size=6)
    drawn = [draw_tokens(index, [[1, 2], [5, 4]], np.random.default_rng(9), max_order=2) for _ in range(2)]
    assert drawn[0].token_ids.tolist() == drawn[1].token_ids.tolist()
    assert drawn[0].match_len.tolist() == [2, 0]
    assert drawn[0].context_count.tolist() == [3, 9]


def test_estimators_with_exclusion_are_refused(make_index: Make) -> None:
    with pytest.raises(QueryError, match=r"'ppm-c' is no mixture: draw from its smoothed_targets"):
        draw_tokens(make_index([[1, 2, 1]], vocab_size=3), [[1]], np.random.default_rng(0), estimator="ppm-c")


@pytest.mark.parametrize("top_k", [1, 2, 5, None])
@pytest.mark.parametrize("top_p", [0.3, 0.8, None])
@pytest.mark.parametrize("estimator", ["witten-bell", "katz"])
def test_cuts_are_those_of_the_distribution_written_out(
    make_index: Make, estimator: str, top_p: float | None, top_k: int | None
) -> None:
    rng = np.random.default_rng(4)
    index = make_index([(rng.geometric(0.2, 80) % 15).tolist() for _ in range(20)], vocab_size=17)
    options: dict[str, Any] = {"estimator": estimator, "max_order": 2}
    targets = index.smoothed_targets(np.tile([0, 1], (DRAWS, 1)), top_k=17, shortlist=None, only_last=True, **options)
    base = sorted_base(targets.base, power=1.5)
    drawn = draw_from(targets, base, np.random.default_rng(1), top_k=top_k, top_p=top_p)
    expected = written_out(index, [0, 1], **options) ** 1.5
    ranked = np.sort(expected)[::-1]
    if top_k is not None:
        expected[expected < ranked[top_k - 1] * (1 - 1e-6)] = 0
    if top_p is not None:
        ranked = np.sort(expected)[::-1]
        expected[expected < ranked[np.argmax(ranked.cumsum() >= top_p * ranked.sum())] * (1 - 1e-6)] = 0
    actual = np.bincount(drawn, minlength=17) / DRAWS
    assert not actual[expected == 0].any()
    assert np.abs(actual - expected / expected.sum()).max() < 4.5 * np.sqrt(0.25 / DRAWS)
