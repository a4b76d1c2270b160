"""Estimators fitted on leave-document-out evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_index import CorpusIndex, QueryError, make_estimator
from corpus_index.estimators import fitting
from corpus_index.estimators.estimator import Estimator, load_estimator
from hypothesis import given
from hypothesis import strategies as st

from ..conftest import corpora

Make = Callable[..., CorpusIndex]

NAMES = ["jelinek-mercer", "dirichlet", "pitman-yor", "auto"]
UNFITTED: dict[str, dict[str, Any]] = {
    "jelinek-mercer": {"strengths": ((0.5,),)},
    "dirichlet": {"strengths": ((16.0,),)},
    "pitman-yor": {"discounts": ((0.5, 0.5, 0.5),)},
    "auto": {"discounts": ((0.5, 0.5, 0.5),), "strengths": ((1.0, 1.0, 1.0, 0.0), (0.5, 0.5, 0.5, 0.5))},
}


def markov(rng: np.random.Generator, documents: int) -> list[list[int]]:
    """Documents of a chain of order 2 over 12 tokens."""
    after = np.cumsum(np.random.default_rng(7).dirichlet(np.full(12, 0.2), (12, 12)), axis=2)
    texts = []
    for _ in range(documents):
        text = rng.integers(0, 12, 2).tolist()
        while len(text) < 60:
            text.append(min(11, int(np.searchsorted(after[text[-2], text[-1]], rng.random()))))
        texts.append(text)
    return texts


def loss(index: CorpusIndex, estimator: Estimator, texts: list[list[int]]) -> float:
    rows = np.array(texts)
    following = np.full_like(rows, -1)
    following[:, :-1] = rows[:, 1:]
    p = index.next_probabilities(rows, following, estimator=estimator, starts_document=True)
    return float(-np.log(p[following.reshape(-1) >= 0]).mean())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", [None, 3])
def test_fitted_beats_unfitted_on_unseen_text(make_index: Make, name: str, order: int | None) -> None:
    rng = np.random.default_rng(3)
    index = make_index(markov(rng, 60), vocab_size=12)
    unseen = markov(rng, 30)
    fitted = index.fitted(name, order)
    assert fitted.facts["positions"] == 3600
    assert loss(index, fitted, unseen) < loss(index, make_estimator(name, order, **UNFITTED[name]), unseen) - 0.01
    assert fitted.facts["nats"] == pytest.approx(loss(index, fitted, unseen), abs=0.15)  # what it promised


@pytest.mark.parametrize("name", NAMES)
def test_a_fit_repeats_and_is_kept(make_index: Make, tmp_path: Path, name: str) -> None:
    index = make_index(markov(np.random.default_rng(1), 20), vocab_size=12)
    fitted = make_estimator(name, 2).fit(index)
    fitting._kept.clear()
    assert make_estimator(name, 2).fit(index) == fitted
    fitted.save(tmp_path / "estimator.json")
    loaded = load_estimator(tmp_path / "estimator.json", index)
    assert loaded == fitted
    assert loaded.is_fitted
    assert not dataclasses.replace(fitted, discounts=(), strengths=()).is_fitted


@pytest.mark.parametrize("name", NAMES)
@given(corpus=corpora(), order=st.sampled_from([None, 0, 1, 3]))
def test_any_corpus_gives_a_distribution(
    make_index: Make, name: str, corpus: dict[str, Any], order: int | None
) -> None:
    corpus["vocab_size"] = min(corpus["vocab_size"], 5) + 1
    index = make_index(**corpus)
    row = np.append(index.tokens[:10].astype(np.int64), [0, 1, 0])
    for label in range(index.vocab_size):
        following = np.full(row.size, label)
        p = index.next_probabilities(row, following, estimator=index.fitted(name, order))
        assert (p > 0).all()
    total = sum(
        index.next_probabilities(row, np.full(row.size, w), estimator=index.fitted(name, order))
        for w in range(index.vocab_size)
    )
    assert total == pytest.approx(1, abs=1e-6)


def test_the_gradient_is_that_of_the_loss() -> None:
    rng = np.random.default_rng(0)
    chains, size, buckets = 30, 4, 5
    counts = np.zeros((chains * size, 5), np.int64)
    counts[:, 2:] = rng.integers(0, 4, (chains * size, 3))
    counts[:, 2] += 1
    counts[:, 1] = counts[:, 2] + 2 * counts[:, 3] + 4 * counts[:, 4]
    counts[:, 0] = np.where(rng.random(chains * size) < 0.5, 0, np.where(counts[:, 4] > 0, 4, 1))
    bucket, base = rng.integers(0, buckets, chains * size), rng.uniform(0.01, 0.1, chains)
    offsets, values = np.arange(chains + 1) * size, rng.uniform(0.2, 0.8, (buckets, 4))
    which, below = rng.permutation(bucket.size).astype(np.int32), np.empty(size)
    terms, by_term = np.empty((2, bucket.size, 2))
    slopes = np.empty((buckets, 4))

    def at(values: np.ndarray) -> float:
        arguments = (offsets, which, base, bucket, counts, values, terms, by_term, below, slopes)
        return float(fitting.chains.discount_gradient(*arguments))

    loss = 0.0
    for q, p in enumerate(base.tolist()):
        for k in which[q * size : (q + 1) * size][::-1].tolist():
            (c, total, *classes), (back, *discounts) = counts[k].tolist(), values[bucket[k]].tolist()
            cut = sum(discount * number for discount, number in zip(discounts, classes, strict=True))
            own = (c - discounts[min(c, 3) - 1]) / (total - cut) if c else 0.0
            p = (1 - back) * own + back * p
        loss -= np.log(p)
    assert at(values) == pytest.approx(loss)
    actual = slopes.copy()
    for b in range(buckets):
        for j in range(4):
            step = np.zeros_like(values)
            step[b, j] = 1e-6
            assert actual[b, j] == pytest.approx((at(values + step) - at(values - step)) / 2e-6, rel=1e-4, abs=1e-4)


def test_entries_that_are_alike_are_one() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 3, (2_000, 5)) << rng.integers(0, 40, (2_000, 1)) % 4 * 13
    bucket = rng.integers(0, 3, 2_000)
    slots, which, first = np.full(4_096, -1, np.int32), np.empty(2_000, np.int32), np.empty(2_000, np.int64)
    found = fitting.chains.distinct_entries(bucket, counts, slots, which, first)
    rows = np.column_stack([bucket, counts])
    assert found == np.unique(rows, axis=0).shape[0] < 2_000
    assert (rows[first[:found]][which] == rows).all()
    assert (which[first[:found]] == np.arange(found)).all()


def test_every_fourth_chain_has_its_entries() -> None:
    entries = fitting.Entries(np.array([0, 2, 2, 3, 4, 5, 9]), np.arange(9), np.arange(45).reshape(9, 5))
    some = entries.thinned(4)
    assert some.offsets.tolist() == [0, 2, 3]
    assert some.orders.tolist() == [0, 1, 4]
    assert some.counts[:, 0].tolist() == [0, 5, 20]


def test_minimise_finds_a_valley() -> None:
    def rosenbrock(x: np.ndarray) -> tuple[float, np.ndarray]:
        a, b = 1 - x[0], x[1] - x[0] ** 2
        return float(a * a + 100 * b * b + 1), np.array([-2 * a - 400 * x[0] * b, 200 * b])

    assert fitting.minimise(rosenbrock, np.array([-1.2, 1.0]), 200) == pytest.approx([1, 1], abs=1e-2)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (((1.0, 1.0, 1.0, 0.0),), "not 1 lines"),
        (((1.0, 1.0, 1.0, 0.0), (1.0, 0.5, 0.5, 0.5)), "0 ≤ λ < 1"),
        (((1.0, 1.0, 1.0, 0.0), (0.5, 0.5, 2.0, 0.5)), "D_i < i"),
    ],
)
def test_a_table_that_cannot_be(table: tuple[tuple[float, ...], ...], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        make_estimator("auto", discounts=((0.5, 1.0, 1.5),), strengths=table)
