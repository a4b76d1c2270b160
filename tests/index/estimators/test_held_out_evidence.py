"""Leave-document-out evidence against a slow count of the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from corpus_index import CorpusIndex
from corpus_index.estimators import held_out_evidence as evidence_module
from corpus_index.estimators.held_out_evidence import Evidence, leave_documents_out
from corpus_index.reference.counts import adjusted_counts, chain, followers, left_counts
from corpus_index.reference.engine import START, ReferenceIndex
from hypothesis import given
from hypothesis import strategies as st

from ..conftest import corpora

Both = Callable[..., tuple[CorpusIndex, ReferenceIndex]]


def five(counts: Counter[int], label: int) -> list[int]:
    values = list(counts.values())
    return [counts[label], sum(values), values.count(1), values.count(2), sum(value > 2 for value in values)]


def slow_count(
    reference: ReferenceIndex, known: tuple[int, ...], label: int, left_out: tuple[str, int], max_order: int
) -> list[list[int]]:
    """The line of the root, then, with their orders first, those of the nodes of the chain from the shallowest."""
    longest = len(chain(reference, known, max_order=max_order)) - 1
    lines = []
    for order, suffix in enumerate(chain(reference, known, max_order=max_order, leave_out=left_out)):
        raw, left = left_counts(reference, suffix, left_out), adjusted_counts(reference, suffix, left_out)
        branches = len({symbol for symbol, _ in followers(reference, suffix)}) > 1
        if order == 0:
            lines.append([*five(raw, label), *five(left, label)])
        elif order == longest or branches or suffix[0] == START:
            lines.append([order, *five(raw, label), *five(left, label)])
    return lines


def counts_at(reference: ReferenceIndex, position: int, max_order: int) -> list[list[int]]:
    """`slow_count` of a position without its document."""
    known, left_out = tuple(reference.contexts[position]), ("document", reference.document_of(position))
    return slow_count(reference, known, reference.tokens[position], left_out, max_order)


def lines_at(found: Evidence, position: int) -> list[list[int]]:
    """The same lines of the evidence."""
    lines = slice(found.offsets[position], found.offsets[position + 1])
    nodes = np.column_stack([found.orders[lines], found.raw[lines], found.left[lines]])[::-1].tolist()
    return [[*found.root_raw[position].tolist(), *found.root_left[position].tolist()], *nodes]


@given(corpus=corpora(), max_order=st.sampled_from([0, 1, 2, 5, 20]))
def test_equals_a_slow_count(make_both: Both, corpus: dict[str, Any], max_order: int) -> None:
    corpus["vocab_size"] = min(corpus["vocab_size"], 6)
    filled = [document for document in corpus["documents"] if document]
    corpus["documents"] = [*filled, *filled[:1] * evidence_module._FEW_DOCUMENTS]  # so many that no blocks are made
    index, reference = make_both(corpus)
    found = leave_documents_out(index, max_order)
    assert not found.by_blocks
    assert found.offsets.size == reference.num_tokens + 1
    documents = [tuple(document) for document in corpus["documents"]]
    counted: dict[Any, list[list[int]]] = {}  # of copies the first is counted: leaving out either leaves the same
    for position, (context, label) in enumerate(zip(reference.contexts, reference.tokens, strict=True)):
        key = tuple(context), label, documents[reference.document_of(position)]
        if key not in counted:
            counted[key] = counts_at(reference, position, max_order)
        assert lines_at(found, position) == counted[key]


def test_documents_that_are_nearly_copies(make_both: Both) -> None:
    """Their ranks share more symbols than a byte can tell."""
    rng = np.random.default_rng(0)
    text = rng.integers(0, 4, 300).tolist()
    fillers = [[1, 2]] * (evidence_module._FEW_DOCUMENTS - 3)  # no blocks, and too few to leave the others out
    documents = [[*text, 1, 2, 3], [*text, 1, 3, 2], [0, *text, 1, 2], *fillers]
    index, reference = make_both({"documents": documents, "vocab_size": 5, "end_of_document": None})
    found = leave_documents_out(index, 254)
    for position in (5, 200, 257, 280, 300, 301, 302, 303 + 270, 606 + 290):
        assert lines_at(found, position) == counts_at(reference, position, 254)


@given(corpus=corpora())
def test_blocks_stand_in_for_documents(make_both: Both, corpus: dict[str, Any]) -> None:
    corpus["documents"] = corpus["documents"][:1] if any(corpus["documents"][0]) else [[0, 0, 0]]
    corpus["end_of_document"] = None
    index, reference = make_both(corpus)
    found = leave_documents_out(index, 3)
    assert found.by_blocks
    assert (found.root_raw[:, 1] < reference.num_tokens).all()
    assert (found.raw[:, 0] <= found.raw[:, 1]).all()
    assert (found.raw[:, 1] > 0).all()


def test_a_sample_repeats_and_stays_within_its_documents(make_index: Callable[..., CorpusIndex]) -> None:
    rng = np.random.default_rng(0)
    index = make_index([(rng.geometric(0.2, 30) % 9).tolist() for _ in range(40)], vocab_size=9)
    first, again, other = (leave_documents_out(index, 4, positions=50, walked=300, seed=seed) for seed in (1, 1, 2))
    assert first.offsets.size == 51
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.root_raw[:, 0], other.root_raw[:, 0])


def test_copies_give_no_evidence(make_index: Callable[..., CorpusIndex]) -> None:
    """Two editions of one book stay out; a quotation of a twentieth doesn't matter."""
    rng = np.random.default_rng(0)
    originals = [rng.integers(0, 50, 1200).tolist() for _ in range(16)]
    originals[1][:100] = originals[0][:100]
    book = rng.integers(0, 50, 600).tolist()
    second = [*book[:300], 1, 2, 3, *book[300:]]
    index = make_index([*originals, book, second], vocab_size=50)
    found = leave_documents_out(index, 4)
    assert found.copies == 2
    assert found.offsets.size == 1 + 16 * 1200
    assert found.raw[:, 1].min() > 0
    few = make_index([*originals[:14], book, second], vocab_size=50)
    assert leave_documents_out(few, 4).copies == 0
    assert leave_documents_out(few, 4).offsets.size == 1 + few.num_tokens
