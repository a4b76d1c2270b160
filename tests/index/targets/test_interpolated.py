"""Every estimator's targets against its naive twin, for text inside the index, outside of it and in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpus_index.core.scratch as scratch_module
import corpus_index.reference.estimators as naive
import corpus_index.targets.request as asked_module
import numpy as np
import pytest
from corpus_index import (
    CorpusIndex,
    IndexFormatError,
    MixedTargets,
    QueryError,
    RowTable,
    SparseTargets,
    load_estimator,
    make_estimator,
)
from corpus_index.reference.counts import counts_of_counts
from corpus_index.reference.engine import ReferenceIndex
from hypothesis import assume, given
from hypothesis import strategies as st

from ..conftest import corpora, draw_rows

Both = Callable[..., tuple[CorpusIndex, ReferenceIndex]]
Make = Callable[..., CorpusIndex]

ONE = [0.3, 0.7, 0.45]
THREE = [(0.3, 1.1, 1.2), (0.7, 0.9, 1.9), (0.2, 0.4, 0.6)]
WEIGHTS = [[0.1, 0.3], [0.5, 0.8, 0.2, 0.9], [0.6]]
STRENGTHS = [0.5, 3.0, 1.7]
SIZES = (2, 2, 3)  # orders, bit lengths of counts, shares of distinct continuations
TABLE = (
    (2.0, 2.0, 3.0, 0.0),
    *((0.9 - 0.07 * i, 0.05 + 0.07 * i, 0.1 + 0.15 * i, 2.9 - 0.2 * i) for i in range(12)),
)


def auto_parameters(order: int, total: int, distinct: int) -> tuple[float, tuple[float, float, float]]:
    place = (min(order, 2) - 1, min(total.bit_length() - 1, 1), 2 if distinct == total else 2 * distinct // total)
    weight, *cuts = TABLE[1 + int(np.ravel_multi_index(place, SIZES))]
    return weight, (cuts[0], cuts[1], cuts[2])


def same(values: list[float]) -> tuple[tuple[float, float, float], ...]:
    return tuple((value, value, value) for value in values)


def column(values: list[float]) -> tuple[tuple[float], ...]:
    return tuple((value,) for value in values)


def padded(rows: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    width = max(map(len, rows))
    return tuple(tuple(row + row[-1:] * (width - len(row))) for row in rows)


CASES: dict[str, tuple[str, dict[str, Any], Callable[..., list[float]], dict[str, Any]]] = {
    "mle": ("mle", {}, naive.mle, {}),
    "witten-bell": ("witten-bell", {}, naive.witten_bell, {}),
    "jelinek-mercer": (
        "jelinek-mercer",
        {"strengths": padded(WEIGHTS)},
        naive.jelinek_mercer,
        {"weights": WEIGHTS},
    ),
    "dirichlet": (
        "dirichlet",
        {"strengths": column(STRENGTHS)},
        naive.dirichlet,
        {"concentrations": STRENGTHS},
    ),
    "absolute-discounting": (
        "absolute-discounting",
        {"discounts": same(ONE)},
        naive.absolute_discounting,
        {"discounts": ONE},
    ),
    "pitman-yor": (
        "pitman-yor",
        {"discounts": same(ONE), "strengths": column(STRENGTHS)},
        naive.pitman_yor,
        {"discounts": ONE, "concentrations": STRENGTHS},
    ),
    "auto": (
        "auto",
        {"discounts": (THREE[0],), "strengths": TABLE},
        naive.auto,
        {"parameters": auto_parameters, "root": THREE[0]},
    ),
    "kneser-ney": ("kneser-ney", {"discounts": same(ONE)}, naive.kneser_ney, {"discounts": ONE}),
    "modified-kneser-ney": (
        "modified-kneser-ney",
        {"discounts": tuple(THREE)},
        naive.modified_kneser_ney,
        {"discounts": THREE},
    ),
    "kenlm": (
        "modified-kneser-ney",
        {"discounts": tuple(THREE), "convention": "kenlm"},
        naive.modified_kneser_ney,
        {"discounts": THREE, "convention": "kenlm"},
    ),
}


def dense(targets: SparseTargets, q: int) -> np.ndarray:
    """One position's distribution over V, float64."""
    part = slice(targets.offsets[q], targets.offsets[q + 1])
    p = targets.rest[q] * targets.base.astype(np.float64)
    p[targets.token_ids[part]] += targets.probs[part]
    return p


@pytest.mark.parametrize("case", CASES)
@given(data=st.data(), corpus=corpora(), order=st.sampled_from([None, 0, 1, 2, 4]), leave=st.booleans())
def test_equals_its_naive_twin(
    make_both: Both,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
    data: st.DataObject,
    corpus: dict[str, Any],
    order: int | None,
    leave: bool,
) -> None:
    monkeypatch.setattr(asked_module, "_CHUNK", 7)
    corpus["vocab_size"] = min(corpus["vocab_size"], 6)
    name, parameters, twin, twin_parameters = CASES[case]
    index, reference = make_both(corpus)
    assume(case != "mle" or reference.num_tokens > 1)  # without its one token a corpus says nothing
    rows = draw_rows(data, corpus, 2)
    following = np.roll(rows, -1, axis=1)
    starts = data.draw(st.booleans())
    options: dict[str, Any] = {
        "estimator": make_estimator(name, order, **parameters),
        "leave_out": "self" if leave else None,
        "starts_document": starts,
    }
    targets = index.smoothed_targets(rows, following, **options)
    scores = index.next_probabilities(rows, following, **options)
    for b, row in enumerate(rows.tolist()):
        for t in range(len(row)):
            q, label = b * len(row) + t, int(following[b, t])
            actual = dense(targets, q)
            known = reference.known_symbols(row[: t + 1], starts)
            # a label that the corpus lacks has no occurrence to leave out
            held = any(label in document for document in corpus["documents"])
            left = ("self", label) if leave and held else None
            expected = np.array(twin(reference, known, max_order=order, leave_out=left, **twin_parameters))
            assert actual.sum() == pytest.approx(1, abs=2e-6)
            assert actual[label] == pytest.approx(expected[label], abs=1e-6)
            assert scores[q] == pytest.approx(actual[label], abs=1e-6)
            if not (leave and options["estimator"].uses_left_counts):
                # left counts without the own occurrence are exact at the label; the base spreads the rest
                assert actual == pytest.approx(expected, abs=1e-6)


def dense_mixed(targets: MixedTargets, table: RowTable, q: int) -> np.ndarray:
    """One position's distribution over V, float64."""
    part = slice(targets.offsets[q], targets.offsets[q + 1])
    p = targets.rest[q] * targets.base.astype(np.float64)
    p[targets.token_ids[part]] += targets.probs[part]
    num_rows = table.offsets.size - 1
    for f in range(targets.row_offsets[q], targets.row_offsets[q + 1]):
        row, (scale, *cuts) = int(targets.rows[f]), targets.coefficients[f].astype(np.float64)
        if row >= 2 * num_rows:
            own = row - 2 * num_rows
            entries = slice(targets.own_offsets[own], targets.own_offsets[own + 1])
            tokens, x = targets.own_token_ids[entries], targets.own_counts[entries]
        else:
            entries = slice(table.offsets[row % num_rows], table.offsets[row % num_rows + 1])
            values = table.left_extensions if row >= num_rows else table.counts
            assert values is not None
            tokens, x = table.token_ids[entries], values[entries].astype(np.int64)
        p[tokens] += scale * x - np.array(cuts)[np.minimum(x, 3) - 1]
    return p


@pytest.mark.parametrize("case", CASES)
@given(
    data=st.data(),
    corpus=corpora(),
    order=st.sampled_from([None, 0, 1, 2, 4]),
    leave_out=st.sampled_from([None, "self", "document"]),
)
def test_mixed_targets_are_whole_flat_ones(
    make_both: Both,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
    data: st.DataObject,
    corpus: dict[str, Any],
    order: int | None,
    leave_out: str | None,
) -> None:
    monkeypatch.setattr(asked_module, "_CHUNK", 7)
    monkeypatch.setattr(asked_module, "_PAIRS", 1)
    for name in (
        "_GONE_ROWS",
        "_GONE_ROOM",
        "_GONE_ENTRIES",
    ):  # rows without documents outgrow their room, and are kept
        monkeypatch.setattr(scratch_module, name, data.draw(st.sampled_from([1, 16])))
    corpus["vocab_size"] = min(corpus["vocab_size"], 6)
    name, parameters, _, _ = CASES[case]
    index, _ = make_both(corpus)
    assume(case != "mle" or index.num_tokens > 1)
    length = data.draw(st.integers(1, min(8, index.num_tokens)))
    positions = data.draw(st.lists(st.integers(0, index.num_tokens - length), min_size=2, max_size=2))
    flat = index.tokens.astype(np.int64)
    rows = np.stack([flat[position : position + length] for position in positions])
    following = np.stack([np.append(flat, -1)[position + 1 : position + length + 1] for position in positions])
    options: dict[str, Any] = {
        "estimator": make_estimator(name, order, **parameters),
        "leave_out": leave_out,
        "positions": positions,
    }
    mixed = index.mixed_targets(rows, following, **options)
    whole = index.smoothed_targets(rows, following, top_k=index.vocab_size, shortlist=None, **options)
    table = index.row_table(options["estimator"])
    assert np.array_equal(mixed.match_len, whole.match_len)
    assert np.array_equal(mixed.context_count, whole.context_count)
    for q in range(rows.size):
        tokens = mixed.token_ids[mixed.offsets[q] : mixed.offsets[q + 1]]
        assert (np.diff(tokens) > 0).all()
        actual = dense_mixed(mixed, table, q)
        assert actual.sum() == pytest.approx(1, abs=2e-6)
        assert actual == pytest.approx(dense(whole, q), abs=1e-6)


@pytest.mark.parametrize("leave_out", [None, "self", "document"])
@pytest.mark.parametrize("name", ["witten-bell", "modified-kneser-ney"])
def test_sampled_targets_are_unbiased(make_index: Make, name: str, leave_out: str | None) -> None:
    rng = np.random.default_rng(3)
    index = make_index([(rng.geometric(0.3, 60) % 12).tolist() for _ in range(4)], vocab_size=14)
    rows = index.tokens[:40].astype(np.int64).reshape(2, 20)
    following = index.tokens[1:41].astype(np.int64).reshape(2, 20)
    options: dict[str, Any] = {"estimator": name, "max_order": 2, "leave_out": leave_out, "positions": [0, 20]}
    exact = index.smoothed_targets(rows, following, shortlist=None, **options)
    mean = np.zeros((rows.size, 14))
    runs, draws = 400, 50
    for seed in range(runs):
        sample = index.sampled_targets(rows, following, draws=draws, seed=seed, **options)
        assert sample.rest.max() == 0
        for q in range(rows.size):
            tokens = sample.token_ids[sample.offsets[q] : sample.offsets[q + 1]]
            assert (np.diff(tokens) > 0).all()
            mean[q] += dense(sample, q) / runs
    expected = np.stack([dense(exact, q) for q in range(rows.size)])
    assert mean.sum(1) == pytest.approx(1, abs=1e-5)
    deviation = np.sqrt(expected * (1 - expected) / (runs * draws))
    assert (np.abs(mean - expected) <= 5 * deviation + 1e-6).all()
    again = index.sampled_targets(rows, following, draws=draws, seed=runs - 1, **options)
    assert np.array_equal(again.token_ids, sample.token_ids)


@pytest.mark.parametrize("leave_out", [None, "self", "document"])
@pytest.mark.parametrize("name", ["witten-bell", "modified-kneser-ney", "katz"])
def test_samples_hold_what_the_corpus_lacks(make_index: Make, name: str, leave_out: str | None) -> None:
    """Of so large a vocabulary the index keeps an alphabet of what occurs; half of the mass is of other tokens."""
    documents = [[2, 60419, 37717], [9, 60607, 2, 54539], [2, 9, 2, 60419]]
    index = make_index(documents, vocab_size=70_000)
    row, following = [2, 60419, 123, 9], [60419, 37717, 9, 2]
    options: dict[str, Any] = {"estimator": name, "max_order": 2, "leave_out": leave_out, "positions": [0]}
    exact = index.smoothed_targets(row, following, top_k=70_000, shortlist=None, **options)
    draws = 40_000
    sample = index.sampled_targets(row, following, draws=draws, seed=0, **options)
    held = np.zeros(70_000, np.bool_)
    held[np.concatenate(documents)] = True
    assert not held.all()
    for q in range(4):
        tokens = sample.token_ids[sample.offsets[q] : sample.offsets[q + 1]]
        assert (np.diff(tokens) > 0).all()
        expected, drawn = dense(exact, q), dense(sample, q)
        assert drawn.sum() == pytest.approx(1, abs=1e-4)
        deviation = np.sqrt(expected * (1 - expected) / draws)
        assert (np.abs(drawn - expected)[held] <= 5 * deviation[held] + 1e-4).all()
        elsewhere = expected[~held].sum()
        assert drawn[~held].sum() == pytest.approx(elsewhere, abs=5 * np.sqrt(elsewhere / draws) + 1e-4)
        assert drawn[~held].max() <= 20 / draws


@pytest.mark.parametrize("leave_out", [None, "self"])
@pytest.mark.parametrize("name", ["witten-bell", "modified-kneser-ney"])
def test_top_k_keeps_the_likeliest(make_index: Make, name: str, leave_out: str | None) -> None:
    """However few or many go: some dozens are dropped otherwise than a few, and pairs stand between a list's tokens."""
    generator = np.random.default_rng(7)
    chances = 1 / np.arange(1, 61)
    documents = [generator.choice(60, 400, p=chances / chances.sum()).tolist() for _ in range(8)]
    index = make_index(documents, vocab_size=60, light=20)
    row, following = documents[0][:-1], documents[0][1:]
    options: dict[str, Any] = {"estimator": name, "max_order": 3, "leave_out": leave_out, "starts_document": True}
    everything = index.smoothed_targets(row, following, top_k=60, shortlist=None, **options)
    fewer = 0
    for top_k in (1, 2, 7, 30, 40, 50, 55, 58):
        targets = index.smoothed_targets(row, following, top_k=top_k, shortlist=60, **options)
        for q, label in enumerate(following):
            a, e = everything.offsets[q : q + 2]
            ids, probs = everything.token_ids[a:e], everything.probs[a:e]
            a, e = targets.offsets[q : q + 2]
            kept, given = targets.token_ids[a:e], targets.probs[a:e]
            assert (np.diff(kept) > 0).all()
            assert kept.size == min(top_k, ids.size)
            fewer += ids.size > top_k
            always = leave_out is not None and label in ids
            assert not always or label in kept
            others = np.sort(probs[ids != label] if always else probs)[::-1]
            chosen = np.sort(given[kept != label] if always else given)[::-1]
            assert np.allclose(chosen, others[: chosen.size], rtol=1e-5, atol=0)
            assert abs(targets.rest[q] + given.sum(dtype=np.float64) - 1.0) <= 1e-6
            assert abs(targets.cut_mass[q] - (probs.sum(dtype=np.float64) - given.sum(dtype=np.float64))) <= 1e-6
            assert np.allclose(given, probs[np.searchsorted(ids, kept)], rtol=1e-5, atol=0)
    assert fewer > 1_000


def test_top_p_keeps_the_smallest_set(make_index: Make) -> None:
    rng = np.random.default_rng(4)
    index = make_index([(rng.geometric(0.1, 300) % 40).tolist() for _ in range(4)], vocab_size=42)
    rows = index.tokens[:100].astype(np.int64).reshape(2, 50)
    for shortlist in (None, 64):
        whole = index.smoothed_targets(rows, max_order=2, shortlist=shortlist)
        cut = index.smoothed_targets(rows, max_order=2, shortlist=shortlist, top_p=0.6137)
        for q in range(rows.size):
            mass = np.sort(whole.probs[whole.offsets[q] : whole.offsets[q + 1]])[::-1].astype(np.float64)
            kept = np.sort(cut.probs[cut.offsets[q] : cut.offsets[q + 1]])[::-1]
            needed = min(mass.size, int(np.searchsorted(np.cumsum(mass), 0.6137)) + 1)
            assert kept == pytest.approx(mass[:needed])
            assert dense(cut, q).sum() == pytest.approx(1, abs=2e-6)
            assert cut.cut_mass[q] == pytest.approx(whole.cut_mass[q] + mass[needed:].sum(), abs=1e-6)
    with pytest.raises(QueryError, match=r"top_p 0 must be above 0"):
        index.smoothed_targets(rows, top_p=0)


def test_heavy_contexts_are_rows_of_mixed_targets(make_index: Make) -> None:
    rng = np.random.default_rng(2)
    index = make_index([(rng.geometric(0.06, 300) % 40).tolist() for _ in range(6)], vocab_size=42)
    rows = index.tokens[:120].astype(np.int64).reshape(2, 60)
    for name in ("witten-bell", "modified-kneser-ney"):
        mixed = index.mixed_targets(rows, estimator=name, max_order=3)
        assert 0 < mixed.rows.size < 4 * rows.size
        assert (mixed.rows.max() >= index.row_table(name).offsets.size - 1) == (name == "modified-kneser-ney")
        assert mixed.offsets[-1] < mixed.rows.size * 10


@pytest.mark.parametrize("case", CASES)
@given(data=st.data(), corpus=corpora(), order=st.sampled_from([None, 0, 1, 2, 4]))
def test_leaving_the_document_out(
    make_both: Both, case: str, data: st.DataObject, corpus: dict[str, Any], order: int | None
) -> None:
    corpus["vocab_size"] = min(corpus["vocab_size"], 6)
    name, parameters, twin, twin_parameters = CASES[case]
    index, reference = make_both(corpus)
    length = data.draw(st.integers(1, min(8, index.num_tokens)))
    positions = data.draw(st.lists(st.integers(0, index.num_tokens - length), min_size=2, max_size=2))
    flat = index.tokens.astype(np.int64)
    rows = np.stack([flat[position : position + length] for position in positions])
    following = np.stack([np.append(flat, -1)[position + 1 : position + length + 1] for position in positions])
    estimator = make_estimator(name, order, **parameters)
    options: dict[str, Any] = {"estimator": estimator, "leave_out": "document", "positions": positions}
    targets = index.smoothed_targets(rows, following, **options)
    scores = index.next_probabilities(rows, following, **options)
    for b, position in enumerate(positions):
        for t in range(length):
            q, label, place = b * length + t, int(following[b, t]), position + t + 1
            actual = dense(targets, q)
            assert actual.sum() == pytest.approx(1, abs=2e-6)
            if label < 0:
                continue
            left = ("document", reference.document_of(place))
            if len(reference.documents[left[1]]) == reference.num_tokens:
                continue  # nothing is left to speak of
            known = reference.known_symbols(rows[b, : t + 1].tolist())
            expected = np.array(twin(reference, known, max_order=order, leave_out=left, **twin_parameters))
            assert actual[label] == pytest.approx(expected[label], abs=1e-6)
            assert scores[q] == pytest.approx(expected[label], abs=1e-6)
            # the others share what the base has for them in its own proportions
            assert np.abs(actual - expected).sum() <= 2 * targets.rest[q] + 1e-5


@given(corpora(), st.integers(0, 3))
def test_counts_of_counts(make_both: Both, corpus: dict[str, Any], order: int) -> None:
    from corpus_index.estimators.counts_of_counts import counts_of_counts as fast

    index, reference = make_both(corpus)
    raw = fast(index, order, left=False)
    left = fast(index, order + 1, left=True)
    assert raw[order].tolist() == counts_of_counts(reference, order, adjusted=False)
    assert left[order].tolist() == counts_of_counts(reference, order, adjusted=True)


@pytest.mark.parametrize("name", ["absolute-discounting", "kneser-ney", "modified-kneser-ney", "pitman-yor"])
def test_fitted_estimators(make_index: Make, tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    index = make_index([(rng.geometric(0.2, 400) % 9).tolist() for _ in range(5)], vocab_size=12)
    estimator = make_estimator(name, 3).fit(index)
    assert len(estimator.discounts) == 4
    assert all(0 < d <= i for row in estimator.discounts for i, d in enumerate(row, 1))
    estimator.save(tmp_path / "estimator.json")
    assert load_estimator(tmp_path / "estimator.json", index) == estimator
    by_name = index.smoothed_targets([[1, 2, 3]], estimator=name, max_order=3)
    by_object = index.smoothed_targets([[1, 2, 3]], estimator=estimator)
    assert np.array_equal(by_name.probs, by_object.probs)
    other = make_index([[1, 2, 1, 3]], vocab_size=12)
    with pytest.raises(IndexFormatError, match="was fitted on another index"):
        load_estimator(tmp_path / "estimator.json", other)
    with pytest.raises(QueryError, match="was fitted on another index"):
        other.smoothed_targets([[1]], estimator=estimator)


def test_a_file_that_is_no_estimator(make_index: Make, tmp_path: Path) -> None:
    (tmp_path / "estimator.json").write_text("[]")
    with pytest.raises(IndexFormatError, match="is not an estimator"):
        load_estimator(tmp_path / "estimator.json", make_index([[1, 2]], vocab_size=4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("magic",), "no estimator 'magic'"),
        (("mle", -1), "max_order -1"),
        (("kneser-ney", 255), "up to 254"),
    ],
)
def test_bad_estimators(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        make_estimator(*arguments)


@pytest.mark.parametrize("leave_out", [None, "self"])
def test_only_the_last_position(make_index: Callable[..., CorpusIndex], leave_out: str | None) -> None:
    index = make_index([[1, 2, 3, 1, 2, 0], [2, 3, 1, 1, 0]], 5, 0)
    ids, following = np.array([[1, 2, 3], [0, 2, 3], [4, 1, 1]]), np.array([[2, 3, 1], [2, 3, 4], [1, 1, 0]])
    options = {
        "estimator": "witten-bell",
        "max_order": 2,
        "leave_out": leave_out,
        "starts_document": [True, False, True],
    }
    whole = index.smoothed_targets(ids, following, **options)
    last = index.smoothed_targets(ids, following, only_last=True, **options)
    assert last.rest.size == 3
    for row in range(3):
        there, here = slice(*whole.offsets[3 * row + 2 : 3 * row + 4]), slice(*last.offsets[row : row + 2])
        assert whole.token_ids[there].tolist() == last.token_ids[here].tolist()
        assert whole.probs[there].tolist() == last.probs[here].tolist()
    for name in ("rest", "match_len", "context_count", "cut_mass"):
        assert getattr(whole, name)[2::3].tolist() == getattr(last, name).tolist()


@pytest.mark.parametrize(
    ("name", "leave_out"),
    [
        *((name, left) for name in ("witten-bell", "pitman-yor") for left in (None, "self", "document")),
        *(("modified-kneser-ney", left) for left in (None, "self")),
    ],
)
def test_a_shortlist_cuts_what_it_says(make_index: Make, name: str, leave_out: str | None) -> None:
    """Of long rows only the largest counts are explicit: the label stays exact, the rest is on the base and told."""
    rng = np.random.default_rng(1)
    index = make_index([(rng.geometric(0.06, 300) % 40).tolist() for _ in range(6)], vocab_size=42)
    positions = [0, 300, 700]
    rows = np.stack([index.tokens[p : p + 60] for p in positions]).astype(np.int64)
    following = np.stack([index.tokens[p + 1 : p + 61] for p in positions]).astype(np.int64)
    options: dict[str, Any] = {"estimator": name, "max_order": 3, "leave_out": leave_out, "positions": positions}
    whole = index.smoothed_targets(rows, following, shortlist=None, **options)
    short = index.smoothed_targets(rows, following, shortlist=3, **options)
    scores = index.next_probabilities(rows, following, **options)
    assert short.cut_mass.max() > 0.05
    assert whole.cut_mass.max() == 0
    for q, label in enumerate(following.reshape(-1).tolist()):
        exact, actual = dense(whole, q), dense(short, q)
        assert actual.sum() == pytest.approx(1, abs=2e-6)
        assert np.abs(actual - exact).sum() <= 2 * short.cut_mass[q] + 1e-5
        assert exact[label] == pytest.approx(scores[q], abs=1e-6)
        moved = short.rest[q] - whole.rest[q]  # what the base now gives the label on top of its own
        assert actual[label] - moved * short.base[label] == pytest.approx(scores[q], abs=2e-6)


@pytest.mark.parametrize("max_order", [None, 2, 8])
@pytest.mark.parametrize("case", CASES)
def test_the_own_label_is_not_read(make_index: Make, tmp_path: Path, case: str, max_order: int | None) -> None:
    """A corpus whose document ends in another token: its last target, without itself, stays what it was.

    Windows of every length, which begin in the document or with it. What they share with the rest of the corpus varies.
    """
    name, parameters, _, _ = CASES[case]
    estimator = make_estimator(name, max_order, **parameters)
    rng = np.random.default_rng(5)
    others = [(rng.geometric(0.3, 40) % 8).tolist() for _ in range(20)]
    repeated = [*others[0][:5], *others[3][9:13]]
    others += [[9, *repeated[begin:], 6] for begin in range(len(repeated)) for _ in range(2)]  # twice, after one symbol
    labels, made = (2, 6), []
    for label in labels:
        index = make_index([*others, [*repeated[:-1], 1], [*repeated, label]], vocab_size=10)
        targets = []
        for begin in range(len(repeated)):
            row = repeated[begin:]
            for starts in {False, begin == 0}:
                options: dict[str, Any] = {"estimator": estimator, "leave_out": "self", "starts_document": starts}
                flat = index.smoothed_targets([row], [[*row[1:], label]], top_k=10, shortlist=None, **options)
                targets.append(dense(flat, len(row) - 1))
        made.append(np.array(targets))
    # left counts without the own occurrence are exact at the label; the base spreads the rest, of 800 tokens
    assert made[0] == pytest.approx(made[1], abs=1e-3 if estimator.uses_left_counts else 1e-6)
