"""Smoothed targets against the oracle, inside the index, outside of it and in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import corpus_index.targets.request as asked_module
import numpy as np
import pytest
from corpus_index import CorpusIndex, QueryError, SparseTargets
from corpus_index.reference.engine import ReferenceIndex
from corpus_index.reference.estimators import witten_bell
from hypothesis import given
from hypothesis import strategies as st

from ..conftest import corpora, draw_rows

Both = Callable[..., tuple[CorpusIndex, ReferenceIndex]]
Make = Callable[..., CorpusIndex]


def dense(targets: SparseTargets, q: int) -> np.ndarray:
    """One position's distribution over V, float64."""
    part = slice(targets.offsets[q], targets.offsets[q + 1])
    p = targets.rest[q] * targets.base.astype(np.float64)
    p[targets.token_ids[part]] += targets.probs[part]
    return p


@given(st.data(), corpora(), st.sampled_from([None, 0, 1, 3]), st.booleans(), st.sampled_from([1, 2, 64]))
def test_witten_bell(
    make_both: Both,
    monkeypatch: pytest.MonkeyPatch,
    data: st.DataObject,
    corpus: dict[str, Any],
    order: int | None,
    leave: bool,
    top_k: int,
) -> None:
    monkeypatch.setattr(asked_module, "_CHUNK", 7)
    corpus["vocab_size"] = min(corpus["vocab_size"], 6)
    index, reference = make_both(corpus)
    rows = draw_rows(data, corpus, 2)
    following = np.full_like(rows, -1)
    following[:, :-1] = rows[:, 1:]
    starts = data.draw(st.booleans())
    targets = index.smoothed_targets(
        rows,
        following,
        max_order=order,
        leave_out="self" if leave else None,
        top_k=top_k,
        starts_document=starts,
    )
    for b, row in enumerate(rows.tolist()):
        for t in range(len(row)):
            q = b * len(row) + t
            actual = dense(targets, q)
            assert actual.sum() == pytest.approx(1, abs=1e-6)
            assert actual.min() >= (0 if not leave else -1e-7)
            left_out = ("self", int(following[b, t])) if leave and following[b, t] >= 0 else None
            known = reference.known_symbols(row[: t + 1], starts)
            expected = witten_bell(reference, known, max_order=order, leave_out=left_out)
            kept = targets.offsets[q + 1] - targets.offsets[q]
            assert kept <= top_k
            assert np.abs(actual - expected).sum() <= 2 * targets.cut_mass[q] + 2e-6


@given(corpora())
def test_an_unseen_token_has_a_probability(make_index: Make, corpus: dict[str, Any]) -> None:
    corpus["vocab_size"] = 9
    targets = make_index(**corpus).smoothed_targets([[0, 1, 0]])
    assert all(dense(targets, q)[8] > 0 for q in range(3))


def test_leaving_out_averages_to_the_plain_counts(make_index: Make) -> None:
    """Averaged over a context's positions, p without self is p: shown for one order and counts of two and more."""
    documents = [[0, 1, 2], [0, 1, 3], [0, 1, 2], [0, 1, 2]]
    index = make_index(documents, vocab_size=4)
    following = index.next_tokens([0, 1], max_order=2)
    assert dict(zip(following.token_ids.tolist(), following.counts.tolist(), strict=True)) == {2: 3, 3: 1}
    total = np.zeros(4)
    for token, count in Counter({2: 3, 3: 1}).items():
        left = {w: c - (w == token) for w, c in {2: 3, 3: 1}.items()}
        total += count * np.array([0, 0, left[2], left[3]]) / 3
    assert total / 4 == pytest.approx(np.array([0, 0, 3, 1]) / 4)


@pytest.mark.parametrize("label", [0, 1, 2, 3])
def test_leaving_self_out_hides_the_label(make_index: Make, label: int) -> None:
    """The target at the last position of a document doesn't change when its label in the corpus does."""
    row = [1, 2, 1, 2]
    rest = [[1, 2, 3, 1, 0], [2, 1, 2, 0, 3], [0, 3, 2, 1]]
    documents = [*rest, [*row, label]]
    targets = make_index(documents, vocab_size=4).smoothed_targets([row], [[2, 1, 2, label]], leave_out="self")
    expected = ReferenceIndex(rest, 4)
    # the same context without that document's last token
    witness = witten_bell(ReferenceIndex([*rest, row], 4), row)
    assert expected.num_tokens == 14
    assert dense(targets, 3) == pytest.approx(witness, abs=1e-6)


def test_match_len_and_count_tell_what_was_used(make_index: Make) -> None:
    index = make_index([[1, 2, 3], [1, 2, 2]], vocab_size=4)
    plain = index.smoothed_targets([[1, 2]], [[2, 3]])
    assert plain.match_len.tolist() == [1, 2]
    assert plain.context_count.tolist() == [2, 2]
    left = index.smoothed_targets([[1, 2]], [[2, 3]], leave_out="self")
    assert left.match_len.tolist() == [1, 2]
    assert left.context_count.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "magic"}, "no estimator 'magic': choose one of mle"),
        ({"leave_out": "other"}, "leave_out 'other'"),
        ({"leave_out": "self"}, "needs next_ids"),
        ({"leave_out": "self", "next_ids": [[4, 0]]}, "next id 4 is outside"),
        ({"leave_out": "self", "next_ids": [[1]]}, "the shape of input_ids"),
        ({"top_k": 0}, "top_k 0"),
    ],
)
def test_bad_options(make_index: Make, options: dict[str, Any], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        make_index([[1, 2, 3]], vocab_size=4).smoothed_targets([[1, 2]], **options)
