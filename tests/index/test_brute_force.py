"""Every estimator × way of leaving out × odd corpus: the engine, its naive twin and a brute force agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import corpus_index.reference.estimators as naive
import numpy as np
import pytest
from corpus_index import ESTIMATORS, CorpusIndex, Estimator
from corpus_index.estimators.registry import REGISTRY
from corpus_index.reference import ReferenceIndex

from .brute_force import BruteForce, distribution

Make = Callable[..., CorpusIndex]

CORPORA: dict[str, tuple[list[list[int]], int]] = {
    "one document": ([[0, 1, 2, 0, 1, 2, 0, 1, 1]], 4),
    "one token": ([[1]], 3),
    "empty documents": ([[], [0, 1, 2], [], [], [0, 1, 1, 2], []], 4),
    "two tokens": ([[0, 1, 0, 0, 1], [1, 1, 0], [0, 1, 0, 0, 1]], 2),
    "all equal": ([[1] * 7, [1] * 3, [1]], 3),
    "copies": ([[2, 0, 1, 3], [2, 0, 1, 3], [2, 0, 1, 3], [3, 1]], 5),
}
LEAVE_OUT = (None, "self", "document")


def twin_options(estimator: Estimator) -> dict[str, Any]:
    """The estimator's parameters as its twin takes them."""
    discounts = [row[0] for row in estimator.discounts]
    table = estimator.strengths
    by_name: dict[str, dict[str, Any]] = {
        "jelinek-mercer": {"weights": table},
        "dirichlet": {"concentrations": [row[0] for row in table]},
        "absolute-discounting": {"discounts": discounts},
        "kneser-ney": {"discounts": discounts},
        "modified-kneser-ney": {"discounts": estimator.discounts},
        "pitman-yor": {"discounts": discounts, "concentrations": [row[0] for row in table]},
        "add-k": {"k": estimator.k},
        "katz": {"ratios": estimator.ratios},
        "stupid-backoff": {"alpha": estimator.alpha},
    }
    if estimator.name == "auto":
        orders, lengths, shares = (int(size) for size in table[0][:3])

        def parameters(order: int, total: int, distinct: int) -> tuple[float, tuple[float, ...]]:
            place = (min(order, orders) - 1) * lengths + min(total.bit_length() - 1, lengths - 1)
            weight, *cuts = table[1 + place * shares + distinct * (shares - 1) // total]
            return weight, tuple(cuts)

        return {"parameters": parameters, "root": estimator.discounts[0]}
    return by_name.get(estimator.name, {})


@pytest.mark.parametrize("order", [None, 0, 2])
@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_engine_twin_and_brute_force_agree(make_index: Make, name: str, corpus: str, order: int | None) -> None:
    documents, vocab_size = CORPORA[corpus]
    index = make_index(documents, vocab_size)
    reference, brute = ReferenceIndex(documents, vocab_size), BruteForce(documents, vocab_size)
    estimator = index.fitted(name, order)
    twin = getattr(naive, REGISTRY[name].twin)
    starts = index.doc_starts
    for leave_out in LEAVE_OUT:
        for number, document in enumerate(documents):
            # the position before a document's first token isn't asked for: what precedes is another document
            row, following = np.array([document[:-1]], np.int64), np.array([document[1:]], np.int64)
            if row.size == 0:
                continue
            options: dict[str, Any] = {"estimator": estimator, "leave_out": leave_out, "starts_document": True}
            if leave_out == "document":
                options["positions"] = starts[number : number + 1]
            probabilities = index.next_probabilities(row, following, **options)
            flat = index.smoothed_targets(row, following, top_k=vocab_size, **options).dense()
            mixed = index.mixed_targets(row, following, **options).dense(index.row_table(estimator))
            for t in range(row.size):
                label = document[t + 1]
                own = next(e for e in brute.events if (e.document, e.place) == (number, t + 1))
                expected = distribution(brute, estimator, own, leave_out)
                left = None if leave_out is None else (leave_out, label if leave_out == "self" else number)
                known = reference.known_symbols(document[: t + 1], True)
                naively = twin(reference, known, max_order=order, leave_out=left, **twin_options(estimator))
                assert naively == pytest.approx(expected, rel=1e-9, abs=1e-12)
                assert probabilities[t] == pytest.approx(expected[label], rel=1e-9, abs=1e-12)
                assert flat[t, label] == pytest.approx(expected[label], abs=2e-6)
                assert mixed[t, label] == pytest.approx(expected[label], abs=2e-6)
                if leave_out is None:
                    assert flat[t] == pytest.approx(expected, abs=2e-6)
                    assert mixed[t] == pytest.approx(expected, abs=2e-6)
                assert flat[t].sum() == pytest.approx(1, abs=1e-5)
                assert mixed[t].sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("leave_out", LEAVE_OUT)
def test_the_brute_force_by_hand(leave_out: str | None) -> None:
    """The corpus "ab", "ab", "bb": after "^a" stands b twice, once without the own one or its document."""
    brute = BruteForce([[0, 1], [0, 1], [1, 1]], 2)
    own = brute.events[1]
    events = brute.left(own, leave_out)
    assert [event.before.endswith("^a") for event in events].count(True) == (2 if leave_out is None else 1)
    assert len(events) == {None: 6, "self": 5, "document": 4}[leave_out]
