"""Weights of student and corpus by evidence: against a search, on pairs whose right weights are known, and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from corpus_teacher.blend.interpolation import Buckets, MixtureWeights, fit_weights, mixed_probabilities
from corpus_teacher.errors import ConfigError, TargetError


def drawn(weights: list[float], tokens: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens of a mixture of two distributions over 4 tokens whose weight goes by match_len: p, q, match_len."""
    generator = np.random.default_rng(seed)
    student, corpus = np.array([0.7, 0.1, 0.1, 0.1]), np.array([0.05, 0.05, 0.2, 0.7])
    match_len = generator.integers(0, len(weights), tokens)
    own = np.asarray(weights)[match_len]
    rows = own[:, None] * student + (1 - own[:, None]) * corpus
    came = (generator.random((tokens, 1)) > rows.cumsum(1)).sum(1)
    return student[came], corpus[came], match_len


def test_weights_that_are_known_are_found() -> None:
    p, q, match_len = drawn([0.9, 0.5, 0.1], 60_000)
    fitted = fit_weights(p, q, {"match_len": match_len}, edges={"match_len": (1, 2)})
    np.testing.assert_allclose(fitted.weights, [0.9, 0.5, 0.1], atol=0.02)
    assert fitted.tokens.sum() == 60_000


def test_the_optimum_is_that_of_a_search() -> None:
    p, q, _ = drawn([0.3], 500)
    grid = np.linspace(0, 1, 10_001)
    loss = [-np.log(mixed_probabilities(p, q, weight)).mean() for weight in grid]
    fitted = fit_weights(p, q, prior=0, rounds=2000)
    assert fitted.weights[0] == pytest.approx(grid[int(np.argmin(loss))], abs=1e-4)


def test_few_tokens_are_drawn_to_the_coarser_bucket() -> None:
    p, q, match_len = drawn([0.8], 5000)
    match_len[:3] = 1
    p[:3], q[:3] = 0.01, 0.9  # three tokens that the corpus knows
    evidence = {"match_len": match_len}
    free = fit_weights(p, q, evidence, edges={"match_len": (1,)}, prior=0).weights[1]
    drawn_to = fit_weights(p, q, evidence, edges={"match_len": (1,)}, prior=100).weights[1]
    assert free < 0.05
    assert 0.5 < drawn_to < 0.8


def test_an_empty_bucket_has_the_coarser_weight() -> None:
    p, q, match_len = drawn([0.8], 5000)
    fitted = fit_weights(p, q, {"match_len": match_len, "count": match_len}, edges={"match_len": (1,), "count": (5,)})
    assert fitted.weights[1:] == pytest.approx(fitted.weights[0], abs=0.01)


def test_the_fit_beats_both_and_survives_json() -> None:
    p, q, match_len = drawn([0.9, 0.1], 20_000)
    evidence = {"match_len": match_len, "entropy": match_len + 0.5, "count": match_len * 9}
    fitted = fit_weights(p, q, evidence)
    assert list(fitted.buckets.edges) == ["match_len", "entropy", "count"]
    again = MixtureWeights.from_dict(json.loads(json.dumps(fitted.to_dict())))
    mixed = mixed_probabilities(p, q, again(evidence))
    assert -np.log(mixed).mean() < min(-np.log(p).mean(), -np.log(q).mean()) - 0.1
    np.testing.assert_array_equal(again(evidence), fitted(evidence))


def test_a_token_that_nobody_knows_has_no_say() -> None:
    p, q, _ = drawn([0.3], 1000)
    with_zeros = fit_weights(np.append(p, [0.0] * 9), np.append(q, [0.0] * 9))
    assert with_zeros.weights == pytest.approx(fit_weights(p, q).weights)


def test_the_buckets_are_those_of_a_loop() -> None:
    buckets = Buckets({"match_len": (1, 4), "count": (2, 3, 5)})
    generator = np.random.default_rng(1)
    match_len, count = generator.integers(0, 7, 50), generator.integers(0, 9, 50)
    expected = [
        4 * sum(length >= edge for edge in (1, 4)) + sum(number >= edge for edge in (2, 3, 5))
        for length, number in zip(match_len, count, strict=True)
    ]
    assert buckets.of({"count": count, "match_len": match_len}).tolist() == expected
    assert buckets.size == 12


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: fit_weights([], []), TargetError, "0 probabilities"),
        (lambda: fit_weights([0.5], [0.5, 0.5]), TargetError, "1 probabilities and the corpus 2"),
        (lambda: fit_weights([0.5], [np.nan]), TargetError, "corpus has a probability"),
        (lambda: fit_weights([0.5], [0.5], prior=-1), ConfigError, "prior is -1"),
        (lambda: fit_weights([0.5], [0.5], edges={"count": (1,)}), TargetError, "ask for 'count'"),
        (lambda: fit_weights([0.5], [0.5], {"count": [1, 2]}), TargetError, "2 positions"),
        (lambda: Buckets({"length": (1,)}), ConfigError, "length"),
        (lambda: Buckets({"count": (2, 1)}), ConfigError, "ascending"),
        (lambda: MixtureWeights.from_dict({"weights": [0.5]}), ConfigError, "no edges"),
        (lambda: MixtureWeights.from_dict({"edges": {}, "weights": [0.5, 0.5]}), ConfigError, "2 weights"),
        (lambda: MixtureWeights.from_dict({"edges": {}, "weights": [1.5]}), ConfigError, "outside 0 to 1"),
        (lambda: MixtureWeights.from_dict({"edges": {}, "weights": ["x"]}), ConfigError, "isn't a number"),
    ],
)
def test_what_is_refused(call: object, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        call()  # type: ignore[operator]
