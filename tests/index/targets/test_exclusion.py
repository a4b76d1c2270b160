"""The estimators with exclusion against their naive twins: inside the corpus, outside of it, and in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpus_index.reference.estimators as naive
import corpus_index.targets.exclusion as backing_off
import numpy as np
import pytest
from corpus_index import CorpusIndex, QueryError, SparseTargets, build_index, make_estimator
from corpus_index._kernels.jit import recorded
from corpus_index.estimators.good_turing import good_turing_ratios
from corpus_index.reference.counts import good_turing_ratios as naive_ratios
from corpus_index.reference.engine import ReferenceIndex
from hypothesis import given
from hypothesis import strategies as st

from ..conftest import corpora, draw_rows

Both = Callable[..., tuple[CorpusIndex, ReferenceIndex]]
Make = Callable[..., CorpusIndex]

RATIOS = ((0.5, 0.6), (0.4, 1.0, 0.9, 0.7, 0.8), (0.3, 0.85, 0.9), (1.0, 1.0))
CASES: dict[str, tuple[str, dict[str, Any], Callable[..., list[float]], dict[str, Any]]] = {
    "add-k": ("add-k", {"k": 0.3}, naive.add_k, {"k": 0.3}),
    "katz": ("katz", {"ratios": RATIOS}, naive.katz, {"ratios": RATIOS}),
    "katz, nothing discounted": ("katz", {"ratios": ((1.0,),)}, naive.katz, {"ratios": ((1.0,),)}),
    "stupid-backoff": ("stupid-backoff", {"alpha": 0.7}, naive.stupid_backoff, {"alpha": 0.7}),
    "ppm-c": ("ppm-c", {}, naive.ppm_c, {}),
}


def dense(targets: SparseTargets, q: int) -> np.ndarray:
    """One position's distribution over V, as float32 adds it up."""
    part = slice(targets.offsets[q], targets.offsets[q + 1])
    p = targets.rest[q] * targets.base
    p[targets.token_ids[part]] += targets.probs[part]
    assert p.dtype == np.float32
    return p


def inside(data: st.DataObject, index: CorpusIndex) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Two rows of the corpus, what follows each of their tokens, and where they begin."""
    length = data.draw(st.integers(1, min(8, index.num_tokens)))
    positions = data.draw(st.lists(st.integers(0, index.num_tokens - length), min_size=2, max_size=2))
    flat = index.tokens.astype(np.int64)
    rows = np.stack([flat[position : position + length] for position in positions])
    following = np.stack([np.append(flat, -1)[position + 1 : position + length + 1] for position in positions])
    return rows, following, positions


@pytest.mark.parametrize("case", CASES)
@given(data=st.data(), corpus=corpora(), order=st.sampled_from([None, 0, 1, 3]), leave=st.booleans())
def test_equals_its_naive_twin(
    make_both: Both,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
    data: st.DataObject,
    corpus: dict[str, Any],
    order: int | None,
    leave: bool,
) -> None:
    monkeypatch.setattr(backing_off, "_CHUNK", 7)
    monkeypatch.setattr(backing_off, "_ROOM", 1)
    corpus["vocab_size"] = min(corpus["vocab_size"], 6)
    name, parameters, twin, twin_parameters = CASES[case]
    index, reference = make_both(corpus)
    rows = draw_rows(data, corpus, 2)
    following = np.roll(rows, -1, axis=1)
    starts = data.draw(st.booleans())
    options: dict[str, Any] = {
        "estimator": make_estimator(name, order, **parameters),
        "leave_out": "self" if leave else None,
        "starts_document": starts,
    }
    targets = index.smoothed_targets(rows, following, **options, top_k=index.vocab_size)
    scores = index.next_probabilities(rows, following, **options)
    found = index.smoothed_targets(rows, following, **{**options, "estimator": "witten-bell"}, max_order=order)
    assert np.array_equal(targets.match_len, found.match_len)
    assert np.array_equal(targets.context_count, found.context_count)
    assert targets.cut_mass.max() == 0
    for b, row in enumerate(rows.tolist()):
        for t in range(len(row)):
            q, label = b * len(row) + t, int(following[b, t])
            actual = dense(targets, q)
            left = ("self", label) if leave else None
            known = reference.known_symbols(row[: t + 1], starts)
            expected = np.array(twin(reference, known, max_order=order, leave_out=left, **twin_parameters))
            assert actual.sum() == pytest.approx(1, abs=1e-6)
            assert actual == pytest.approx(expected, abs=1e-6)
            assert scores[q] == pytest.approx(expected[label], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("case", CASES)
@given(data=st.data(), corpus=corpora(), order=st.sampled_from([None, 0, 1, 3]))
def test_leaving_the_document_out(
    make_both: Both, case: str, data: st.DataObject, corpus: dict[str, Any], order: int | None
) -> None:
    corpus["vocab_size"] = min(corpus["vocab_size"], 6)
    name, parameters, twin, twin_parameters = CASES[case]
    index, reference = make_both(corpus)
    rows, following, positions = inside(data, index)
    options: dict[str, Any] = {
        "estimator": make_estimator(name, order, **parameters),
        "leave_out": "document",
        "positions": positions,
    }
    targets = index.smoothed_targets(rows, following, **options)
    scores = index.next_probabilities(rows, following, **options)
    for b, position in enumerate(positions):
        for t in range(rows.shape[1]):
            q, label = b * rows.shape[1] + t, int(following[b, t])
            actual = dense(targets, q)
            assert actual.sum() == pytest.approx(1, abs=1e-6)
            if label < 0:
                continue
            left = ("document", reference.document_of(position + t + 1))
            known = reference.known_symbols(rows[b, : t + 1].tolist())
            expected = np.array(twin(reference, known, max_order=order, leave_out=left, **twin_parameters))
            assert scores[q] == pytest.approx(expected[label], rel=1e-9, abs=1e-12)
            assert actual[label] == pytest.approx(expected[label], abs=1e-6)
            listed = targets.token_ids[targets.offsets[q] : targets.offsets[q + 1]]
            if listed.size < index.vocab_size:
                assert actual[listed] == pytest.approx(expected[listed], abs=1e-6)
            others = np.setdiff1d(np.arange(index.vocab_size), listed)  # have the base's proportions
            assert actual[others].sum() == pytest.approx(expected[others].sum(), abs=1e-6)


@given(data=st.data(), corpus=corpora(), order=st.sampled_from([None, 0, 1, 3]), leave=st.booleans())
def test_raw_scores_of_stupid_backoff(
    make_both: Both, data: st.DataObject, corpus: dict[str, Any], order: int | None, leave: bool
) -> None:
    corpus["vocab_size"] = min(corpus["vocab_size"], 6)
    index, reference = make_both(corpus)
    rows = draw_rows(data, corpus, 2)
    following = np.roll(rows, -1, axis=1)
    following[0, 0] = -1
    leave_out = "self" if leave else None
    scores = index.backoff_scores(rows, following, max_order=order, leave_out=leave_out).reshape(rows.shape)
    assert np.isnan(scores[0, 0])
    for b, t in list(np.ndindex(rows.shape))[1:]:
        label = int(following[b, t])
        known = reference.known_symbols(rows[b, : t + 1].tolist())
        expected = naive.stupid_backoff_scores(
            reference, known, max_order=order, leave_out=("self", label) if leave else None
        )
        assert scores[b, t] == pytest.approx(expected[label], rel=1e-9)


@given(corpora(), st.integers(0, 3))
def test_fitted_ratios(make_both: Both, corpus: dict[str, Any], order: int) -> None:
    index, reference = make_both(corpus)
    fitted = make_estimator("katz", order).fit(index)
    assert fitted.ratios == tuple(tuple(naive_ratios(reference, n)) for n in range(order + 1))
    assert fitted.facts["fallback_orders"] == [n for n, row in enumerate(fitted.ratios) if 1.0 in row]


def test_good_turing_by_hand() -> None:
    # r* = 2·40/100 = 0.8 and 3·22/40 = 1.65; m = 3·22/100 = 0.66
    assert good_turing_ratios([100, 40, 22]) == pytest.approx([(0.8 - 0.66) / 0.34, (0.825 - 0.66) / 0.34])


@pytest.mark.parametrize("leave_out", [None, "self", "document"])
@pytest.mark.parametrize("case", CASES)
def test_what_is_cut_joins_the_base(make_index: Make, case: str, leave_out: str | None) -> None:
    rng = np.random.default_rng(1)
    index = make_index([(rng.geometric(0.06, 300) % 40).tolist() for _ in range(6)], vocab_size=42)
    positions = [0, 300, 700]
    rows = np.stack([index.tokens[p : p + 60] for p in positions]).astype(np.int64)
    following = np.stack([index.tokens[p + 1 : p + 61] for p in positions]).astype(np.int64)
    name, parameters, *_ = CASES[case]
    options: dict[str, Any] = {
        "estimator": make_estimator(name, 3, **parameters),
        "leave_out": leave_out,
        "positions": positions,
    }
    whole = index.smoothed_targets(rows, following, top_k=42, **options)
    scores = index.next_probabilities(rows, following, **options)
    for limits in ({"top_k": 3}, {"top_k": 1}, {"top_k": 40, "top_p": 0.5}):
        short = index.smoothed_targets(rows, following, **limits, **options)
        assert short.cut_mass.max() > 0.05
        for q, label in enumerate(following.reshape(-1).tolist()):
            exact, actual = dense(whole, q), dense(short, q)
            listed = short.token_ids[short.offsets[q] : short.offsets[q + 1]]
            assert (np.diff(listed) > 0).all()
            assert listed.size <= limits["top_k"]
            assert actual.min() >= -1e-6
            assert actual.sum() == pytest.approx(1, abs=2e-6)
            assert actual[listed] == pytest.approx(exact[listed], abs=2e-6)
            if leave_out is not None:
                assert label in listed
                assert actual[label] == pytest.approx(scores[q], abs=2e-6)
            others = np.setdiff1d(np.arange(42), listed)
            ratio = actual[others] / short.base[others]
            assert ratio == pytest.approx(np.full(others.size, ratio.mean()), rel=1e-4)


@pytest.mark.parametrize("name", ["katz", "ppm-c", "stupid-backoff", "add-k"])
def test_mixed_targets_and_samples(make_index: Make, name: str) -> None:
    rng = np.random.default_rng(3)
    index = make_index([(rng.geometric(0.3, 60) % 12).tolist() for _ in range(4)], vocab_size=14)
    rows = index.tokens[:20].astype(np.int64).reshape(2, 10)
    following = index.tokens[1:21].astype(np.int64).reshape(2, 10)
    options: dict[str, Any] = {"estimator": name, "max_order": 2, "leave_out": "document", "positions": [0, 10]}
    whole = index.smoothed_targets(rows, following, top_k=14, **options)
    mixed = index.mixed_targets(rows, following, **options)
    assert mixed.rows.size == 0
    assert mixed.row_offsets.tolist() == [0] * 21
    for name_of in ("offsets", "token_ids", "probs", "rest", "base", "match_len", "context_count"):
        assert np.array_equal(getattr(mixed, name_of), getattr(whole, name_of))
    mean = np.zeros((20, 14))
    runs, draws = 100, 100
    for seed in range(runs):
        sample = index.sampled_targets(rows, following, draws=draws, seed=seed, **options)
        assert sample.rest.max() == 0
        for q in range(20):
            mean[q] += dense(sample, q) / runs
    expected = np.stack([dense(whole, q).astype(np.float64) for q in range(20)])
    deviation = np.sqrt(np.maximum(expected * (1 - expected), 0) / (runs * draws))
    assert (np.abs(mean - expected) <= 5 * deviation + 1e-6).all()
    again = index.sampled_targets(rows, following, draws=draws, seed=runs - 1, **options)
    assert np.array_equal(again.probs, sample.probs)


@pytest.mark.parametrize("case", CASES)
def test_a_vocabulary_far_larger_than_the_corpus(make_both: Both, case: str) -> None:
    documents = [[7, 70_000, 7, 7, 99_999], [70_000, 7, 12]]
    index, reference = make_both({"documents": documents, "vocab_size": 100_000, "end_of_document": None, "light": 2})
    name, parameters, twin, twin_parameters = CASES[case]
    row, following = [5, 7, 70_000], [[7, 99_998, 12]]
    estimator = make_estimator(name, 2, **parameters)
    targets = index.smoothed_targets([row], following, estimator=estimator, leave_out="self", top_k=100_000)
    scores = index.next_probabilities([row], following, estimator=estimator, leave_out="self")
    for t, label in enumerate(following[0]):
        known = reference.known_symbols(row[: t + 1])
        expected = np.array(twin(reference, known, max_order=2, leave_out=("self", label), **twin_parameters))
        assert np.allclose(dense(targets, t), expected, rtol=0, atol=1e-6)
        assert dense(targets, t).sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)
        assert scores[t] == pytest.approx(expected[label], rel=1e-9)


def test_ids_that_the_corpus_lacks(make_index: Make) -> None:
    index = make_index([[1, 2, 1, 2, 3], [1, 2]], vocab_size=9)
    for name in ("katz", "stupid-backoff", "ppm-c", "add-k"):
        for leave_out in (None, "self"):
            scores = index.next_probabilities([[1, 8, 2]], [[8, 7, 0]], estimator=name, leave_out=leave_out)
            assert (scores > 0).all()
            targets = index.smoothed_targets([[1, 8, 2]], [[8, 7, 0]], estimator=name, leave_out=leave_out)
            assert (dense(targets, 0) > 0).all()
            assert dense(targets, 0)[8] == pytest.approx(scores[0], rel=1e-5)


@pytest.mark.parametrize("shard_tokens", [None, 4])
@pytest.mark.parametrize(("name", "parameter"), [("stupid-backoff", "alpha"), ("katz", "alpha"), ("add-k", "k")])
def test_whole_numbers_are_computed_with_by_the_same_kernels(
    tmp_path: Path, name: str, parameter: str, shard_tokens: int | None
) -> None:
    options: dict[str, Any] = {"doc_starts": [0, 5, 7], "vocab_size": 9, "shard_tokens": shard_tokens}
    index = build_index(np.array([1, 2, 1, 2, 3, 1, 2]), tmp_path / "index", **options)
    asked, answers = [], []
    for value in (1.0, 1):
        with recorded() as calls:
            estimator = make_estimator(name, 2, **{parameter: value})
            targets = index.smoothed_targets([[1, 2, 1]], estimator=estimator)
            scores = index.next_probabilities([[1, 2, 1]], [[2, 1, 3]], estimator=estimator)
        asked.append(set(calls))
        answers.append((targets.probs.tobytes(), scores.tobytes()))
    assert asked[1] <= asked[0]  # an int compiled all of them anew, for most of a minute
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("stupid-backoff", {"alpha": 0}, "alpha 0 must be above 0 and at most 1"),
        ("add-k", {"k": 0}, "k 0 must be above 0"),
        ("katz", {"ratios": ((0.5, 1.5),)}, r"ratios \(0.5, 1.5\) must be 1 to 5 numbers"),
    ],
)
def test_bad_parameters(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        make_estimator(name, **parameters)
