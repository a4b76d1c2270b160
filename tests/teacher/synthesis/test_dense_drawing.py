"""Drawing from written-out distributions: the cuts against a naive twin, the frequencies against the distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corpus_teacher.data.drawing import DrawOptions
from corpus_teacher.synthesis import dense_drawing as drawing
from corpus_teacher.synthesis.dense_drawing import draw_tokens, kept_weights


def naive_distribution(probs: list[float], options: DrawOptions) -> list[float]:
    """Temper, cut to the k most probable and their ties, then to the smallest set that holds p and its ties."""
    if options.temperature == 0:
        kept = [float(p == max(probs)) for p in probs]
        return [p / sum(kept) for p in kept]
    tempered = [p ** (1 / options.temperature) for p in probs]
    if options.top_k is not None:
        least = sorted(tempered, reverse=True)[min(options.top_k, len(probs)) - 1]
        tempered = [p if p >= least else 0.0 for p in tempered]
    if options.top_p is not None:
        goal, held, least = options.top_p * sum(tempered), 0.0, 0.0
        for p in sorted(tempered, reverse=True):
            held, least = held + p, p
            if held >= goal * (1 - 1e-12):
                break
        tempered = [p if p >= least else 0.0 for p in tempered]
    return [p / sum(tempered) for p in tempered]


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=8).filter(any),
    st.sampled_from([0.0, 0.5, 1.0, 1.7]),
    st.none() | st.integers(1, 9),
    st.none() | st.sampled_from([0.03, 0.31, 0.77, 0.96, 1.0]),
)
def test_cuts_are_those_of_the_naive_twin(
    counts: list[int], temperature: float, top_k: int | None, top_p: float | None
) -> None:
    """Whole-number weights, so that ties are common."""
    options = DrawOptions(temperature, top_k, top_p)
    probs = torch.tensor([counts], dtype=torch.float64) / sum(counts)
    actual = kept_weights(probs, options)[0]
    expected = naive_distribution(probs[0].tolist(), options)
    np.testing.assert_allclose((actual / actual.sum()).numpy(), expected, atol=1e-9)


def test_a_wide_nucleus_is_that_of_all_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    probs = torch.tensor(np.random.default_rng(0).dirichlet(np.ones(40) * 0.3, 5))
    expected = kept_weights(probs, DrawOptions(top_p=0.9))
    monkeypatch.setattr(drawing, "_FIRST_LOOK", 3)
    assert (expected > 0).sum(1).max() > 3
    torch.testing.assert_close(kept_weights(probs, DrawOptions(top_p=0.9)), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "options", [DrawOptions(), DrawOptions(0.6), DrawOptions(1.5, top_k=3), DrawOptions(top_p=0.8), DrawOptions(0)]
)
def test_frequencies(options: DrawOptions) -> None:
    """Chi-square of 20,000 draws, far below the 1 − 1e-6 quantile for 5 degrees of freedom (35.9)."""
    p = [0.3, 0.3, 0.2, 0.15, 0.05, 0.0]
    tokens, log_probs = draw_tokens(torch.tensor([p]).repeat(20_000, 1), options, np.random.default_rng(1))
    expected = 20_000 * np.array(naive_distribution(p, options))
    actual = np.bincount(tokens, minlength=6)
    assert (actual[expected == 0] == 0).all()
    held = expected > 0
    assert ((actual[held] - expected[held]) ** 2 / expected[held]).sum() < 35.9
    np.testing.assert_allclose(log_probs, np.log(np.array(p)[tokens]), rtol=1e-6)


def test_the_ends_of_the_chance_are_tokens_with_weight() -> None:
    class Ends:
        def random(self, size: int) -> np.ndarray:
            return np.array([0.0, np.nextafter(1.0, 0.0)])

    probs = torch.tensor([[0.0, 0.5, 0.5, 0.0]]).repeat(2, 1)
    tokens, log_probs = draw_tokens(probs, DrawOptions(), Ends())  # type: ignore[arg-type]
    assert tokens.tolist() == [1, 2]
    assert log_probs.tolist() == [math.log(0.5)] * 2
