"""The counts of chains against a scan of the corpus for every suffix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from corpus_index import CorpusIndex, QueryError
from corpus_index.core.chains import counts_of_chains
from corpus_index.reference import ReferenceIndex
from corpus_index.reference.chains import counts_of_chain
from hypothesis import given
from hypothesis import strategies as st

from ..conftest import corpora, draw_rows

Both = Callable[..., tuple[CorpusIndex, ReferenceIndex]]
Make = Callable[..., CorpusIndex]


def columns(counts: dict[int, int], label: int) -> list[int]:
    """The label's count, the sum, and how many are 1, 2, 3 and more."""
    values = list(counts.values())
    return [counts.get(label, 0), sum(values), values.count(1), values.count(2), sum(value > 2 for value in values)]


@given(
    data=st.data(),
    corpus=corpora(),
    order=st.sampled_from([None, 0, 1, 3]),
    leave_out=st.sampled_from([None, "self", "document"]),
    starts=st.booleans(),
)
def test_equal_the_naive_counts(
    make_both: Both, data: st.DataObject, corpus: dict[str, Any], order: int | None, leave_out: str | None, starts: bool
) -> None:
    index, reference = make_both(corpus)
    rows = draw_rows(data, corpus, 2)
    if index.num_tokens < rows.shape[1] + 1:
        return
    following = np.append(rows[:, 1:], [[-1], [rows[1, 0]]], axis=1)
    positions = [data.draw(st.integers(0, index.num_tokens - rows.shape[1] - 1)), 0]
    options: dict[str, Any] = {"positions": positions} if leave_out == "document" else {}
    chains = counts_of_chains(
        index, rows, following, max_order=order, leave_out=leave_out, starts_document=starts, left=True, **options
    )
    for b, row in enumerate(rows.tolist()):
        for t in range(len(row)):
            q, label = b * len(row) + t, int(following[b, t])
            left = None
            if leave_out is not None and label in reference.tokens:
                left = (leave_out, label if leave_out == "self" else reference.document_of(positions[b] + t + 1))
            known = reference.known_symbols(row[: t + 1], starts)
            naive = counts_of_chain(reference, known, max_order=order, leave_out=left)
            seen = []
            first = int(chains.offsets[q])
            for node in range(first, int(chains.offsets[q + 1])):
                tokens, counts, lefts = chains.continuations(node)
                ids = index.ids_of(tokens).tolist()
                for depth in range(int(chains.depths[node]), int(chains.shallower[node]), -1):
                    seen.append(depth)
                    expected = naive[depth]
                    assert dict(zip(ids, counts.tolist(), strict=True)) == dict(expected.counts)
                    assert chains.occurrences[node].tolist() == columns(expected.counts, label)
                    if depth < chains.depths[node]:  # the orders within a node: one symbol stands before them
                        assert dict(expected.lefts) == dict.fromkeys(ids, 1)
                    elif depth == order and leave_out == "self":
                        pass  # what precedes is not looked at: this order counts occurrences
                    elif node == first and chains.counts_occurrences[q]:
                        assert expected.lefts == expected.counts
                    else:
                        assert dict(zip(ids, lefts.tolist(), strict=True)) == dict(expected.lefts)
                        assert chains.lefts[node].tolist() == columns(expected.lefts, label)
            assert seen == list(range(len(naive)))[::-1]


def test_wrong_options(make_index: Make) -> None:
    index = make_index([[1, 2, 1]], 3)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"leave_out": "all"}, "leave_out 'all' is unknown"),
        ({"leave_out": "self"}, "needs next_ids"),
        ({"next_ids": [[1]], "leave_out": "document"}, "needs positions"),
        ({"next_ids": [[1, 2]]}, "next_ids must be integers of shape"),
        ({"next_ids": [[3]]}, "next_ids must be in"),
        ({"next_ids": [[1]], "leave_out": "document", "positions": [7]}, "outside of the corpus"),
    ]
    for options, sentence in cases:
        with pytest.raises(QueryError, match=sentence):
            counts_of_chains(index, [[1]], **options)
